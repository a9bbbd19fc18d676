//! Kernel settings that a pod may make for itself.

use rubelet_api::v1;

use super::Verdict;
use crate::node::NodeFacts;

/// Namespace that a setting belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ipc,
    Net,
}

/// Settings that touch nobody else, with the first kernel (major, minor) that keeps them per namespace.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// Beginnings of names that are kept per namespace.
const NAMESPACED: [(&str, Kind); 5] = [
    ("kernel.sem", Kind::Ipc),
    ("kernel.shm", Kind::Ipc),
    ("kernel.msg", Kind::Ipc),
    ("fs.mqueue.", Kind::Ipc),
    ("net.", Kind::Net),
];

/// Refuses settings that are neither safe nor allowed by `allowedUnsafeSysctls`, or that would change the host's own.
pub(super) fn check(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    let sysctls = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let shares = |kind| match kind {
        Kind::Ipc => spec.host_ipc.unwrap_or(false),
        Kind::Net => spec.host_network.unwrap_or(false),
    };
    sysctls.iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let why = match namespace(&name) {
            Some(kind) if is_allowed(&name, node) => {
                let of_host = match kind {
                    Kind::Ipc => "ipc",
                    Kind::Net => "net",
                };
                shares(kind).then(|| format!("{name:?} not allowed with host {of_host} enabled"))?
            }
            _ => format!("{name:?} not allowlisted"),
        };
        Some(Verdict::rejected("SysctlForbidden", format!("forbidden sysctl: {why}")))
    })
}

fn namespace(name: &str) -> Option<Kind> {
    NAMESPACED.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind)
}

fn is_allowed(name: &str, node: &NodeFacts) -> bool {
    SAFE.iter().any(|(safe, since)| *safe == name && node.machine.kernel >= *since)
        || node.settings.allowed_unsafe_sysctls.iter().any(|pattern| {
            let pattern = pattern.replace('/', ".");
            match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == name,
            }
        })
}
