//! What a container finds mounted.

use std::path::{Component, Path, PathBuf};

use rubelet_api::v1;
use rubelet_proto::cri;

use super::env::Env;
use super::{ContainerView, RenderError, hosts, paths};
use crate::node::HandlerFacts;
use crate::pod::step::SubPath;
use crate::pod::volumes;

/// The mounts of one container, in the order that the runtime gets.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Mounts {
    pub mounts: Vec<cri::Mount>,
    pub subpaths: Vec<SubPath>,
    pub devices: Vec<cri::Device>,
    /// Whether the pod's `etc-hosts` is among them.
    pub has_etc_hosts: bool,
}

/// Volume mounts in the pod's order, then `/etc/hosts` unless the container mounts that path itself or the pod has no such file,
/// then the termination log.
pub fn mounts(
    view: &ContainerView<'_>,
    container: &v1::Container,
    env: &Env,
    termination_log: &Path,
) -> Result<Mounts, RenderError> {
    let mut all = Mounts::default();
    for device in container.volume_devices.iter().flatten() {
        all.devices.push(volume_device(view, container, device)?);
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        volume_mount(&mut all, view, container, env, (index, mount))?;
    }
    let own_hosts = container.volume_mounts.iter().flatten().any(|m| m.mount_path == hosts::PATH);
    if !own_hosts && hosts::etc_hosts(view.pod, view.node, view.pod_ips).is_some() {
        all.has_etc_hosts = true;
        all.mounts.push(file(hosts::PATH, &paths::etc_hosts(view.pod, view.node), view));
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
        all.mounts.push(file(path, termination_log, view));
    }
    Ok(all)
}

/// A file that we write for the container.
fn file(container_path: &str, host_path: &Path, view: &ContainerView<'_>) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: text(host_path),
        selinux_relabel: view.node.machine.has_selinux,
        ..Default::default()
    }
}

fn volume_mount(
    all: &mut Mounts,
    view: &ContainerView<'_>,
    container: &v1::Container,
    env: &Env,
    (index, mount): (usize, &v1::VolumeMount),
) -> Result<(), RenderError> {
    let volumes = view.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let Some(volume) = volumes.into_iter().find(|v| v.name == mount.name) else {
        return Err(RenderError::config(format!(
            "cannot find volume {:?} to mount into container {:?}",
            mount.name, container.name
        )));
    };
    if volume.image.is_some() {
        all.mounts.push(image_mount(view, container, env, mount)?);
        return Ok(());
    }
    let volume_path = volumes::path(view.pod, view.node, volume, view.inputs);
    let read_only = mount.read_only.unwrap_or(false) || volumes::is_read_only(volume);
    let mut host_path = volume_path.clone();
    let sub_path = sub_path(container, mount, env)?;
    if !sub_path.is_empty() {
        host_path = paths::subpath(view.pod, view.node, &mount.name, &container.name, index);
        all.subpaths.push(SubPath {
            mount: all.mounts.len(),
            volume_path,
            sub_path,
            target: host_path.clone(),
            read_only,
        });
    }
    all.mounts.push(cri::Mount {
        container_path: container_path(&mount.mount_path),
        host_path: text(&host_path),
        readonly: read_only,
        selinux_relabel: view.node.machine.has_selinux && volumes::is_ours(volume),
        propagation: propagation(container, mount)?.into(),
        recursive_read_only: recursive_read_only(view, mount)?,
        ..Default::default()
    });
    Ok(())
}

/// kubelet 1.36: the runtime mounts it, and finds the sub-path in it.
fn image_mount(
    view: &ContainerView<'_>,
    container: &v1::Container,
    env: &Env,
    mount: &v1::VolumeMount,
) -> Result<cri::Mount, RenderError> {
    let Some(found) = view.image.volumes.get(&mount.name) else {
        return Err(RenderError::config(format!("the image of volume {:?} is not known", mount.name)));
    };
    Ok(cri::Mount {
        container_path: container_path(&mount.mount_path),
        readonly: true,
        selinux_relabel: view.node.machine.has_selinux,
        propagation: propagation(container, mount)?.into(),
        image: Some(cri::ImageSpec {
            image: found.image_ref.clone(),
            user_specified_image: found.image.clone(),
            annotations: view.pod.metadata.annotations.clone().unwrap_or_default(),
            ..Default::default()
        }),
        image_sub_path: sub_path(container, mount, env)?,
        ..Default::default()
    })
}

