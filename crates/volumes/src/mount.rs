//! The front door: one volume by its plan.

use std::io;
use std::path::{Path, PathBuf};

use rubelet_core::pod::step::{VolumeKind, VolumePlan};
use rubelet_host::mount as host_mount;
use rubelet_host::paths::PathError;

use crate::kinds;

/// Why a volume could not be mounted. The chain of messages, joined with `: `, reads as in upstream's `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The blank before upstream's colon is upstream's.
    #[error("MountVolume.SetUp failed for volume {volume:?} ")]
    SetUp { volume: String, source: Cause },
    /// It could not be staged.
    #[error("MountVolume.MountDevice failed for volume {volume:?} ")]
    Device { volume: String, source: Cause },
    /// A block device, likewise.
    #[error("MapVolume.SetUpDevice failed for volume {volume:?} ")]
    MapDevice { volume: String, source: Cause },
    #[error("MapVolume.MapPodDevice failed for volume {volume:?} ")]
    Map { volume: String, source: Cause },
    #[error("MountVolume.{phase} failed while expanding volume for volume {volume:?} ")]
    Expand { volume: String, phase: &'static str, source: Cause },
    /// What the volume stands for could not be found out.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {message}"
    )]
    Unprocessed { volume: String, message: String },
    #[error("failed to prepare subPath for volumeMount {sub_path:?} of volume {volume}")]
    SubPath { volume: PathBuf, sub_path: String, source: Cause },
}

impl MountError {
    /// Of the event that tells of it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MapDevice { .. } | Self::Map { .. } => "FailedMapVolume",
            Self::SetUp { .. }
            | Self::Device { .. }
            | Self::Expand { .. }
            | Self::Unprocessed { .. }
            | Self::SubPath { .. } => "FailedMount",
        }
    }
}

/// What went wrong in detail.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// kubelet 1.36: `hostPath type check failed: <path> is not a …`.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType { path: PathBuf, wanted: &'static str },
    #[error("{type_} is an invalid volume type")]
    UnknownHostPathType { type_: String },
    #[error("invalid file path {path:?} in volume")]
    FilePath { path: String },
    #[error("{message}")]
    Refused { message: String },
    #[error("mkdir {path}: not below the pod's directory")]
    Outside { path: PathBuf },
    #[error(transparent)]
    Csi(#[from] crate::csi::CsiError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Mount(#[from] host_mount::MountError),
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl Cause {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }
}

/// Mounts one volume (but for a CSI driver's, see [`crate::csi::Mounting`]) of the pod whose directory is `pod_dir`. Done already: nothing happens, except that written files are
/// brought up to date.
pub fn mount(plan: &VolumePlan, pod_dir: &Path) -> Result<(), MountError> {
    let done = match &plan.kind {
        VolumeKind::EmptyDir => kinds::empty_dir::mount(plan, pod_dir, &kinds::empty_dir::Medium::Disk),
        VolumeKind::CountedDir => kinds::empty_dir::mount_counted(plan, pod_dir),
        VolumeKind::MemoryDir { size_bytes } => {
            let size_bytes = size_bytes.and_then(|s| u64::try_from(s).ok());
            kinds::empty_dir::mount(plan, pod_dir, &kinds::empty_dir::Medium::Memory { size_bytes })
        }
        VolumeKind::HugePages { page_size_bytes } => {
            let medium = kinds::empty_dir::Medium::HugePages { page_size_bytes: *page_size_bytes };
            kinds::empty_dir::mount(plan, pod_dir, &medium)
        }
        VolumeKind::HostPath { type_ } => kinds::host_path::check(&plan.path, type_),
        VolumeKind::Local { source, is_read_only } => kinds::local::mount(plan, pod_dir, source, *is_read_only),
        VolumeKind::Files { plugin, files, .. } => kinds::files::mount(plan, pod_dir, *plugin, files),
        // The runtime mounts it into each container.
        VolumeKind::Image => Ok(()),
        VolumeKind::Nfs { source, options } => kinds::nfs::mount(plan, pod_dir, source, options),
        VolumeKind::Device { source, map } => {
            let mapped = crate::devices::check(source).and_then(|()| crate::devices::map(source, map, &plan.path));
            return mapped.map_err(|source| MountError::Map { volume: plan.name.clone(), source });
        }
        VolumeKind::Csi(_) => Err(Cause::Refused { message: "drivers are asked elsewhere".to_owned() }),
        VolumeKind::Unprocessed { message } => {
            return Err(MountError::Unprocessed { volume: plan.volume.clone(), message: message.clone() });
        }
        VolumeKind::Refused { message } => Err(Cause::Refused { message: message.clone() }),
    };
    done.map_err(|source| MountError::SetUp { volume: plan.name.clone(), source })
}
