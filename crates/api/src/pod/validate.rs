//! Whether a pod may be created, with every reason against it.
//!
//! kubelet 1.36 puts every manifest through the API server's rules for new pods and refuses the whole file when one
//! is broken. Field paths and the words of the messages are the same as there.

mod containers;
mod environment;
mod meta;
mod mounts;
mod names;
mod network;
mod ports;
mod probes;
mod projected;
mod resources;
mod scheduling;
mod security;
mod spec;
mod volumes;

pub use names::{label_value as label_value_problems, qualified as qualified_name_problems};

use crate::problem::{Path, Problem, Problems};
use crate::v1;

/// Switches that change what is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates {
    /// `PreventStaticPodAPIReferences`, on in 1.36: static pods refer to no API object.
    pub prevent_static_pod_api_references: bool,
    /// `ContainerRestartRules`, on in 1.36: plain containers may have a restart policy and rules of their own.
    pub container_restart_rules: bool,
    /// `ContainerStopSignals`, off in 1.36: `lifecycle.stopSignal`.
    pub container_stop_signals: bool,
    /// `PodLevelResources`, on in 1.36: `spec.resources`.
    pub pod_level_resources: bool,
    /// `HostnameOverride`, on in 1.36: `spec.hostnameOverride`.
    pub hostname_override: bool,
    /// `EnvFiles`, on in 1.36: `valueFrom.fileKeyRef`.
    pub env_files: bool,
    /// `UserNamespacesHostNetworkSupport`, off in 1.36: `hostUsers: false` together with `hostNetwork`.
    pub user_namespaces_host_network: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            prevent_static_pod_api_references: true,
            container_restart_rules: true,
            container_stop_signals: false,
            pod_level_resources: true,
            hostname_override: true,
            env_files: true,
            user_namespaces_host_network: false,
        }
    }
}

/// Everything wrong with a pod that has its defaults; empty when it may run.
pub fn validate(pod: &v1::Pod, gates: Gates) -> Vec<Problem> {
    let mut problems = Problems::default();
    let empty = v1::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let path = Path::root().field("spec");
    meta::validate(&pod.metadata, &mut problems);
    meta::apparmor_annotations(&pod.metadata, spec, &mut problems);
    volumes::validate(spec, &path, &mut problems);
    containers::validate(spec, gates, &path, &mut problems);
    spec::validate(spec, gates, &path, &mut problems);
    network::validate(spec, gates, &path, &mut problems);
    security::validate_pod(spec, gates, &path, &mut problems);
    scheduling::validate(spec, &path, &mut problems);
    problems.into_vec()
}

/// `problems.unsupported` unless the value is one of those supported.
fn one_of(value: &str, supported: &[&str], path: &Path, problems: &mut Problems) {
    if value.is_empty() {
        problems.required(path, "");
    } else if !supported.contains(&value) {
        problems.unsupported(path, value, supported);
    }
}

/// `must be greater than or equal to 0` for a negative number.
fn not_negative(value: Option<i64>, path: &Path, problems: &mut Problems) {
    if let Some(value) = value
        && value < 0
    {
        problems.invalid(path, &value, "must be greater than or equal to 0");
    }
}

/// Adds every detail as `Invalid value`.
fn all_invalid(value: &str, details: Vec<String>, path: &Path, problems: &mut Problems) {
    for detail in details {
        problems.invalid(path, value, &detail);
    }
}

#[cfg(test)]
mod tests;
