//! Watching the runtime: its events where it has them, a relist as safety net, its readiness.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::node::NodeFacts;
use rubelet_proto::cri;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::facts::{self, Problems};
use crate::hands::Hands;
use crate::life::Life;
use crate::observer::relist::relist;
use crate::observer::{Ask, UID_LABEL};
use crate::roster::RosterNote;
use crate::start::RELIST_PERIOD;

/// How often a runtime that is not ready is asked again.
const NOT_READY_PERIOD: Duration = Duration::from_secs(1);
/// How often a ready runtime is asked whether it still is.
const READY_PERIOD: Duration = Duration::from_secs(10);
/// kubelet 1.36: a runtime that has not answered for so long counts as gone.
const DOWN_AFTER: Duration = Duration::from_secs(30);
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
    loop {
        ticks.tick().await;
        match relist(&hands).await {
            Ok(pods) => {
                is_failing = false;
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

/// Follows `GetContainerEvents`; a runtime without it is seen by pidfds and relists.
async fn follow_events(hands: Arc<Hands>, roster: mpsc::Sender<RosterNote>) {
    loop {
        let mut events = hands.runtime.container_events();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if let Some(note) = note(&event)
                        && roster.send(note).await.is_err()
                    {
                        return;
                    }
                }
                Err(e) if e.is_unimplemented() => {
                    tracing::debug!("the runtime has no event stream; ends of containers are seen by their processes");
                    return;
                }
                Err(e) => {
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

/// Asks the runtime for its readiness and tells deciders of it and of the pod network.
async fn watch_readiness(hands: Arc<Hands>, node: watch::Sender<Arc<NodeFacts>>) {
    let mut answered = Instant::now();
    let mut has_problem = node.borrow().runtime.network_problem.is_some();
    loop {
        tokio::time::sleep(if has_problem { NOT_READY_PERIOD } else { READY_PERIOD }).await;
        if node.is_closed() {
            return;
        }
        let known = node.borrow().runtime.clone();
        let before = Problems { runtime: known.problem, network: known.network_problem };
        let now = match facts::problems(hands.runtime.as_ref()).await {
            Ok(now) => {
                answered = Instant::now();
                now
            }
            Err(e) => {
                tracing::debug!(err = %e, "the runtime does not say whether it is ready");
                has_problem = true;
                if answered.elapsed() < DOWN_AFTER {
                    continue;
                }
                Problems { runtime: Some("container runtime is down".to_owned()), network: before.network.clone() }
            }
        };
        has_problem = now != Problems::default();
        if now == before {
            continue;
        }
        node.send_modify(|facts| {
            let mut new = (**facts).clone();
            (new.runtime.problem, new.runtime.network_problem) = (now.runtime, now.network);
            *facts = Arc::new(new);
        });
    }
}
