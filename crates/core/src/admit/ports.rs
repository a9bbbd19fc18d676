//! Whether the host's ports that a pod wants are free.

use rubelet_api::v1;

use super::Verdict;
use crate::resources::sum::is_sidecar;

/// One port of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: i32,
}

impl HostPort<'_> {
    /// An address that stands for all overlaps with every other.
    fn collides(&self, other: &Self) -> bool {
        let is_any = |ip: &str| ip == "0.0.0.0";
        self.protocol == other.protocol
            && self.port == other.port
            && (is_any(self.ip) || is_any(other.ip) || self.ip == other.ip)
    }
}

pub(super) fn check(pod: &v1::Pod, active: &[&v1::Pod]) -> Option<Verdict> {
    let taken: Vec<HostPort<'_>> = active.iter().flat_map(|other| host_ports(other)).collect();
    host_ports(pod).iter().any(|port| taken.iter().any(|other| port.collides(other))).then(|| {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        Verdict::rejected("NodePorts", message)
    })
}

/// Ports of regular containers and sidecars.
fn host_ports(pod: &v1::Pod) -> Vec<HostPort<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0"),
                protocol: port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP"),
                port: port.host_port.filter(|p| *p > 0)?,
            })
        })
        .collect()
}
