//! Which volumes a pod has, where they are and what must be done to mount them.

use std::net::IpAddr;
use std::path::PathBuf;

use rubelet_api::v1;

use self::claim::Persistent;
use super::needs::{self, Inputs};
use super::step::{DeviceMap, VolumeKind, VolumePlan};
use crate::node::NodeFacts;
use crate::render::users::has_own_users;
use crate::render::{RenderError, paths};
use crate::resources::amount::Amount;
use crate::resources::hugepages;
use crate::resources::sum::{Amounts, Side, Sum, amounts, get};

mod claim;
pub(super) mod csi;
pub mod expansion;
mod files;

pub use csi::staging as csi_staging;
pub(super) use csi::{Attaching, attaching};

/// Mode of written files when the pod names none.
const DEFAULT_MODE: u32 = 0o644;

/// What rendering a volume depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub pod: &'a v1::Pod,
    pub node: &'a NodeFacts,
    /// The pod's addresses as far as they are known.
    pub pod_ips: &'a [IpAddr],
    /// What was fetched of the objects that the pod refers to.
    pub inputs: &'a Inputs,
}

/// One volume of the pod. A kind that this build does not mount is [`VolumeKind::Refused`], and so is one whose objects are
/// missing.
pub fn plan(view: &View<'_>, volume: &v1::Volume) -> VolumePlan {
    let context = view.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let on_root_mismatch = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
    let kind = kind(view, volume).unwrap_or_else(|error| refused(error.message));
    let fs_group = match &kind {
        VolumeKind::Csi(volume) if volume.device.is_some() || !csi::takes_group(view, volume) => None,
        VolumeKind::EmptyDir
        | VolumeKind::CountedDir
        | VolumeKind::MemoryDir { .. }
        | VolumeKind::HugePages { .. }
        | VolumeKind::Local { is_read_only: false, .. }
        | VolumeKind::Csi(_)
        | VolumeKind::Files { .. } => context.and_then(|c| c.fs_group),
        VolumeKind::HostPath { .. }
        | VolumeKind::Local { .. }
        | VolumeKind::Nfs { .. }
        | VolumeKind::Image
        | VolumeKind::Device { .. }
        | VolumeKind::Unprocessed { .. }
        | VolumeKind::Refused { .. } => None,
    };
    VolumePlan {
        volume: volume.name.clone(),
        name: shown_name(view, volume),
        path: path(view.pod, view.node, volume, view.inputs),
        kind,
        fs_group,
        fs_group_on_root_mismatch: fs_group.is_some() && on_root_mismatch,
    }
}

/// Whether all that the volume refers to is known, so that it can be planned.
pub(super) fn is_ready(view: &View<'_>, volume: &v1::Volume) -> bool {
    !view.inputs.is_open() || view.inputs.has_all(&needs::volume_needs(view.pod, volume, view.node, view.inputs))
}

/// Whether what it holds is written here, and again when it changes.
pub(super) fn is_written(volume: &v1::Volume) -> bool {
    volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
}

/// kubelet 1.36: with the next sync of the pod, 60 to 90 s later.
pub(super) const REPUBLISH_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Whether its driver wants to hear of it now and then, although it is published.
pub(super) fn is_republished(view: &View<'_>, volume: &v1::Volume) -> bool {
    csi::driver_name(view, volume)
        .is_some_and(|name| view.inputs.csi_driver(name).is_ok_and(|driver| driver.is_republished))
}

/// The bytes to which the volume's driver has yet to bring it.
pub(super) fn growth(view: &View<'_>, volume: &v1::Volume) -> Option<i64> {
    let claim = claim::found(view, volume)?.ok()?;
    let Persistent::Csi(_) = claim::persistent(&claim.volume) else { return None };
    expansion::wanted(claim).map(|(_, bytes)| bytes)
}

/// Whether containers get it as a device.
pub fn is_block(pod: &v1::Pod, node: &NodeFacts, volume: &v1::Volume, inputs: &Inputs) -> bool {
    let view = View { pod, node, pod_ips: &[], inputs };
    claim::found(&view, volume).and_then(Result::ok).is_some_and(|c| claim::is_block(&c.volume))
}

/// Where the volume is on the host: a hostPath where it says, all others below the pod's directory.
pub fn path(pod: &v1::Pod, node: &NodeFacts, volume: &v1::Volume, inputs: &Inputs) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    if volume.csi.is_some() {
        return paths::volume_dir(pod, node, csi::PLUGIN, &volume.name).join("mount");
    }
    let view = View { pod, node, pod_ips: &[], inputs };
    match claim::found(&view, volume) {
        Some(Ok(claim)) => {
            let name = claim.volume.metadata.name.as_deref().unwrap_or_default();
            match claim::persistent(&claim.volume) {
                Persistent::Csi(_) if claim::is_block(&claim.volume) => {
                    paths::volume_device(pod, node, csi::PLUGIN, name)
                }
                Persistent::Local(_) if claim::is_block(&claim.volume) => paths::volume_device(pod, node, LOCAL, name),
                Persistent::HostPath(source) => PathBuf::from(&source.path),
                Persistent::Local(_) => paths::volume_dir(pod, node, LOCAL, name),
                Persistent::Csi(_) => paths::volume_dir(pod, node, csi::PLUGIN, name).join("mount"),
                Persistent::Nfs(_) => paths::volume_dir(pod, node, NFS, name),
                Persistent::Other { plugin, .. } => paths::volume_dir(pod, node, plugin, name),
            }
        }
        Some(Err(_)) | None => paths::volume_dir(pod, node, plugin(volume), &volume.name),
    }
}

