//! downwardAPI and projected: files written on a tmpfs, swapped as a whole.

use std::path::Path;

use rubelet_core::pod::step::{VolumeFile, VolumePlan};

use super::empty_dir::{self, Medium};
use crate::atomic_dir;
use crate::mount::Cause;
use crate::ownership::{self, Access, Policy};

/// Mounts the tmpfs and brings the files up to date.
pub(crate) fn mount(plan: &VolumePlan, pod_dir: &Path, files: &[VolumeFile]) -> Result<(), Cause> {
    atomic_dir::check(files)?;
    let ready_name = format!("wrapped_{}", plan.name);
    empty_dir::mount_as(plan, pod_dir, &ready_name, &Medium::Memory { size_bytes: None })?;
    atomic_dir::write(&plan.path, files, |dir| match plan.fs_group {
        Some(gid) => ownership::give_to_group(dir, gid, Policy::Always, Access::ReadOnly),
        None => Ok(()),
    })
}
