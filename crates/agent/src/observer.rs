//! Looking at the runtime: status calls become sightings, once, here.

pub mod convert;
pub mod message;
pub mod relist;
pub mod view;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::pod::{ContainerState, ObservedContainer, ObservedSandbox};
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use tokio::time::Instant;

use crate::hands::Hands;
pub use view::{Listed, View};

/// Label that carries a pod's UID on sandboxes and containers.
pub const UID_LABEL: &str = "io.kubernetes.pod.uid";
/// Label that carries a pod's name.
pub const NAME_LABEL: &str = "io.kubernetes.pod.name";
/// Label that carries a pod's namespace.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// Label that carries a container's name.
pub const CONTAINER_LABEL: &str = "io.kubernetes.container.name";

/// One thing seen, and when the look at it began: of two sightings of one thing the later one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub at: Instant,
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A sandbox, and the pid of its first process when it lives and the runtime told.
    Sandbox(ObservedSandbox, Option<u32>),
    SandboxGone(SandboxId),
    /// A container, and the pid of its first process when it runs and the runtime told.
    Container(Box<ObservedContainer>, Option<u32>),
    ContainerGone(ContainerId),
    /// Whether the pod's own cgroup is there.
    Cgroup(bool),
}

/// What to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Sandbox(SandboxId),
    Container(ContainerId),
    /// Its process has ended: look until the runtime says so too.
    SandboxEnded(SandboxId),
    /// The same for a container.
    ContainerEnded(ContainerId),
    Cgroup,
    /// Everything that the runtime has of the pod, known or not.
    Pod,
}

/// How long the runtime may lag behind the end of a process before the relist takes over.
const END_LAG_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks at something whose process has ended, at least and at most.
const END_PAUSE_MIN: Duration = Duration::from_millis(2);
const END_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Pause between two looks that must succeed, at first and at most.
const SURE_PAUSE: Duration = Duration::from_millis(50);
const SURE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Looks at one thing. A call that fails shows nothing; the next relist asks again.
pub async fn look(hands: &Hands, pod: &PodUid, ask: Ask) -> Vec<Sighting> {
    match try_look(hands, pod, &ask).await {
        Ok(seen) => seen,
        Err(e) => {
            tracing::debug!(uid = %pod, ?ask, err = %e, "looking at a part of a pod failed, the next relist asks again");
            Vec::new()
        }
    }
}

/// Looks at one thing until the runtime answers. Whether something was made must be known before anything else is made; a look that panics is
/// one that failed, or what runs would be made a second time.
pub async fn look_surely(hands: &Hands, pod: &PodUid, ask: Ask) -> Vec<Sighting> {
    let mut pause = SURE_PAUSE;
    loop {
        match AssertUnwindSafe(try_look(hands, pod, &ask)).catch_unwind().await {
            Ok(Ok(seen)) => return seen,
            Ok(Err(e)) => {
                tracing::warn!(uid = %pod, ?ask, err = %e, "looking at what was made failed; nothing goes on before it is seen");
            }
            // The panic itself was told.
            Err(_) => {
                tracing::warn!(uid = %pod, ?ask, "looking at what was made panicked; nothing goes on before it is seen")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SURE_PAUSE_MAX);
    }
}

async fn try_look(hands: &Hands, pod: &PodUid, ask: &Ask) -> Result<Vec<Sighting>, RuntimeError> {
    let one = |seen: Option<Sighting>| seen.into_iter().collect();
    match ask {
        Ask::Sandbox(id) => look_at_sandbox(hands, id).await.map(one),
        Ask::Container(id) => look_at_container(hands, id).await.map(one),
        Ask::SandboxEnded(id) => until_ended(|| look_at_sandbox(hands, id)).await.map(one),
        Ask::ContainerEnded(id) => until_ended(|| look_at_container(hands, id)).await.map(one),
        Ask::Cgroup => Ok(one(look_at_cgroup(hands, pod))),
        Ask::Pod => {
            let listed = relist::one(hands, pod).await?;
            let mut seen = Vec::new();
            for id in listed.sandboxes.keys() {
                seen.extend(look_at_sandbox(hands, id).await?);
            }
            for id in listed.containers.keys() {
                seen.extend(look_at_container(hands, id).await?);
            }
            Ok(seen)
        }
    }
}

/// Whether the pod's cgroup is there; nothing where pods have none of their own. Reads the cgroup file system.
pub fn look_at_cgroup(hands: &Hands, pod: &PodUid) -> Option<Sighting> {
    let at = Instant::now();
    hands.has_pod_cgroup(pod).map(|has| Sighting { at, seen: Seen::Cgroup(has) })
}

async fn look_at_sandbox(hands: &Hands, id: &SandboxId) -> Result<Option<Sighting>, RuntimeError> {
    let at = Instant::now();
    let seen = match hands.runtime.pod_sandbox_status(id, true).await {
        Ok(answer) => {
            let pid = convert::verbose(&answer.info).pid;
            let Some(status) = answer.status else { return Ok(None) };
            let sandbox = convert::sandbox(&status);
            let pid = (sandbox.is_ready && pid != 0).then_some(pid);
            Seen::Sandbox(sandbox, pid)
        }
        Err(e) if e.is_not_found() => Seen::SandboxGone(id.clone()),
        Err(e) => return Err(e),
    };
    Ok(Some(Sighting { at, seen }))
}

async fn look_at_container(hands: &Hands, id: &ContainerId) -> Result<Option<Sighting>, RuntimeError> {
    let at = Instant::now();
    let seen = match container(hands, id).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(None),
        Err(e) if e.is_not_found() => Seen::ContainerGone(id.clone()),
        Err(e) => return Err(e),
    };
    Ok(Some(Sighting { at, seen }))
}

