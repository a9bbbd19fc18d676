//! Watching the runtime: its events where it has them, a relist as safety net, its readiness.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::node::NodeFacts;
use rubelet_proto::cri;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::facts;
use crate::hands::Hands;
use crate::life::Life;
use crate::observer::relist::relist;
use crate::observer::{Ask, UID_LABEL};
use crate::roster::RosterNote;
use crate::start::RELIST_PERIOD;

/// How often a runtime that is not ready is asked again.
const NOT_READY_PERIOD: Duration = Duration::from_secs(1);
/// How often a ready runtime is asked whether it still is.
const READY_PERIOD: Duration = Duration::from_secs(30);
/// Pause before a broken event stream is opened again.
const STREAM_PAUSE: Duration = Duration::from_secs(5);

/// Starts the three watches. They end with the roster.
pub(crate) fn spawn(
    life: &Life,
    hands: Arc<Hands>,
    node: watch::Sender<Arc<NodeFacts>>,
    roster: mpsc::Sender<RosterNote>,
) {
    life.spawn(relist_forever(hands.clone(), roster.clone()));
    life.spawn(follow_events(hands.clone(), roster));
    life.spawn(watch_readiness(hands, node));
}

async fn relist_forever(hands: Arc<Hands>, roster: mpsc::Sender<RosterNote>) {
    let mut ticks = tokio::time::interval(RELIST_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the survey was the first look
    let mut is_failing = false;
    let mut last = Instant::now();
    let counts = &hands.metrics.node;
    loop {
        ticks.tick().await;
        let began = Instant::now();
        counts.relist_interval.took(began.saturating_duration_since(last));
        last = began;
        let listed = relist(&hands).await;
        counts.relist.took(began.elapsed());
        match listed {
            Ok(pods) => {
                is_failing = false;
                counts.last_seen.set(now_secs());
                if roster.send(RosterNote::Relisted(pods)).await.is_err() {
                    return;
                }
                rubelet_host::memory::trim();
            }
            Err(e) if !is_failing => {
                is_failing = true;
                tracing::warn!(err = %e, "listing the runtime's pods failed; what is shown may be old until it answers again");
            }
            Err(e) => tracing::debug!(err = %e, "listing the runtime's pods failed again"),
        }
    }
}

/// Seconds since 1970.
fn now_secs() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}

/// Follows `GetContainerEvents`; a runtime without it is seen by pidfds and relists.
async fn follow_events(hands: Arc<Hands>, roster: mpsc::Sender<RosterNote>) {
    loop {
        let mut events = hands.runtime.container_events();
        let (counts, mut is_open) = (&hands.metrics.node, false);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if !std::mem::replace(&mut is_open, true) {
                        counts.streams.add_one();
                    }
                    counts.event_age.observe((now_secs() - event.created_at as f64 / 1e9).max(0.0));
                    if let Some(note) = note(&event)
                        && roster.send(note).await.is_err()
                    {
                        return;
                    }
                }
                Err(e) if e.is_unimplemented() => {
                    counts.stream_errors.add_one();
                    tracing::debug!("the runtime has no event stream; ends of containers are seen by their processes");
                    return;
                }
                Err(e) => {
                    counts.stream_errors.add_one();
                    tracing::debug!(err = %e, "the runtime's event stream broke");
                    break;
                }
            }
        }
        drop(events);
        tokio::time::sleep(STREAM_PAUSE).await;
    }
}

fn note(event: &cri::ContainerEventResponse) -> Option<RosterNote> {
    // Only ends matter: what the agent itself did it looks at by itself.
    let kind = cri::ContainerEventType::try_from(event.container_event_type).ok()?;
    if kind != cri::ContainerEventType::ContainerStoppedEvent {
        return None;
    }
    let sandbox = event.pod_sandbox_status.as_ref()?;
    let uid = sandbox
        .labels
        .get(UID_LABEL)
        .map(PodUid::new)
        .or_else(|| Some(PodUid::new(&sandbox.metadata.as_ref()?.uid)))?;
    let ask = if event.container_id == sandbox.id {
        Ask::SandboxEnded(SandboxId::new(&sandbox.id))
    } else {
        Ask::ContainerEnded(ContainerId::new(&event.container_id))
    };
    Some(RosterNote::Changed(uid, ask))
}

/// Asks the runtime for its readiness and tells deciders of the pod network.
async fn watch_readiness(hands: Arc<Hands>, node: watch::Sender<Arc<NodeFacts>>) {
    loop {
        let has_problem = node.borrow().runtime.network_problem.is_some();
        tokio::time::sleep(if has_problem { NOT_READY_PERIOD } else { READY_PERIOD }).await;
        if node.is_closed() {
            return;
        }
        let Ok(problem) = facts::network_problem(hands.runtime.as_ref()).await else { continue };
        node.send_if_modified(|facts| {
            if facts.runtime.network_problem == problem {
                return false;
            }
            let mut new = (**facts).clone();
            new.runtime.network_problem = problem;
            *facts = Arc::new(new);
            true
        });
    }
}
