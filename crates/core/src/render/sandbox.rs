//! The sandbox's configuration.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::gather::Gather;
use rubelet_api::v1;
use rubelet_proto::cri;

use super::{RenderError, dns, hostname, name, namespace, paths, security, uid, users};
use crate::node::NodeFacts;
use crate::resources::cgroup::cgroup_parent;
use crate::resources::{overhead_resources, sandbox_resources};

/// What the runtime is told to make the pod's n-th sandbox from.
///
/// # Errors
///
/// The fully qualified host name is too long, or the pod wants a user namespace of its own.
pub fn sandbox_config(pod: &v1::Pod, attempt: u32, node: &NodeFacts) -> Result<cri::PodSandboxConfig, RenderError> {
    let sysctls = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.sysctls.as_ref());
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname: hostname::sandbox_hostname(pod, node)?,
        log_directory: paths::logs_dir(pod, node).to_string_lossy().into_owned(),
        dns_config: Some(dns::dns(pod, node).config),
        port_mappings: pod.spec.iter().flat_map(|s| &s.containers).flat_map(port_mappings).collect(),
        labels: sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(pod, node),
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls.iter().copied().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).into_map(),
            overhead: Some(overhead_resources(pod, node)),
            resources: Some(sandbox_resources(pod, node)),
        }),
        windows: None,
    })
}

/// The three labels by which everybody finds a pod's parts.
pub(super) fn identity_labels(pod: &v1::Pod) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("io.kubernetes.pod.name".to_owned(), name(pod).to_owned()),
        ("io.kubernetes.pod.namespace".to_owned(), namespace(pod).to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), uid(pod).to_owned()),
    ])
}

fn sandbox_labels(pod: &v1::Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity_labels(pod));
    labels
}

/// The container's ports; a repeated one is left out. kubelet 1.36: ports without a host port are told too.
fn port_mappings(container: &v1::Container) -> Vec<cri::PortMapping> {
    let mut seen = BTreeSet::new();
    let mut mappings = Vec::new();
    for port in container.ports.iter().flatten() {
        let host_ip = port.host_ip.clone().unwrap_or_default();
        let host_port = port.host_port.unwrap_or(0);
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        };
        let identity = match port.name.as_deref() {
            None | Some("") => format!("{} {host_ip} {} {host_port}", protocol.as_str_name(), port.container_port),
            Some(name) => name.to_owned(),
        };
        if seen.insert(identity) {
            mappings.push(cri::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port,
                host_ip,
            });
        }
    }
    mappings
}

/// Says whether the runtime's handler can make the pod's sandbox. kubelet 1.36: without its feature there is none.
pub fn check_handler(pod: &v1::Pod, handler: &str, node: &NodeFacts) -> Result<(), RenderError> {
    if !users::has_own_users(pod) {
        return Ok(());
    }
    if node.runtime.handlers.iter().any(|h| h.name == handler && h.user_namespaces) {
        return Ok(());
    }
    let whose = if handler.is_empty() { "runtime".to_owned() } else { format!("RuntimeClass handler {handler:?}") };
    Err(RenderError::sandbox(format!("can't set `spec.hostUsers: false`, {whose} does not support user namespaces")))
}
