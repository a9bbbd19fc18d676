//! The steps that go to the disk: a pod's directories, volumes, files and logs.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_core::pod::fact::{Done, VolumeNews};
use rubelet_core::pod::step::{CreateContainer, LogLink, VolumeKind, VolumePlan};
use rubelet_core::pod::{Outcome, StepFailure};
use rubelet_host::{chain, paths};
use rubelet_proto::cri;

use super::{PodRef, failed};
use crate::hands::Hands;

/// Kubelet 1.36: pod directories are 0750, log directories 0755.
const POD_DIR: u32 = 0o750;
const LOG_DIR: u32 = 0o755;

/// Makes `pods/<uid>` with `volumes` and `plugins`.
pub(super) fn prepare(hands: &Hands, pod: &PodRef) -> Result<(), String> {
    let dir = hands.pod_dir(&pod.uid);
    for path in [dir.clone(), dir.join("volumes"), dir.join("plugins")] {
        make_dir(&path, POD_DIR)?;
    }
    Ok(())
}

pub(super) async fn mount(hands: &Arc<Hands>, pod: &PodRef, volume: VolumePlan) -> Outcome {
    if let VolumeKind::Csi(csi) = &volume.kind {
        return super::drivers::mount(hands, pod, &volume, csi).await;
    }
    let mut mapped = None;
    if let VolumeKind::Device { map, .. } = &volume.kind {
        mapped = Some((map.global.clone(), volume.path.clone()));
    }
    let (dir, key) = (hands.pod_dir(&pod.uid), pod.key.clone());
    match rubelet_host::task::blocking(move || rubelet_volumes::mount(&volume, &dir)).await {
        Ok(Ok(())) if mapped.is_some() => Ok(Done::Volume(VolumeNews { mapped, growth: None })),
        Ok(Ok(())) => Ok(Done::Mounted),
        Ok(Err(e)) => Err(failed(e.reason(), chain(&e))),
        Err(e) => Err(failed("FailedMount", format!("mounting a volume of pod {key}: {e}"))),
    }
}

/// Volumes of drivers are the drivers' to take down, and first: without them the rest would be torn away.
pub(super) async fn unmount_csi(hands: &Hands, pod: &PodRef) -> Result<(), String> {
    let done = rubelet_volumes::csi::unmount_all(&hands.root_dir, pod.uid.as_str(), &hands.drivers).await;
    done.map_err(|e| chain(&e))
}

pub(super) fn unmount(hands: &Hands, pod: &PodRef) -> Result<(), String> {
    rubelet_volumes::unmap_all(&hands.root_dir, pod.uid.as_str())?;
    rubelet_volumes::unmount_all(&hands.pod_dir(&pod.uid)).map_err(|e| chain(&e))
}

/// Removes the pod's directory, its log directories and the links to its logs. Its volumes are unmounted before.
pub(super) fn remove(hands: &Hands, pod: &PodRef) -> Result<(), String> {
    rubelet_volumes::remove_pod_dir(&hands.pod_dir(&pod.uid)).map_err(|e| chain(&e))?;
    hands.users.release(&pod.uid);
    // Of a pod that only the disk tells of, the UID is all that is known.
    let own = format!("_{}", pod.uid);
    for entry in fs::read_dir(&hands.pod_logs_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&own) {
            paths::remove_tree(&entry.path()).map_err(|e| chain(&e))?;
            remove_links_into(&hands.container_logs_dir, &entry.path());
        }
    }
    Ok(())
}

/// Whether the pod ran before, as far as its logs tell. Cheap.
pub(crate) fn has_logs(hands: &Hands, pod: &PodRef) -> bool {
    fs::symlink_metadata(pod_log_dir(hands, pod)).is_ok()
}

/// For each container that has logs, one more than the number of the last one: what its next restart count must be.
pub(crate) fn log_counts(hands: &Hands, pod: &PodRef) -> Vec<(ContainerName, u32)> {
    let mut counts = Vec::new();
    for container in fs::read_dir(pod_log_dir(hands, pod)).into_iter().flatten().flatten() {
        let logs = fs::read_dir(container.path()).into_iter().flatten().flatten();
        // Rotated pieces are `<n>.log.<time>`, maybe `.gz`.
        let number = |log: fs::DirEntry| log.file_name().to_str()?.split_once(".log")?.0.parse::<u32>().ok();
        if let (Some(last), Some(name)) = (logs.filter_map(number).max(), container.file_name().to_str()) {
            counts.push((ContainerName::new(name), last.saturating_add(1)));
        }
    }
    counts.sort();
    counts
}

