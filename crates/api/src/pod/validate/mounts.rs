//! `volumeMounts` and `volumeDevices` of containers, and paths.

use std::collections::{BTreeMap, BTreeSet};

use super::one_of;
use crate::problem::{Path, Problems};
use crate::v1;

/// The names of the pod's volumes, with what they may be used as.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a v1::Volume>;

/// The mounts and devices of one container.
pub(super) fn validate(container: &v1::Container, volumes: &Volumes<'_>, path: &Path, problems: &mut Problems) {
    let mut points = BTreeSet::new();
    let devices: BTreeSet<&str> =
        container.volume_devices.iter().flatten().map(|device| device.device_path.as_str()).collect();
    for (nth, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.field("volumeMounts").index(nth);
        volume_name(&mount.name, volumes, &path, problems);
        if mount.mount_path.is_empty() {
            problems.required(&path.field("mountPath"), "");
        } else {
            if !points.insert(mount.mount_path.as_str()) {
                problems.invalid(&path.field("mountPath"), &mount.mount_path, "must be unique");
            }
            if devices.contains(mount.mount_path.as_str()) {
                problems.invalid(
                    &path.field("mountPath"),
                    &mount.mount_path,
                    "must not already exist in volumeDevices",
                );
            }
        }
        sub_path(mount, &path, problems);
        propagation(mount, container, &path, problems);
        recursive_read_only(mount, &path, problems);
    }
    self::devices(container, volumes, path, problems);
}

fn volume_name(name: &str, volumes: &Volumes<'_>, path: &Path, problems: &mut Problems) {
    if name.is_empty() {
        problems.required(&path.field("name"), "");
    } else if !volumes.contains_key(name) {
        problems.not_found(&path.field("name"), name);
    }
}

fn sub_path(mount: &v1::VolumeMount, path: &Path, problems: &mut Problems) {
    let plain = mount.sub_path.as_deref().unwrap_or_default();
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    if !plain.is_empty() {
        local_path(plain, &path.field("subPath"), problems);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            problems.invalid(&path.field("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        local_path(expression, &path.field("subPathExpr"), problems);
    }
}

fn propagation(mount: &v1::VolumeMount, container: &v1::Container, path: &Path, problems: &mut Problems) {
    let Some(mode) = mount.mount_propagation.as_deref() else { return };
    let path = path.field("mountPropagation");
    const MODES: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    if !MODES.contains(&mode) {
        problems.unsupported(&path, mode, &MODES);
    }
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
    if mode == "Bidirectional" && !privileged {
        problems.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(mount: &v1::VolumeMount, path: &Path, problems: &mut Problems) {
    let Some(mode) = mount.recursive_read_only.as_deref() else { return };
    let path = path.field("recursiveReadOnly");
    if mode == "Disabled" {
        return;
    }
    one_of(mode, &["Disabled", "Enabled", "IfPossible"], &path, problems);
    if mount.read_only != Some(true) {
        problems.forbidden(&path, "may only be specified when readOnly is true");
    }
    if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
        problems.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
    }
}

fn devices(container: &v1::Container, volumes: &Volumes<'_>, path: &Path, problems: &mut Problems) {
    let mounted: BTreeSet<&str> =
        container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (nth, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.field("volumeDevices").index(nth);
        if device.name.is_empty() {
            problems.required(&path.field("name"), "");
        } else {
            match volumes.get(device.name.as_str()) {
                None => problems.not_found(&path.field("name"), &device.name),
                Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => problems
                    .invalid(
                        &path.field("name"),
                        &device.name,
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    ),
                Some(_) => {}
            }
            if !names.insert(device.name.as_str()) {
                problems.invalid(&path.field("name"), &device.name, "must be unique");
            }
        }
        let point = device.device_path.as_str();
        let path = path.field("devicePath");
        if point.is_empty() {
            problems.required(&path, "");
            continue;
        }
        if !paths.insert(point) {
            problems.invalid(&path, point, "must be unique");
        }
        if climbs(point) {
            problems.invalid(&path, point, "can not contain backsteps ('..')");
        }
        if mounted.contains(point) {
            problems.invalid(&path, point, "must not already exist in volumeMounts");
        }
    }
}

/// Whether a path has a step `..`.
pub(super) fn climbs(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}

/// A path inside something: neither absolute nor climbing out.
pub(super) fn local_path(text: &str, path: &Path, problems: &mut Problems) {
    if text.starts_with('/') {
        problems.invalid(path, text, "must be a relative path");
    }
    if climbs(text) {
        problems.invalid(path, text, "must not contain '..'");
    }
}
