//! Which volumes a pod has, where they are and what must be done to mount them.

use std::net::IpAddr;
use std::path::PathBuf;

use rubelet_api::v1;

use super::step::{FilesPlugin, VolumeFile, VolumeKind, VolumePlan};
use crate::node::NodeFacts;
use crate::render::{RenderError, downward, paths};
use crate::resources::amount::Amount;
use crate::resources::hugepages;
use crate::resources::sum::{Amounts, Side, Sum, amounts, get};

/// Mode of written files when the pod names none.
const DEFAULT_MODE: u32 = 0o644;

/// All volumes of the pod in its order. `pod_ips` are the pod's addresses as far as they are known.
///
/// A kind that this build does not mount is in the list too, as [`VolumeKind::Refused`].
pub fn plan(pod: &v1::Pod, node: &NodeFacts, pod_ips: &[IpAddr]) -> Vec<VolumePlan> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let context = spec.security_context.as_ref();
    let on_root_mismatch = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
    let one = |volume: &v1::Volume| {
        let kind = kind(pod, node, pod_ips, volume).unwrap_or_else(|error| refused(error.message));
        let fs_group = match kind {
            VolumeKind::EmptyDir
            | VolumeKind::MemoryDir { .. }
            | VolumeKind::HugePages { .. }
            | VolumeKind::Files { .. } => context.and_then(|c| c.fs_group),
            VolumeKind::HostPath { .. } | VolumeKind::Refused { .. } => None,
        };
        VolumePlan {
            name: volume.name.clone(),
            path: path(pod, node, volume),
            kind,
            fs_group,
            fs_group_on_root_mismatch: fs_group.is_some() && on_root_mismatch,
        }
    };
    spec.volumes.iter().flatten().map(one).collect()
}

/// Where the volume is on the host: a hostPath where it says, all others below the pod's directory.
pub fn path(pod: &v1::Pod, node: &NodeFacts, volume: &v1::Volume) -> PathBuf {
    match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => paths::volume_dir(pod, node, plugin(volume), &volume.name),
    }
}

/// Whether containers may only read it, whatever their mount says: what we write ourselves.
pub fn is_read_only(volume: &v1::Volume) -> bool {
    volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.image.is_some()
}

/// Whether the volume lives and dies with the pod, so that its labels are ours to set.
pub fn is_ours(volume: &v1::Volume) -> bool {
    volume.empty_dir.is_some() || (is_read_only(volume) && volume.image.is_none()) || plugin(volume) == EMPTY_DIR
}

const EMPTY_DIR: &str = "kubernetes.io/empty-dir";

/// The plugin that names the volume's directory; a volume without a source is an emptyDir.
fn plugin(volume: &v1::Volume) -> &'static str {
    match unbuilt(volume) {
        Some((_, plugin)) => plugin,
        None if volume.downward_api.is_some() => "kubernetes.io/downward-api",
        None if volume.projected.is_some() => "kubernetes.io/projected",
        None if volume.host_path.is_some() => "kubernetes.io/host-path",
        None => EMPTY_DIR,
    }
}

fn kind(pod: &v1::Pod, node: &NodeFacts, pod_ips: &[IpAddr], volume: &v1::Volume) -> Result<VolumeKind, RenderError> {
    if let Some(source) = &volume.host_path {
        Ok(VolumeKind::HostPath { type_: source.type_.clone().unwrap_or_default() })
    } else if let Some(source) = &volume.downward_api {
        let files =
            downward_files(pod, node, pod_ips, source.items.as_deref(), mode(source.default_mode, DEFAULT_MODE))?;
        let default_mode = mode(source.default_mode, DEFAULT_MODE);
        Ok(VolumeKind::Files { plugin: FilesPlugin::DownwardApi, files, default_mode })
    } else if let Some(source) = &volume.projected {
        projected(pod, node, pod_ips, source)
    } else if let Some((what, _)) = unbuilt(volume) {
        Ok(refused(what))
    } else {
        empty_dir(pod, node, volume.empty_dir.as_ref())
    }
}