async fn container(hands: &Hands, id: &ContainerId) -> Result<Option<Seen>, RuntimeError> {
    let answer = hands.runtime.container_status(id, true).await?;
    let Some(status) = answer.status else { return Ok(None) };
    let mut verbose = convert::verbose(&answer.info);
    if verbose.sandbox.is_empty() {
        // Only lists tell of it where verbose status does not.
        let filter = cri::ContainerFilter { id: id.to_string(), ..Default::default() };
        let rows = hands.runtime.list_containers(Some(filter)).await?;
        verbose.sandbox = rows.into_iter().next().map(|r| r.pod_sandbox_id).unwrap_or_default();
    }
    let mut seen = convert::container(&status, &verbose.sandbox);
    if let ContainerState::Exited { code, reason, message, .. } = &mut seen.state
        && let Some(told) = message::termination_message(&status, *code, reason, &hands.pod_logs_dir)
    {
        *message = told;
    }
    let pid = (seen.state.is_running() && verbose.pid != 0).then_some(verbose.pid);
    Ok(Some(Seen::Container(Box::new(seen), pid)))
}

/// Looks again and again until what was seen no longer lives.
async fn until_ended<L>(look: impl Fn() -> L) -> Result<Option<Sighting>, RuntimeError>
where
    L: Future<Output = Result<Option<Sighting>, RuntimeError>>,
{
    let began = Instant::now();
    loop {
        let sighting = look().await?;
        let lives = match sighting.as_ref().map(|s| &s.seen) {
            Some(Seen::Container(container, _)) => container.state.is_running(),
            Some(Seen::Sandbox(sandbox, _)) => sandbox.is_ready,
            Some(Seen::ContainerGone(_) | Seen::SandboxGone(_) | Seen::Cgroup(_)) | None => false,
        };
        let lag = began.elapsed();
        if !lives || lag >= END_LAG_MAX {
            return Ok(sighting);
        }
        tokio::time::sleep(end_pause(lag)).await;
    }
}

/// The pause before the next look at something that has ended, but of which the runtime has not said so for `lag`: an eighth of it, so
/// that no more than that is lost.
fn end_pause(lag: Duration) -> Duration {
    (lag / 8).clamp(END_PAUSE_MIN, END_PAUSE_MAX)
}

/// Waits for the end of a process; false when it cannot be watched.
pub async fn process_ended(pid: u32) -> bool {
    match rubelet_host::process::exited(pid).await {
        Ok(()) => true,
        Err(e) => {
            tracing::debug!(pid, err = %e, "cannot watch a process of a pod, the relist tells of its end");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_runtimes_lag_no_more_than_a_part_is_added() {
        let mut lag = Duration::ZERO;
        let mut looks = 0;
        while lag < END_LAG_MAX {
            let pause = end_pause(lag);
            assert!(pause <= (lag / 8).max(END_PAUSE_MIN), "{pause:?} after {lag:?}");
            lag += pause;
            looks += 1;
        }
        assert!(looks < 70, "{looks} looks");
    }
}
