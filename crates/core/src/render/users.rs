//! Pods with users of their own: which range of the host's users stands for theirs.

use rubelet_api::v1;
use rubelet_proto::cri;

/// A part of the host's users and groups, of which the first is the pod's root. kubelet 1.36: the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRange {
    pub first: u32,
    pub length: u32,
}

/// Whether the pod is not to have the host's users.
pub fn has_own_users(pod: &v1::Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_users) == Some(false)
}

/// Whether a sandbox is to have users of its own: its range is to be filled in.
pub fn wants_range(config: &cri::PodSandboxConfig) -> bool {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    let options = security.and_then(|s| s.namespace_options.as_ref());
    options.and_then(|o| o.userns_options.as_ref()).is_some_and(|users| users.mode() == cri::NamespaceMode::Pod)
}

/// Gives a sandbox its range.
pub fn fill_sandbox(config: &mut cri::PodSandboxConfig, range: UserRange) {
    let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut());
    if let Some(options) = security.and_then(|s| s.namespace_options.as_mut()) {
        options.userns_options = Some(users(range));
    }
}

/// Gives a container its pod's range, and each of its mounts. kubelet 1.36: the same.
pub fn fill_container(config: &mut cri::ContainerConfig, range: UserRange) {
    let filled = users(range);
    for mount in &mut config.mounts {
        (mount.uid_mappings, mount.gid_mappings) = (filled.uids.clone(), filled.gids.clone());
    }
    let security = config.linux.as_mut().and_then(|l| l.security_context.as_mut());
    if let Some(options) = security.and_then(|s| s.namespace_options.as_mut()) {
        options.userns_options = Some(filled);
    }
}

fn users(range: UserRange) -> cri::UserNamespace {
    let map = cri::IdMapping { host_id: range.first, container_id: 0, length: range.length };
    cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_filled_in_everywhere() {
        let options = cri::NamespaceOption {
            userns_options: Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), ..Default::default() }),
            ..Default::default()
        };
        let range = UserRange { first: 131_072, length: 65_536 };
        let security =
            cri::LinuxSandboxSecurityContext { namespace_options: Some(options.clone()), ..Default::default() };
        let linux = cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        let mut pod = cri::PodSandboxConfig { linux: Some(linux), ..Default::default() };
        assert!(wants_range(&pod) && !wants_range(&cri::PodSandboxConfig::default()));
        fill_sandbox(&mut pod, range);
        let shown = pod.linux.unwrap().security_context.unwrap().namespace_options.unwrap().userns_options.unwrap();
        assert_eq!((shown.uids[0].host_id, shown.gids[0].length, shown.uids.len()), (131_072, 65_536, 1));
        let security = cri::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
        let mounts = vec![cri::Mount::default()];
        let mut container = cri::ContainerConfig { linux: Some(linux), mounts, ..Default::default() };
        fill_container(&mut container, range);
        assert_eq!(container.mounts[0].gid_mappings[0].host_id, 131_072);
    }
}
