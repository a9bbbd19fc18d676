//! From a pod's specification to what the runtime and the probers are told.
//!
//! All of it is pure: names, paths and contents follow from the pod, the node's facts and the arguments.

use std::net::IpAddr;

use rubelet_api::ids::PodUid;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_api::v1;

use crate::node::NodeFacts;
use crate::now::Now;
use crate::pod::fact::{ImageFound, StepFailure};
use crate::pod::needs::Inputs;

pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
pub mod expand;
pub mod hash;
pub mod hostname;
pub mod hosts;
pub(crate) mod json;
pub mod logs;
pub mod mounts;
pub mod paths;
pub mod probe;
pub mod sandbox;
pub mod security;
pub mod users;

pub use container::create_container;
pub use hash::container_hash;
pub use logs::{log_link, log_path};
pub use probe::{hook_how, probe_how};
pub use sandbox::sandbox_config;

/// Waiting reason of a container whose specification cannot become a configuration.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// Event reason of a sandbox that cannot be made.
pub const SANDBOX_ERROR: &str = "FailedCreatePodSandBox";

/// Why a configuration cannot be rendered, in the API's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    /// [`CONFIG_ERROR`] or [`SANDBOX_ERROR`].
    pub reason: &'static str,
    /// As users see it.
    pub message: String,
}

impl RenderError {
    fn config(message: impl Into<String>) -> Self {
        Self { reason: CONFIG_ERROR, message: message.into() }
    }

    pub(crate) fn sandbox(message: impl Into<String>) -> Self {
        Self { reason: SANDBOX_ERROR, message: message.into() }
    }
}

impl From<RenderError> for StepFailure {
    fn from(error: RenderError) -> Self {
        Self { reason: error.reason.to_owned(), message: error.message }
    }
}

/// What creating one container depends on.
#[derive(Clone, Copy, Debug)]
pub struct ContainerView<'a> {
    pub pod: &'a v1::Pod,
    /// Name of a container of the pod.
    pub container: &'a str,
    pub node: &'a NodeFacts,
    pub restart_count: u32,
    pub image: &'a ImageFound,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<&'a ContainerId>,
    pub sandbox: &'a SandboxId,
    /// The sandbox's attempt, for the configuration that goes with the request.
    pub sandbox_attempt: u32,
    /// Addresses of the sandbox, primary first; empty in the host's network, where the node's count.
    pub pod_ips: &'a [IpAddr],
    /// What was fetched of the objects that the pod refers to.
    pub inputs: &'a Inputs,
    pub now: Now,
}

/// The pod's addresses: in the host's network the node's.
pub fn effective_ips<'a>(pod: &v1::Pod, node: &'a NodeFacts, pod_ips: &'a [IpAddr]) -> &'a [IpAddr] {
    if pod_ips.is_empty() && is_host_network(pod) { &node.ips } else { pod_ips }
}

/// Whether the pod shares the host's network.
pub fn is_host_network(pod: &v1::Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

fn name(pod: &v1::Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(pod: &v1::Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

fn uid(pod: &v1::Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's UID.
#[must_use]
pub fn uid_of(pod: &v1::Pod) -> PodUid {
    PodUid::new(uid(pod))
}

/// A pod as messages name it: `name_namespace(uid)`.
fn full_name(pod: &v1::Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Regular and init containers, init ones first.
pub fn containers(pod: &v1::Pod) -> impl Iterator<Item = &v1::Container> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}

/// The pod's ephemeral containers as containers: they have the same fields, but for the target.
pub fn ephemeral(pod: &v1::Pod) -> Vec<v1::Container> {
    pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(as_container).collect()
}

/// Name of the container whose processes the ephemeral container of that name wants to see.
pub fn target<'a>(pod: &'a v1::Pod, name: &str) -> Option<&'a str> {
    let mut all = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
    all.find(|e| e.name == name)?.target_container_name.as_deref().filter(|target| !target.is_empty())
}

fn as_container(of: &v1::EphemeralContainer) -> v1::Container {
    let of = of.clone();
    v1::Container {
        name: of.name,
        image: of.image,
        command: of.command,
        args: of.args,
        working_dir: of.working_dir,
        ports: of.ports,
        env_from: of.env_from,
        env: of.env,
        resources: of.resources,
        resize_policy: of.resize_policy,
        restart_policy: of.restart_policy,
        restart_policy_rules: of.restart_policy_rules,
        volume_mounts: of.volume_mounts,
        volume_devices: of.volume_devices,
        liveness_probe: of.liveness_probe,
        readiness_probe: of.readiness_probe,
        startup_probe: of.startup_probe,
        lifecycle: of.lifecycle,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        image_pull_policy: of.image_pull_policy,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
    }
}

#[cfg(test)]
mod tests;
