//! Steps to effects: each step goes to the hand that knows how. Nothing is decided here.

pub(crate) mod containers;
pub(crate) mod dirs;
mod drivers;
pub(crate) mod hooks;
pub(crate) mod images;
mod sizes;

use std::net::IpAddr;
use std::sync::Arc;

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::pod::fact::Done;
use rubelet_core::pod::{Outcome, Step, StepFailure};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::hands::Hands;
use crate::metrics::Begun;
use crate::observer::{Ask, Sighting, look, look_at_cgroup};
use crate::worker::Note;

/// Which pod a step belongs to.
#[derive(Clone, Debug)]
pub(crate) struct PodRef {
    pub uid: PodUid,
    pub key: PodKey,
    pub pod: Arc<v1::Pod>,
    /// Its addresses; in the host's network the node's.
    pub ips: Vec<IpAddr>,
    /// When it was seen first, until it runs.
    pub since: Option<Instant>,
}

/// Carries out one step. `inbox` is for progress that is worth knowing before the end. The steps of a pod are one trace,
/// but for its probes, which have no end.
pub(crate) async fn execute(
    hands: &Arc<Hands>,
    pod: &PodRef,
    step: Step,
    inbox: &mpsc::Sender<Note>,
) -> (Outcome, Vec<Sighting>) {
    let (begun, since) = (Begun::of(&step, &pod.pod), Instant::now());
    let (outcome, seen) = traced(hands, pod, step, inbox).await;
    hands.metrics.ended(&begun, pod, since.elapsed(), &outcome);
    (outcome, seen)
}

async fn traced(hands: &Arc<Hands>, pod: &PodRef, step: Step, inbox: &mpsc::Sender<Note>) -> (Outcome, Vec<Sighting>) {
    let (name, container) = names(&step);
    if matches!(step, Step::Probe(_)) {
        return carry_out(hands, pod, step, inbox).await;
    }
    let span = tracing::info_span!(
        target: "trace", "step", otel.name = name, otel.of = %pod.uid, otel.error = Empty, k8s.pod.uid = %pod.uid,
        k8s.namespace.name = &*pod.key.namespace, k8s.pod.name = &*pod.key.name,
        k8s.container.name = container
    );
    let (outcome, seen) = carry_out(hands, pod, step, inbox).instrument(span.clone()).await;
    if let Err(failure) = &outcome {
        span.record("otel.error", failure.message.as_str());
    }
    (outcome, seen)
}

/// What the step is called, and the container that it is for, where the step says so.
fn names(step: &Step) -> (&'static str, Option<&str>) {
    match step {
        Step::EnsureCgroup(_) => ("EnsureCgroup", None),
        Step::RemoveCgroup => ("RemoveCgroup", None),
        Step::PrepareDirs => ("PrepareDirs", None),
        Step::Mount(_) => ("Mount", None),
        Step::Expand(_) => ("Expand", None),
        Step::PrepareClaims { .. } => ("PrepareClaims", None),
        Step::ReleaseClaims => ("ReleaseClaims", None),
        Step::Unmount => ("Unmount", None),
        Step::RemoveDirs => ("RemoveDirs", None),
        Step::CreateSandbox { .. } => ("CreateSandbox", None),
        Step::StopSandbox { .. } => ("StopSandbox", None),
        Step::RemoveSandbox { .. } => ("RemoveSandbox", None),
        Step::ResizePod(_) => ("ResizePod", None),
        Step::ResizeContainer(_) => ("ResizeContainer", None),
        Step::EnsureImage { container, .. } => ("EnsureImage", Some(container.as_str())),
        Step::CreateContainer(create) => ("CreateContainer", Some(create.container.as_str())),
        Step::StartContainer { container, .. } => ("StartContainer", Some(container.as_str())),
        Step::StopContainer { .. } => ("StopContainer", None),
        Step::RemoveContainer { .. } => ("RemoveContainer", None),
        Step::RunHook { container, .. } => ("RunHook", Some(container.as_str())),
        Step::Probe(_) => ("Probe", None),
        Step::Cancel(_) => ("Cancel", None),
    }
}