fn empty_dir(
    pod: &v1::Pod,
    node: &NodeFacts,
    source: Option<&v1::EmptyDirVolumeSource>,
) -> Result<VolumeKind, RenderError> {
    match source.and_then(|s| s.medium.as_deref()).unwrap_or_default() {
        "" => Ok(VolumeKind::EmptyDir),
        "Memory" => {
            let size_limit = source.and_then(|s| s.size_limit.as_ref()).map(Amount::of).unwrap_or_default();
            let bytes = memory_size(pod, node, size_limit);
            Ok(VolumeKind::MemoryDir { size_bytes: (bytes > 0).then_some(bytes) })
        }
        medium @ "HugePages" => huge_pages(pod, medium, None),
        medium => {
            match medium.strip_prefix("HugePages-").and_then(|size| hugepages::page_size(&format!("hugepages-{size}")))
            {
                Some(size) => huge_pages(pod, medium, Some(size)),
                None => Ok(refused(format!("unknown storage medium {medium:?}"))),
            }
        }
    }
}

/// The least of: what the node can give, what the pod may use, what the volume asks for. Nothing known: 0.
fn memory_size(pod: &v1::Pod, node: &NodeFacts, size_limit: Amount) -> i64 {
    let pod_limit = get(&Sum::limits(node.settings.gates.pod_level_resources).of(pod), "memory");
    let mut bytes = node.machine.allocatable_memory_bytes;
    for bound in [pod_limit.units(), size_limit.units()] {
        if bound > 0 && (bound <= bytes || bytes <= 0) {
            bytes = bound;
        }
    }
    bytes
}

/// A hugetlbfs needs one page size that the pod asks for.
fn huge_pages(pod: &v1::Pod, medium: &str, wanted: Option<u64>) -> Result<VolumeKind, RenderError> {
    let Some(spec) = &pod.spec else { return Ok(VolumeKind::EmptyDir) };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| c.resources.as_ref());
    let asked: Vec<Amounts> = containers.chain([spec.resources.as_ref()]).map(|r| amounts(r, Side::Requests)).collect();
    let mut sizes: Vec<u64> =
        asked.iter().flat_map(|a| a.keys()).filter_map(|name| hugepages::page_size(name)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let error = |message: String| Err(RenderError { reason: "FailedMount", message });
    match (wanted, sizes.as_slice()) {
        (Some(size), sizes) if sizes.contains(&size) => Ok(VolumeKind::HugePages { page_size_bytes: size }),
        (Some(_), _) => error(format!("medium {medium:?} is set, but the pod requests no huge pages of that size")),
        (None, [size]) => Ok(VolumeKind::HugePages { page_size_bytes: *size }),
        (None, []) => error(format!("medium {medium:?} is set, but the pod requests no huge pages")),
        (None, _) => error(format!("medium {medium:?} is set, but the pod requests huge pages of more than one size")),
    }
}

fn projected(
    pod: &v1::Pod,
    node: &NodeFacts,
    pod_ips: &[IpAddr],
    source: &v1::ProjectedVolumeSource,
) -> Result<VolumeKind, RenderError> {
    let default_mode = mode(source.default_mode, DEFAULT_MODE);
    let mut files: Vec<VolumeFile> = Vec::new();
    for projection in source.sources.iter().flatten() {
        let Some(downward) = &projection.downward_api else {
            return Ok(refused(unbuilt_projection(projection)));
        };
        for file in downward_files(pod, node, pod_ips, downward.items.as_deref(), default_mode)? {
            files.retain(|f| f.path != file.path);
            files.push(file);
        }
    }
    Ok(VolumeKind::Files { plugin: FilesPlugin::Projected, files, default_mode })
}

fn unbuilt_projection(projection: &v1::VolumeProjection) -> String {
    let kind = if projection.config_map.is_some() {
        "configMap"
    } else if projection.secret.is_some() {
        "secret"
    } else if projection.service_account_token.is_some() {
        "serviceAccountToken"
    } else if projection.cluster_trust_bundle.is_some() {
        "clusterTrustBundle"
    } else if projection.pod_certificate.is_some() {
        "podCertificate"
    } else {
        return "a source of the projected volume is empty".to_owned();
    };
    format!("the {kind} source of a projected volume needs an API server, no kubeClient defined")
}

