//! From a pod's specification to what the runtime and the probers are told.
//!
//! All of it is pure: names, paths and contents follow from the pod, the node's facts and the arguments.

use std::net::IpAddr;

use rubelet_api::ids::SandboxId;
use rubelet_api::v1;

use crate::node::NodeFacts;
use crate::now::Now;
use crate::pod::fact::{ImageFound, StepFailure};

pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
pub mod expand;
pub mod hash;
pub mod hostname;
pub mod hosts;
mod json;
pub mod logs;
pub mod mounts;
pub mod paths;
pub mod probe;
pub mod sandbox;
pub mod security;

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

    fn sandbox(message: impl Into<String>) -> Self {
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
    /// Name of a regular or init container of the pod.
    pub container: &'a str,
    pub node: &'a NodeFacts,
    pub restart_count: u32,
    pub image: &'a ImageFound,
    pub sandbox: &'a SandboxId,
    /// The sandbox's attempt, for the configuration that goes with the request.
    pub sandbox_attempt: u32,
    /// Addresses of the sandbox, primary first; empty in the host's network, where the node's count.
    pub pod_ips: &'a [IpAddr],
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

/// A pod as messages name it: `name_namespace(uid)`.
fn full_name(pod: &v1::Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Regular and init containers, init ones first.
pub fn containers(pod: &v1::Pod) -> impl Iterator<Item = &v1::Container> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}

#[cfg(test)]
mod tests;