/// kubelet 1.36: what the container may do with it follows from the claim.
fn volume_device(
    view: &ContainerView<'_>,
    container: &v1::Container,
    device: &v1::VolumeDevice,
) -> Result<cri::Device, RenderError> {
    let mut all = view.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let volume = all.find(|v| v.name == device.name && volumes::is_block(view.pod, view.node, v, view.inputs));
    let Some(volume) = volume else {
        return Err(RenderError::config(format!(
            "cannot find volume {:?} to pass into container {:?}",
            device.name, container.name
        )));
    };
    Ok(cri::Device {
        container_path: device.device_path.clone(),
        host_path: text(&volumes::path(view.pod, view.node, volume, view.inputs)),
        permissions: if volumes::is_read_only(volume) { "r" } else { "mrw" }.to_owned(),
    })
}

/// `subPath`, or `subPathExpr` with the container's variables; empty when there is none.
fn sub_path(container: &v1::Container, mount: &v1::VolumeMount, env: &Env) -> Result<String, RenderError> {
    let path = match mount.sub_path_expr.as_deref() {
        None | Some("") => mount.sub_path.clone().unwrap_or_default(),
        Some(text) => env.expand_strictly(text)?,
    };
    if path.starts_with('/') {
        return Err(RenderError::config(format!("error SubPath `{path}` must not be an absolute path")));
    }
    if Path::new(&path).components().any(|part| part == Component::ParentDir) {
        return Err(RenderError::config(format!("unable to provision SubPath `{path}`: must not contain '..'")));
    }
    if path.contains('\0') {
        return Err(RenderError::config(format!(
            "failed to prepare subPath for volumeMount {:?} of container {:?}",
            mount.name, container.name
        )));
    }
    Ok(path)
}

/// A relative path in the container counts from its root.
fn container_path(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(container: &v1::Container, mount: &v1::VolumeMount) -> Result<cri::MountPropagation, RenderError> {
    match mount.mount_propagation.as_deref() {
        None | Some("" | "None") => Ok(cri::MountPropagation::PropagationPrivate),
        Some("HostToContainer") => Ok(cri::MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") => Ok(cri::MountPropagation::PropagationBidirectional),
        Some(other) => Err(RenderError::config(format!(
            "invalid MountPropagation mode: {other:?} (container {:?})",
            container.name
        ))),
    }
}

fn recursive_read_only(view: &ContainerView<'_>, mount: &v1::VolumeMount) -> Result<bool, RenderError> {
    let is_read_only = mount.read_only.unwrap_or(false);
    let is_private = matches!(mount.mount_propagation.as_deref(), None | Some("" | "None"));
    // Standalone, a pod's runtime class names nobody: its handler is the default one.
    let handler = view.node.runtime.handlers.iter().find(|h: &&HandlerFacts| h.name.is_empty());
    let is_supported = handler.is_some_and(|h| h.recursive_read_only_mounts);
    let refused = |why: &str| {
        RenderError::config(format!("volume {:?} requested recursive read-only mode, but {why}", mount.name))
    };
    match mount.recursive_read_only.as_deref() {
        None | Some("" | "Disabled") => Ok(false),
        Some("IfPossible") => Ok(is_read_only && is_private && is_supported),
        Some("Enabled") if !is_read_only => Err(refused("it is not read-only")),
        Some("Enabled") if !is_private => Err(refused("it is not compatible with its mount propagation")),
        Some("Enabled") if !is_supported => Err(refused("it is not supported by the runtime")),
        Some("Enabled") => Ok(true),
        Some(other) => Err(RenderError::config(format!("unknown recursive read-only mode {other:?}"))),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The file that takes a container's last words.
pub(super) fn termination_log(view: &ContainerView<'_>) -> PathBuf {
    let seed =
        format!("{} {} {} {}", super::uid(view.pod), view.container, view.restart_count, view.now.wall.as_nanosecond());
    let name = format!("{:08x}", super::hash::fnv_1a_32(seed.as_bytes()));
    paths::container_dir(view.pod, view.node, view.container).join(name)
}
