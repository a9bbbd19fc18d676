//! Watching the runtime: its events where it has them, a relist as safety net, its readiness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::node::NodeFacts;
use rubelet_host::chain;
use rubelet_proto::cri;
use tokio::sync::{Notify, mpsc, watch};
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
const READY_PERIOD: Duration = Duration::from_secs(30);
/// kubelet 1.36: a runtime that has not answered for so long counts as gone.
const DOWN_AFTER: Duration = Duration::from_secs(30);
/// How long its answer on its readiness is waited for.
const STATUS_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before a broken event stream is opened again.
const STREAM_PAUSE: Duration = Duration::from_secs(5);

/// Starts the three watches. They end with the roster.
pub(crate) fn spawn(
    life: &Life,
    hands: Arc<Hands>,
    node: watch::Sender<Arc<NodeFacts>>,
    roster: mpsc::Sender<RosterNote>,
) {
    let contact = Arc::new(Contact { answered: Mutex::new(Instant::now()), lost: Notify::new() });
    life.spawn(relist_forever(hands.clone(), roster.clone(), contact.clone()));
    life.spawn(follow_events(hands.clone(), roster));
    life.spawn(watch_readiness(hands, node, contact));
}

/// Whether the runtime answers anybody.
struct Contact {
    /// When it last did.
    answered: Mutex<Instant>,
    /// It did not answer somebody.
    lost: Notify,
}

impl Contact {
    fn answers(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_down(&self) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= DOWN_AFTER
    }
}

/// How long the roster has to take in what a look has found.
const TAKEN_IN: Duration = Duration::from_millis(200);

async fn relist_forever(hands: Arc<Hands>, roster: mpsc::Sender<RosterNote>, contact: Arc<Contact>) {
    let mut ticks = tokio::time::interval(RELIST_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the survey was the first look
    let mut is_failing = false;
    let mut last = Instant::now();
    let counts = &hands.metrics.node;
    let code = rubelet_host::memory::Code::find();
    loop {
        ticks.tick().await;
        let began = Instant::now();
        counts.relist_interval.took(began.saturating_duration_since(last));
        last = began;
        let relisted = relist(&hands).await;
        counts.relist.took(began.elapsed());
        if relisted.is_err() {
            contact.lost.notify_one();
        }
        match relisted {
            Ok(pods) => {
                contact.answers();
                is_failing = false;
                counts.last_seen.set(now_secs());
                if roster.send(RosterNote::Relisted(pods)).await.is_err() {
                    return;
                }
            }
            Err(e) if !is_failing => {
                is_failing = true;
                tracing::warn!(err = %e, "listing the runtime's pods failed; what is shown may be old until it answers again");
            }
            Err(e) => tracing::debug!(err = %e, "listing the runtime's pods failed again"),
        }
        // What the look took, and with it what work on pods left since the one before. Of code, Linux 6.18 maps up to 2 MiB around
        // each page that is touched.
        tokio::time::sleep(TAKEN_IN).await;
        rubelet_host::memory::trim();
        code.forget();
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

/// Asks the runtime for its readiness and tells deciders of it and of the pod network.
async fn watch_readiness(hands: Arc<Hands>, node: watch::Sender<Arc<NodeFacts>>, contact: Arc<Contact>) {
    let mut is_failing = false;
    let mut has_problem = node.borrow().runtime.network_problem.is_some();
    loop {
        tokio::select! {
            () = tokio::time::sleep(if has_problem { NOT_READY_PERIOD } else { READY_PERIOD }) => {}
            () = contact.lost.notified(), if !has_problem => {}
        }
        if node.is_closed() {
            return;
        }
        let known = node.borrow().runtime.clone();
        let before = Problems { runtime: known.problem, network: known.network_problem };
        let asked = tokio::time::timeout(STATUS_PATIENCE, facts::problems(hands.runtime.as_ref())).await;
        let now = match asked.map_err(|_| "no answer in time".to_owned()).and_then(|said| said.map_err(|e| chain(&e))) {
            Ok(now) => {
                contact.answers();
                if std::mem::take(&mut is_failing) {
                    learn_anew(&hands, &node).await;
                }
                now
            }
            Err(err) => {
                tracing::debug!(err, "the runtime does not say whether it is ready");
                (has_problem, is_failing) = (true, true);
                if !contact.is_down() {
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

/// A runtime that comes back may be another version of itself.
async fn learn_anew(hands: &Hands, node: &watch::Sender<Arc<NodeFacts>>) {
    let mut new = (**node.borrow()).clone();
    match facts::learn_runtime(&mut new, hands.runtime.as_ref()).await {
        Ok(()) => node.send_modify(|facts| *facts = Arc::new(NodeFacts { runtime: new.runtime, ..(**facts).clone() })),
        Err(err) => tracing::debug!(err, "the runtime does not say who it is now"),
    }
}
