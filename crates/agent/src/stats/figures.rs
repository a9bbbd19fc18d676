//! The node's own figures: for the summary, and for deciding whether there is enough of everything.

use std::path::PathBuf;

use rubelet_host::cgroup::usage::Usage;
use rubelet_host::disk::{self, FileSystem};
use rubelet_host::proc;
use rubelet_proto::cri;

use super::Inner;

/// What the node has and uses at a moment. What cannot be read is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub memory_capacity_bytes: Option<u64>,
    /// Signal `memory.available`: capacity without the working set.
    pub memory_available_bytes: Option<u64>,
    /// Signal `allocatableMemory.available`: what pods may use without what they do.
    pub pods_memory_available_bytes: Option<u64>,
    /// Signals `nodefs.available` and `nodefs.inodesFree`: the root directory's file system.
    pub node_fs: Option<FileSystem>,
    /// Signals `imagefs.…`; `None` too when the runtime does not tell where it is.
    pub image_fs: Option<FileSystem>,
    /// Signals `containerfs.…`.
    pub container_fs: Option<FileSystem>,
    /// Signal `pid.available`: the most there may be, and how many there are.
    pub pids_max: Option<i64>,
    pub pids: Option<i64>,
}

impl super::Stats {
    /// The figures of now. `image_fs` is the runtime's answer, if it was asked. Blocks on the kernel, for less than a
    /// millisecond unless a file system hangs.
    pub fn figures(&self, image_fs: Option<&cri::ImageFsInfoResponse>) -> Figures {
        let inner = &self.inner;
        let capacity = proc::memory().ok().map(|memory| memory.total);
        let working_set = inner.node_usage().and_then(|usage| usage.working_set_bytes);
        let pods = inner.pods_usage();
        let (image_fs, container_fs) = image_file_systems(image_fs);
        Figures {
            memory_capacity_bytes: capacity,
            memory_available_bytes: capacity.zip(working_set).map(|(all, used)| all.saturating_sub(used)),
            pods_memory_available_bytes: pods.and_then(|usage| {
                let limit = usage.memory_limit_bytes.or(capacity)?;
                Some(limit.saturating_sub(usage.working_set_bytes?))
            }),
            node_fs: disk::file_system(&inner.hands.root_dir).ok(),
            image_fs: image_fs.map(|one| one.file_system),
            container_fs: container_fs.map(|one| one.file_system),
            pids_max: proc::pids_max(),
            pids: proc::threads(),
        }
    }
}

impl Inner {
    /// What the machine uses as a whole.
    pub(crate) fn node_usage(&self) -> Option<Usage> {
        let mut usage = self.top.as_ref()?.usage("")?;
        // The root's own file says nothing of swap on version 2.
        usage.swap_bytes = usage.swap_bytes.or_else(proc::swap_used);
        Some(usage)
    }

    /// What all pods use.
    pub(crate) fn pods_usage(&self) -> Option<Usage> {
        self.hands.cgroups.as_ref()?.usage(rubelet_core::resources::cgroup::PODS)
    }
}

/// A file system of the runtime, and what it says it uses of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuntimeFs {
    pub(super) file_system: FileSystem,
    pub(super) used_bytes: Option<u64>,
    pub(super) inodes_used: Option<u64>,
}

/// The file systems of images and of writable layers; a runtime that tells no second one has both in one.
pub(super) fn image_file_systems(answer: Option<&cri::ImageFsInfoResponse>) -> (Option<RuntimeFs>, Option<RuntimeFs>) {
    let Some(answer) = answer else { return (None, None) };
    let images = runtime_fs(&answer.image_filesystems);
    (images, runtime_fs(&answer.container_filesystems).or(images))
}

fn runtime_fs(told: &[cri::FilesystemUsage]) -> Option<RuntimeFs> {
    let first = told.first()?;
    let mount = PathBuf::from(&first.fs_id.as_ref()?.mountpoint);
    let value = |value: &Option<cri::UInt64Value>| value.as_ref().map(|value| value.value);
    Some(RuntimeFs {
        file_system: disk::file_system(&mount).ok()?,
        used_bytes: told.iter().map(|one| value(&one.used_bytes)).sum(),
        inodes_used: told.iter().map(|one| value(&one.inodes_used)).sum(),
    })
}