/// The PersistentVolume's name, or the volume's own.
fn shown_name(view: &View<'_>, volume: &v1::Volume) -> String {
    let persistent = claim::found(view, volume).and_then(Result::ok).and_then(|c| c.volume.metadata.name.clone());
    persistent.unwrap_or_else(|| volume.name.clone())
}

/// Whether containers may only read it, whatever their mount says: what we write ourselves, images, claims that say so.
pub fn is_read_only(volume: &v1::Volume) -> bool {
    is_written(volume)
        || volume.image.is_some()
        || volume.csi.as_ref().is_some_and(|c| c.read_only == Some(true))
        || volume.nfs.as_ref().is_some_and(|n| n.read_only == Some(true))
        || volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true))
}

/// Whether the volume lives and dies with the pod, so that its labels are ours to set.
pub fn is_ours(volume: &v1::Volume) -> bool {
    volume.empty_dir.is_some() || is_written(volume) || plugin(volume) == EMPTY_DIR
}

const EMPTY_DIR: &str = "kubernetes.io/empty-dir";
const NFS: &str = "kubernetes.io/nfs";
const LOCAL: &str = "kubernetes.io/local-volume";

/// kubelet 1.36: where the devices of local volumes are bound.
fn local_device(view: &View<'_>, volume: &str) -> DeviceMap {
    let plugin = view.node.root_dir.join("plugins").join(LOCAL.replace('/', "~"));
    device_map(view.pod, plugin.join("volumeDevices").join(volume))
}

fn device_map(pod: &v1::Pod, global: PathBuf) -> DeviceMap {
    DeviceMap { global, pod: pod.metadata.uid.clone().unwrap_or_default() }
}

impl VolumePlan {
    /// The same for a volume that is published already.
    #[must_use]
    pub fn again(mut self) -> Self {
        if let VolumeKind::Csi(volume) = &mut self.kind {
            volume.is_again = true;
        }
        self
    }
}

/// The plugin that names the volume's directory; a volume without a source is an emptyDir.
fn plugin(volume: &v1::Volume) -> &'static str {
    match unbuilt(volume) {
        Some((_, plugin)) => plugin,
        None if volume.config_map.is_some() => "kubernetes.io/configmap",
        None if volume.secret.is_some() => "kubernetes.io/secret",
        None if volume.downward_api.is_some() => "kubernetes.io/downward-api",
        None if volume.projected.is_some() => "kubernetes.io/projected",
        None if volume.host_path.is_some() => "kubernetes.io/host-path",
        None if volume.csi.is_some() => csi::PLUGIN,
        None if volume.nfs.is_some() => NFS,
        None if volume.image.is_some() => "kubernetes.io/image",
        None if volume.persistent_volume_claim.is_some() => "kubernetes.io/persistent-claim",
        None if volume.ephemeral.is_some() => "kubernetes.io/ephemeral",
        None => EMPTY_DIR,
    }
}

fn kind(view: &View<'_>, volume: &v1::Volume) -> Result<VolumeKind, RenderError> {
    if let Some(source) = &volume.host_path {
        Ok(VolumeKind::HostPath { type_: source.type_.clone().unwrap_or_default() })
    } else if let Some(source) = &volume.config_map {
        files::config_map(view, source)
    } else if let Some(source) = &volume.secret {
        files::secret(view, source)
    } else if let Some(source) = &volume.downward_api {
        files::downward_api(view, source)
    } else if let Some(source) = &volume.projected {
        files::projected(view, &volume.name, source)
    } else if volume.image.is_some() {
        Ok(VolumeKind::Image)
    } else if let Some(source) = &volume.nfs {
        Ok(nfs(source, &[], false))
    } else if let Some(source) = &volume.csi {
        csi::inline(view, volume, source)
    } else if let Some(found) = claim::found(view, volume) {
        claim::kind(view, volume, found)
    } else if let Some((what, _)) = unbuilt(volume) {
        Ok(refused(what))
    } else {
        empty_dir(view.pod, view.node, volume.empty_dir.as_ref())
    }
}

/// kubelet 1.36: as `mount -t nfs` wants it.
fn nfs(source: &v1::NFSVolumeSource, options: &[String], is_read_only: bool) -> VolumeKind {
    let server = &source.server;
    let is_bare_ipv6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    let server = if is_bare_ipv6 { format!("[{server}]") } else { server.clone() };
    let ro = (is_read_only || source.read_only == Some(true)).then(|| "ro".to_owned());
    let mut options: Vec<String> = ro.into_iter().chain(options.iter().cloned()).collect();
    options.sort();
    options.dedup();
    VolumeKind::Nfs { source: format!("{server}:{}", source.path), options }
}

fn empty_dir(
    pod: &v1::Pod,
    node: &NodeFacts,
    source: Option<&v1::EmptyDirVolumeSource>,
) -> Result<VolumeKind, RenderError> {
    match source.and_then(|s| s.medium.as_deref()).unwrap_or_default() {
        "" if is_counted(pod, node) => Ok(VolumeKind::CountedDir),
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

/// kubelet 1.36: only where the pod's processes cannot change the project of a file, which users of the host could.
fn is_counted(pod: &v1::Pod, node: &NodeFacts) -> bool {
    node.settings.gates.local_storage_capacity_isolation_fs_quota_monitoring && has_own_users(pod)
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
    const KIND: &str = "this kind of volume is not supported by rubelet";
    const GONE: &str = "no volume plugin matched";
    let v = volume;
    [
        (v.git_repo.is_some(), GIT, "kubernetes.io/git-repo"),
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
