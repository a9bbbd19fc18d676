//! configMap, secret, downwardAPI and projected: written files, swapped as a whole.

use std::path::Path;

use rubelet_core::pod::step::{FilesPlugin, VolumeFile, VolumePlan};

use super::empty_dir::{self, Medium};
use crate::atomic_dir;
use crate::mount::Cause;
use crate::ownership::{self, Access, Policy};

/// Makes the directory and brings the files up to date. kubelet 1.36: a configMap lies on the node's disk, all others on a tmpfs.
pub(crate) fn mount(plan: &VolumePlan, pod_dir: &Path, plugin: FilesPlugin, files: &[VolumeFile]) -> Result<(), Cause> {
    atomic_dir::check(files)?;
    let ready_name = format!("wrapped_{}", plan.name);
    let medium = match plugin {
        FilesPlugin::ConfigMap => Medium::Disk,
        FilesPlugin::Secret | FilesPlugin::DownwardApi | FilesPlugin::Projected => Medium::Memory { size_bytes: None },
    };
    empty_dir::mount_as(plan, pod_dir, &ready_name, &medium)?;
    atomic_dir::write(&plan.path, files, |dir| match plan.fs_group {
        Some(gid) => ownership::give_to_group(dir, gid, Policy::Always, Access::ReadOnly),
        None => Ok(()),
    })
}

#[cfg(test)]
mod tests;
