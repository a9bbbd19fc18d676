//! `volumeMounts` of a container status.

use rubelet_api::v1;

use crate::node::NodeFacts;

/// One entry for each mount that the specification names. kubelet 1.36: read-only ones say whether they are so recursively.
pub(super) fn of(mounts: &[v1::VolumeMount], handler: &str, node: &NodeFacts) -> Option<Vec<v1::VolumeMountStatus>> {
    let one = |mount: &v1::VolumeMount| {
        let is_read_only = mount.read_only == Some(true);
        v1::VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: is_read_only.then_some(true),
            recursive_read_only: is_read_only.then(|| recursive(mount, handler, node).to_owned()),
            volume_status: None,
        }
    };
    super::listed(mounts.iter().map(one).collect())
}

fn recursive(mount: &v1::VolumeMount, handler: &str, node: &NodeFacts) -> &'static str {
    let is_private = matches!(mount.mount_propagation.as_deref(), None | Some("" | "None"));
    let is_supported = node.runtime.handlers.iter().any(|h| h.name == handler && h.recursive_read_only_mounts);
    let is_wanted = matches!(mount.recursive_read_only.as_deref(), Some("IfPossible" | "Enabled"));
    if is_wanted && is_private && is_supported { "Enabled" } else { "Disabled" }
}
