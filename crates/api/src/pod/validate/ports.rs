//! `ports` of containers, and host ports among all containers of a pod.

use std::collections::BTreeSet;

use super::{names, one_of};
use crate::problem::{Path, Problems};
use crate::v1;

/// The ports of one container.
pub(super) fn validate(ports: &[v1::ContainerPort], host_network: bool, path: &Path, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (nth, port) in ports.iter().enumerate() {
        let path = path.index(nth);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let reasons = names::port(name);
            if !reasons.is_empty() {
                super::all_invalid(name, reasons, &path.field("name"), problems);
            } else if !seen.insert(name) {
                problems.duplicate(&path.field("name"), name);
            }
        }
        number(port, &path, problems);
        let host_port = port.host_port.unwrap_or(0);
        if host_port != 0
            && let Some(why) = names::port_number(host_port)
        {
            problems.invalid(&path.field("hostPort"), &host_port, why);
        }
        if host_network && host_port != 0 && host_port != port.container_port {
            problems.invalid(
                &path.field("hostPort"),
                &host_port,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
        one_of(
            port.protocol.as_deref().unwrap_or_default(),
            &["SCTP", "TCP", "UDP"],
            &path.field("protocol"),
            problems,
        );
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
            && let Some(why) = names::ip(ip)
        {
            problems.invalid(&path.field("hostIP"), ip, why);
        }
    }
}

fn number(port: &v1::ContainerPort, path: &Path, problems: &mut Problems) {
    let path = path.field("containerPort");
    if port.container_port == 0 {
        problems.required(&path, "");
    } else if let Some(why) = names::port_number(port.container_port) {
        problems.invalid(&path, &port.container_port, why);
    }
}

/// A host port, with its protocol and address, belongs to one port of these containers only.
pub(super) fn host_conflicts(containers: &[v1::Container], path: &Path, problems: &mut Problems) {
    let mut taken = BTreeSet::new();
    for (nth, container) in containers.iter().enumerate() {
        for (port_nth, port) in container.ports.iter().flatten().enumerate() {
            let Some(host_port) = port.host_port.filter(|number| *number != 0) else { continue };
            let claim = format!(
                "{}/{}/{host_port}",
                port.protocol.as_deref().unwrap_or_default(),
                port.host_ip.as_deref().unwrap_or_default()
            );
            let path = path.index(nth).field("ports").index(port_nth).field("hostPort");
            if taken.contains(&claim) {
                problems.duplicate(&path, &claim);
            }
            taken.insert(claim);
        }
    }
}
