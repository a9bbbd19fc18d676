//! local: a directory of the node, bound into the pod's directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rubelet_core::pod::step::VolumePlan;
use rubelet_host::mount as host_mount;

use super::empty_dir::make_dirs;
use crate::mount::Cause;
use crate::ownership::{self, Access, Policy};

/// Binds `source`; given to the fsGroup unless it is read-only.
pub(crate) fn mount(plan: &VolumePlan, pod_dir: &Path, source: &Path, is_read_only: bool) -> Result<(), Cause> {
    let meta = fs::metadata(source).map_err(Cause::io("stat", source))?;
    if !meta.is_dir() {
        return Err(Cause::Refused {
            message: format!("local volume {} is no directory, other kinds are not supported", source.display()),
        });
    }
    make_dirs(&plan.path, pod_dir, 0o750)?;
    let is_bound = host_mount::is_mount_point(&plan.path)?
        && fs::metadata(&plan.path).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino()));
    if !is_bound {
        host_mount::bind(source, &plan.path)?;
    }
    // Containers get a read-only mount of it; the pod's own bind stays as it is.
    if let Some(gid) = plan.fs_group.filter(|_| !is_read_only) {
        let policy = if plan.fs_group_on_root_mismatch { Policy::OnRootMismatch } else { Policy::Always };
        ownership::give_to_group(&plan.path, gid, policy, Access::ReadWrite)?;
    }
    Ok(())
}