fn downward_files(
    pod: &v1::Pod,
    node: &NodeFacts,
    pod_ips: &[IpAddr],
    items: Option<&[v1::DownwardAPIVolumeFile]>,
    default_mode: u32,
) -> Result<Vec<VolumeFile>, RenderError> {
    let one = |item: &v1::DownwardAPIVolumeFile| {
        let content = if let Some(field) = &item.field_ref {
            downward::field(pod, node, pod_ips, &field.field_path)?
        } else if let Some(resource) = &item.resource_field_ref {
            downward::resource(pod, node, None, resource)?
        } else {
            String::new()
        };
        Ok(VolumeFile { path: clean(&item.path), content: content.into_bytes(), mode: mode(item.mode, default_mode) })
    };
    items.unwrap_or_default().iter().map(one).collect()
}

/// Without doubled slashes and `.` parts. Validation refused `..` and absolute paths before; a path with them stays as it is, for
/// the writer to refuse.
fn clean(path: &str) -> String {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return path.to_owned();
    }
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(default)
}

/// The hand says of which volume.
fn refused(why: impl Into<String>) -> VolumeKind {
    VolumeKind::Refused { message: why.into() }
}

/// Kinds that are known and not built: why, and the plugin that upstream has (had) for them.
fn unbuilt(volume: &v1::Volume) -> Option<(&'static str, &'static str)> {
    const GIT: &str = "git-repo volume plugin has been disabled; if necessary, it may be re-enabled by enabling the feature-gate `GitRepoVolumeDriver`";
    const API: &str = "this kind of volume needs an API server, no kubeClient defined";
    const KIND: &str = "this kind of volume is not supported by rubelet";
    const GONE: &str = "no volume plugin matched";
    let v = volume;
    [
        (v.config_map.is_some(), API, "kubernetes.io/configmap"),
        (v.secret.is_some(), API, "kubernetes.io/secret"),
        (v.persistent_volume_claim.is_some(), API, "kubernetes.io/persistent-claim"),
        (v.ephemeral.is_some(), API, "kubernetes.io/ephemeral"),
        (v.csi.is_some(), API, "kubernetes.io/csi"),
        (v.git_repo.is_some(), GIT, "kubernetes.io/git-repo"),
        (v.image.is_some(), "image volumes are not supported by rubelet yet", "kubernetes.io/image"),
        (v.nfs.is_some(), KIND, "kubernetes.io/nfs"),
        (v.iscsi.is_some(), KIND, "kubernetes.io/iscsi"),
        (v.fc.is_some(), KIND, "kubernetes.io/fc"),
        (v.flex_volume.is_some(), KIND, "kubernetes.io/flexvolume"),
        (v.aws_elastic_block_store.is_some(), GONE, "kubernetes.io/aws-ebs"),
        (v.azure_disk.is_some(), GONE, "kubernetes.io/azure-disk"),
        (v.azure_file.is_some(), GONE, "kubernetes.io/azure-file"),
        (v.cephfs.is_some(), GONE, "kubernetes.io/cephfs"),
        (v.cinder.is_some(), GONE, "kubernetes.io/cinder"),
        (v.flocker.is_some(), GONE, "kubernetes.io/flocker"),
        (v.gce_persistent_disk.is_some(), GONE, "kubernetes.io/gce-pd"),
        (v.glusterfs.is_some(), GONE, "kubernetes.io/glusterfs"),
        (v.photon_persistent_disk.is_some(), GONE, "kubernetes.io/photon-pd"),
        (v.portworx_volume.is_some(), GONE, "kubernetes.io/portworx-volume"),
        (v.quobyte.is_some(), GONE, "kubernetes.io/quobyte"),
        (v.rbd.is_some(), GONE, "kubernetes.io/rbd"),
        (v.scale_io.is_some(), GONE, "kubernetes.io/scaleio"),
        (v.storageos.is_some(), GONE, "kubernetes.io/storageos"),
        (v.vsphere_volume.is_some(), GONE, "kubernetes.io/vsphere-volume"),
    ]
    .into_iter()
    .find_map(|(is_it, why, plugin)| is_it.then_some((why, plugin)))
}

#[cfg(test)]
mod tests;