async fn carry_out(
    hands: &Arc<Hands>,
    pod: &PodRef,
    step: Step,
    inbox: &mpsc::Sender<Note>,
) -> (Outcome, Vec<Sighting>) {
    match step {
        Step::EnsureCgroup(cgroup) => cgroup_step(hands, pod, move |hands, _| hands.ensure_cgroup(&cgroup)).await,
        Step::RemoveCgroup => cgroup_step(hands, pod, |hands, uid| hands.remove_pod_cgroup(uid)).await,
        Step::PrepareDirs => on_disk(hands, pod, dirs::prepare).await,
        Step::Mount(volume) => (dirs::mount(hands, pod, *volume).await, Vec::new()),
        Step::Expand(volume) => (drivers::expand(hands, pod, &volume).await, Vec::new()),
        Step::PrepareClaims { wishes, .. } => (plain(hands.claims.prepare(&pod.uid, &wishes).await), Vec::new()),
        Step::ReleaseClaims => (plain(hands.claims.release(&pod.uid).await), Vec::new()),
        Step::Unmount => {
            hands.claims.count_without("UnprepareResources", &pod.pod);
            unmount(hands, pod).await
        }
        Step::RemoveDirs => on_disk(hands, pod, dirs::remove).await,
        Step::CreateSandbox { runtime_handler, config, .. } => {
            hands.claims.count_without("PrepareResources", &pod.pod);
            containers::run_sandbox(hands, &pod.uid, runtime_handler, *config).await
        }
        Step::StopSandbox { id } => containers::stop_sandbox(hands, &pod.uid, id).await,
        Step::RemoveSandbox { id } => containers::remove_sandbox(hands, &pod.uid, id).await,
        Step::ResizePod(resize) => sizes::pod(hands, pod, *resize).await,
        Step::ResizeContainer(resize) => sizes::container(hands, &pod.uid, *resize).await,
        Step::EnsureImage { container, wish } => (images::ensure(hands, container, wish, inbox).await, Vec::new()),
        Step::CreateContainer(create) => containers::create(hands, pod, *create).await,
        Step::StartContainer { id, log, .. } => containers::start(hands, &pod.uid, id, log).await,
        Step::StopContainer { id, grace_secs, .. } => containers::stop(hands, &pod.uid, id, grace_secs).await,
        Step::RemoveContainer { id, keep_logs, .. } => containers::remove(hands, &pod.uid, id, keep_logs).await,
        Step::RunHook { container, id, handler, .. } => {
            let outcome = hooks::run(hands, pod, &container, &id, handler).await;
            (outcome, look(hands, &pod.uid, Ask::Container(id)).await)
        }
        Step::Probe(probe) => (Ok(Done::Probe(hooks::probe(hands, *probe).await)), Vec::new()),
        Step::Cancel(key) => (Err(failed("", format!("step {key:?} cannot be cancelled from here"))), Vec::new()),
    }
}

/// All volumes of a pod; each counts as long as all take.
async fn unmount(hands: &Arc<Hands>, pod: &PodRef) -> (Outcome, Vec<Sighting>) {
    let (dir, since) = (hands.pod_dir(&pod.uid), Instant::now());
    let plugins = rubelet_host::task::blocking(move || rubelet_volumes::plugins(&dir)).await.unwrap_or_default();
    let (outcome, seen) = match dirs::unmount_csi(hands, pod).await {
        Ok(()) => on_disk(hands, pod, dirs::unmount).await,
        Err(message) => (Err(failed("", message)), Vec::new()),
    };
    hands.metrics.unmounted(&plugins, since.elapsed(), outcome.is_ok());
    (outcome, seen)
}

async fn cgroup_step(
    hands: &Arc<Hands>,
    pod: &PodRef,
    act: impl FnOnce(&Hands, &PodUid) -> Result<(), String> + Send + 'static,
) -> (Outcome, Vec<Sighting>) {
    let (hands, uid) = (hands.clone(), pod.uid.clone());
    let done = rubelet_host::task::blocking(move || {
        let outcome = act(&hands, &uid);
        (outcome, look_at_cgroup(&hands, &uid))
    });
    match done.await {
        Ok((outcome, seen)) => (plain(outcome), seen.into_iter().collect()),
        Err(e) => (Err(failed("", format!("cgroup step of pod {}: {e}", pod.key))), Vec::new()),
    }
}

async fn on_disk(
    hands: &Arc<Hands>,
    pod: &PodRef,
    act: impl FnOnce(&Hands, &PodRef) -> Result<(), String> + Send + 'static,
) -> (Outcome, Vec<Sighting>) {
    let (hands, pod) = (hands.clone(), pod.clone());
    let key = pod.key.clone();
    let outcome = match rubelet_host::task::blocking(move || act(&hands, &pod)).await {
        Ok(outcome) => plain(outcome),
        Err(e) => Err(failed("", format!("file step of pod {key}: {e}"))),
    };
    (outcome, Vec::new())
}

fn plain(outcome: Result<(), String>) -> Outcome {
    outcome.map(|()| Done::Plain).map_err(|message| failed("", message))
}

/// A failure with a reason of the API, or none.
pub(crate) fn failed(reason: &str, message: impl Into<String>) -> StepFailure {
    StepFailure { reason: reason.to_owned(), message: message.into() }
}
