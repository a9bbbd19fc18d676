//! Looking at the runtime: status calls become [`Observed`], once, here.

pub mod convert;
pub mod message;
pub mod relist;
pub mod view;

use std::time::Duration;

use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::pod::{ContainerState, ObservedContainer, ObservedSandbox};
use rubelet_proto::cri;

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

/// One thing seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    Sandbox(ObservedSandbox),
    SandboxGone(SandboxId),
    /// A container, and the pid of its first process when it runs and the runtime told.
    Container(Box<ObservedContainer>, Option<u32>),
    ContainerGone(ContainerId),
    Cgroup(bool),
}

/// What to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Sandbox(SandboxId),
    Container(ContainerId),
    /// Its process has ended: look until the runtime says so too.
    ContainerEnded(ContainerId),
    Cgroup,
}

/// How long the runtime may lag behind the end of a process before the relist takes over.
const END_LAG_MAX: Duration = Duration::from_secs(5);

/// Looks at one thing. A call that fails shows nothing; the next relist asks again.
pub async fn look(hands: &Hands, pod: &PodUid, ask: Ask) -> Vec<Sighting> {
    match ask {
        Ask::Sandbox(id) => look_at_sandbox(hands, &id).await.into_iter().collect(),
        Ask::Container(id) => look_at_container(hands, &id).await.into_iter().collect(),
        Ask::ContainerEnded(id) => look_until_ended(hands, &id).await.into_iter().collect(),
        Ask::Cgroup => vec![Sighting::Cgroup(hands.has_pod_cgroup(pod))],
    }
}

/// A sandbox's state; `None` when the runtime did not answer.
pub async fn look_at_sandbox(hands: &Hands, id: &SandboxId) -> Option<Sighting> {
    match hands.runtime.pod_sandbox_status(id, false).await {
        Ok(answer) => answer.status.map(|s| Sighting::Sandbox(convert::sandbox(&s))),
        Err(e) if e.is_not_found() => Some(Sighting::SandboxGone(id.clone())),
        Err(e) => {
            tracing::debug!(sandbox = %id, err = %e, "looking at a sandbox failed, the next relist asks again");
            None
        }
    }
}

/// A container's state, with the pid of its first process while it runs.
pub async fn look_at_container(hands: &Hands, id: &ContainerId) -> Option<Sighting> {
    match hands.runtime.container_status(id, true).await {
        Ok(answer) => {
            let verbose = convert::verbose(&answer.info);
            answer.status.map(|status| container_seen(hands, &status, &verbose))
        }
        Err(e) if e.is_not_found() => Some(Sighting::ContainerGone(id.clone())),
        Err(e) => {
            tracing::debug!(container = %id, err = %e, "looking at a container failed, the next relist asks again");
            None
        }
    }
}

fn container_seen(hands: &Hands, status: &cri::ContainerStatus, verbose: &convert::Verbose) -> Sighting {
    let mut seen = convert::container(status, &verbose.sandbox);
    if let ContainerState::Exited { code, reason, message, .. } = &mut seen.state
        && let Some(told) = message::termination_message(status, *code, reason, &hands.pod_logs_dir)
    {
        *message = told;
    }
    let pid = (seen.state.is_running() && verbose.pid != 0).then_some(verbose.pid);
    Sighting::Container(Box::new(seen), pid)
}

async fn look_until_ended(hands: &Hands, id: &ContainerId) -> Option<Sighting> {
    let (mut pause, deadline) = (Duration::from_millis(2), tokio::time::Instant::now() + END_LAG_MAX);
    loop {
        let seen = look_at_container(hands, id).await;
        let still_running = matches!(&seen, Some(Sighting::Container(c, _)) if c.state.is_running());
        if !still_running || tokio::time::Instant::now() >= deadline {
            return seen;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Waits for the end of a process; false when it cannot be watched.
pub async fn process_ended(pid: u32) -> bool {
    match rubelet_host::process::exited(pid).await {
        Ok(()) => true,
        Err(e) => {
            tracing::debug!(pid, err = %e, "cannot watch a container's process, the relist tells of its end");
            false
        }
    }
}
