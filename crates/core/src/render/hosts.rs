//! The pod's `/etc/hosts`.

use std::net::IpAddr;

use rubelet_api::v1;

use super::hostname::{HostName, host_name};
use super::is_host_network;
use crate::node::NodeFacts;

/// Where the file appears in containers.
pub const PATH: &str = "/etc/hosts";

const LOCAL: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// Content of the file; `None` when the pod gets none: it has no address and is not in the host's network.
pub fn etc_hosts(pod: &v1::Pod, node: &NodeFacts, pod_ips: &[IpAddr]) -> Option<String> {
    let mut file = if is_host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{}", node.host_etc_hosts)
    } else if pod_ips.is_empty() {
        return None;
    } else {
        own_network(&host_name(pod, node), pod_ips)
    };
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            file.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    Some(file)
}

fn own_network(name: &HostName, pod_ips: &[IpAddr]) -> String {
    let mut file = LOCAL.to_owned();
    for ip in pod_ips {
        let HostName { host, domain } = name;
        match domain.as_str() {
            "" => file.push_str(&format!("{ip}\t{host}\n")),
            domain => file.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
        }
    }
    file
}
