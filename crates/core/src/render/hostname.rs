//! The name of the host that a pod's processes see.

use rubelet_api::v1;

use super::{RenderError, is_host_network, name, namespace};
use crate::node::NodeFacts;

/// Longest host name label.
const LABEL_LEN_MAX: usize = 63;
/// Longest host name that the kernel takes.
const KERNEL_LEN_MAX: usize = 64;

/// A host name and the domain that follows from `subdomain`; an empty domain when there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostName {
    pub host: String,
    pub domain: String,
}

/// Host name and domain of the pod. kubelet 1.36: `hostnameOverride` stands alone; else `hostname` or the pod's name, cut to 63
/// characters, and `<subdomain>.<namespace>.svc.<cluster domain>`.
pub fn host_name(pod: &v1::Pod, node: &NodeFacts) -> HostName {
    let Some(spec) = &pod.spec else { return HostName { host: cut(name(pod)), domain: String::new() } };
    if let (true, Some(host)) = (node.settings.gates.hostname_override, &spec.hostname_override) {
        return HostName { host: cut(host), domain: String::new() };
    }
    let host = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| name(pod));
    let domain = match spec.subdomain.as_deref() {
        None | Some("") => String::new(),
        Some(subdomain) => format!("{subdomain}.{}.svc.{}", namespace(pod), node.dns.cluster_domain),
    };
    HostName { host: cut(host), domain }
}

/// What the sandbox's host name is set to; empty in the host's network, where the host's own counts.
pub fn sandbox_hostname(pod: &v1::Pod, node: &NodeFacts) -> Result<String, RenderError> {
    if is_host_network(pod) {
        return Ok(String::new());
    }
    let HostName { host, domain } = host_name(pod, node);
    let wants_fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if !wants_fqdn || domain.is_empty() {
        return Ok(host);
    }
    let full = format!("{host}.{domain}");
    if full.len() > KERNEL_LEN_MAX {
        return Err(RenderError::sandbox(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({KERNEL_LEN_MAX} characters is the max, {} characters requested)",
            full.len()
        )));
    }
    Ok(full)
}

fn cut(host: &str) -> String {
    let mut len = host.len().min(LABEL_LEN_MAX);
    while !host.is_char_boundary(len) {
        len -= 1;
    }
    if len == host.len() { host.to_owned() } else { host[..len].trim_end_matches(['-', '.']).to_owned() }
}