/// Whether what [`prepare`] made is there.
pub(super) fn are_there(hands: &Hands, pod: &PodRef) -> bool {
    let dir = hands.pod_dir(&pod.uid);
    // Volumes in memory, which cannot be removed, keep a directory that somebody has emptied otherwise.
    dir.join("volumes").is_dir() && dir.join("plugins").is_dir()
}

/// Writes a container's files and binds its subpaths; returns the configuration to create it from.
pub(super) fn prepare_container(
    hands: &Hands,
    pod: &PodRef,
    create: CreateContainer,
) -> Result<cri::ContainerConfig, StepFailure> {
    let config_error = |message: String| failed("CreateContainerConfigError", message);
    let dir = hands.pod_dir(&pod.uid);
    let mut config = create.config;
    if let Some(content) = &create.etc_hosts {
        let path = dir.join("etc-hosts");
        write_file(&path, content.as_bytes(), 0o644).map_err(config_error)?;
    }
    let containers = dir.join("containers");
    make_dir(&containers, POD_DIR).map_err(config_error)?;
    make_dir(&containers.join(create.container.as_str()), POD_DIR).map_err(config_error)?;
    write_file(&create.termination_log, b"", 0o666).map_err(config_error)?;
    for subpath in &create.subpaths {
        rubelet_volumes::subpath(subpath).map_err(|e| config_error(chain(&e)))?;
        if let Some(mount) = config.mounts.get_mut(subpath.mount) {
            mount.host_path = subpath.target.display().to_string();
        }
    }
    for env in &create.env_files {
        let found = rubelet_volumes::env_file::read(&env.volume_path, &env.path, &env.key);
        match found {
            Ok(Some(value)) => {
                config.envs.push(cri::KeyValue { key: env.variable.clone(), value: value.into() });
            }
            Ok(None) if env.is_optional => {}
            Ok(None) => {
                return Err(config_error(format!(
                    "environment variable key {:?} not found in file {:?}",
                    env.key, env.path
                )));
            }
            Err(_) if env.is_optional => {}
            Err(e) => return Err(config_error(chain(&e))),
        }
    }
    let logs = pod_log_dir(hands, pod).join(create.container.as_str());
    make_dir(&logs, LOG_DIR).map_err(|e| failed("CreateContainerError", e))?;
    Ok(config)
}

fn pod_log_dir(hands: &Hands, pod: &PodRef) -> PathBuf {
    hands.pod_logs_dir.join(format!("{}_{}_{}", pod.key.namespace, pod.key.name, pod.uid))
}

/// Makes the pod's log directory, the runtime wants it there.
pub(super) fn make_log_dir(dir: &Path) -> Result<(), String> {
    make_dir(dir, LOG_DIR)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), String> {
    paths::ensure_dir(path, mode).map_err(|e| chain(&e))
}

/// Writes a file of exactly this mode, whatever the umask; a link in its place is not followed.
fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), String> {
    let write = || -> io::Result<()> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).custom_flags(flags).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        io::Write::write_all(&mut file, content)
    };
    write().map_err(|e| format!("write {}: {e}", path.display()))
}

/// Makes the link in `/var/log/containers`, replacing an old one.
pub(super) fn link_log(log: &LogLink) -> io::Result<()> {
    if let Some(parent) = log.link.parent() {
        DirBuilder::new().recursive(true).mode(LOG_DIR).create(parent)?;
    }
    match std::os::unix::fs::symlink(&log.target, &log.link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&log.link)?;
            std::os::unix::fs::symlink(&log.target, &log.link)
        }
        other => other,
    }
}

/// Removes a container's log with its rotated pieces, and the link to it.
pub(super) fn remove_logs(hands: &Hands, log_path: &str, id: &ContainerId) {
    let path = Path::new(log_path);
    if !path.starts_with(&hands.pod_logs_dir) {
        return;
    }
    let (Some(dir), Some(file)) = (path.parent(), path.file_name().and_then(|f| f.to_str())) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_piece = name.to_str().is_some_and(|n| n == file || n.starts_with(&format!("{file}.")));
        if is_piece && let Err(e) = fs::remove_file(entry.path()) {
            tracing::warn!(container = %id, path = %entry.path().display(), err = %e, "removing an old log failed, it stays");
        }
    }
    remove_links_into(&hands.container_logs_dir, path);
}

/// Removes the links of `dir` that point to `target` or below it.
fn remove_links_into(dir: &Path, target: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let points_there = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(target));
        if points_there && let Err(e) = fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), err = %e, "removing a link to an old log failed, it stays");
        }
    }
}
