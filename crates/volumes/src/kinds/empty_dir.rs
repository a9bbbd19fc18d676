//! emptyDir on disk, in memory and on huge pages; the last two also carry written files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rubelet_core::pod::step::VolumePlan;
use rubelet_host::mount as host_mount;
use rubelet_host::paths;

use crate::mount::Cause;
use crate::ownership::{self, Access, Policy};
use crate::projects;

/// What an emptyDir is made of.
#[derive(Debug, PartialEq)]
pub(crate) enum Medium {
    Disk,
    Memory { size_bytes: Option<u64> },
    HugePages { page_size_bytes: u64 },
}

/// Makes the directory (0777 whatever the umask), mounts the medium, gives it to the fsGroup, marks it as ready.
pub(crate) fn mount(plan: &VolumePlan, pod_dir: &Path, medium: &Medium) -> Result<(), Cause> {
    mount_as(plan, pod_dir, &plan.name, medium)
}

/// The same on disk, in a project of its own where the file system keeps account of projects.
pub(crate) fn mount_counted(plan: &VolumePlan, pod_dir: &Path) -> Result<(), Cause> {
    mount(plan, pod_dir, &Medium::Disk)?;
    // Then its files are counted one by one.
    if let Err(error) = projects::assign(&plan.path) {
        let err = rubelet_host::chain(&error);
        tracing::warn!(
            volume = plan.name,
            err,
            "A volume's use will be counted file by file, as its project could not be set"
        );
    }
    Ok(())
}

/// The same under another name for its `ready` file: written volumes use `wrapped_<name>`.
pub(crate) fn mount_as(plan: &VolumePlan, pod_dir: &Path, ready_name: &str, medium: &Medium) -> Result<(), Cause> {
    let dir = &plan.path;
    let ready = ready_file(pod_dir, ready_name);
    let is_ready = ready.is_file()
        && match medium {
            Medium::Disk => dir.is_dir(),
            Medium::Memory { .. } | Medium::HugePages { .. } => host_mount::is_mount_point(dir)?,
        };
    if is_ready {
        return Ok(());
    }
    make_dirs(dir, pod_dir, 0o777)?;
    // A crash between mounting and marking leaves a mount that is as good as a new one.
    if !host_mount::is_mount_point(dir)? {
        match medium {
            Medium::Disk => {}
            Medium::Memory { size_bytes } => {
                host_mount::tmpfs(
                    dir,
                    host_mount::Tmpfs { size_bytes: *size_bytes, noswap: true, is_data_only: false },
                )?;
            }
            Medium::HugePages { page_size_bytes } => host_mount::hugetlbfs(dir, *page_size_bytes)?,
        }
    }
    open_to_all(dir)?;
    if let Some(gid) = plan.fs_group {
        let policy = if plan.fs_group_on_root_mismatch { Policy::OnRootMismatch } else { Policy::Always };
        ownership::give_to_group(dir, gid, policy, Access::ReadWrite)?;
    }
    mark_ready(&ready)
}

/// `plugins/kubernetes.io~empty-dir/<name>/ready`.
fn ready_file(pod_dir: &Path, name: &str) -> PathBuf {
    pod_dir.join("plugins/kubernetes.io~empty-dir").join(name).join("ready")
}

fn mark_ready(ready: &Path) -> Result<(), Cause> {
    if let Some(dir) = ready.parent() {
        paths::ensure_dir(dir, 0o750)?;
    }
    fs::write(ready, "").map_err(Cause::io("write", ready))?;
    fs::set_permissions(ready, fs::Permissions::from_mode(0o644)).map_err(Cause::io("chmod", ready))
}

/// `volumes` 0750, `volumes/<plugin>` 0755, and the volume itself.
pub(crate) fn make_dirs(dir: &Path, pod_dir: &Path, mode: u32) -> Result<(), Cause> {
    let volumes = pod_dir.join("volumes");
    let plugin = dir.parent().filter(|p| p.parent() == Some(&volumes));
    let plugin = plugin.ok_or_else(|| Cause::Outside { path: dir.to_owned() })?;
    paths::ensure_dir(&volumes, 0o750)?;
    paths::ensure_dir(plugin, 0o755)?;
    Ok(paths::ensure_dir(dir, mode)?)
}

/// Read, write and search for everybody; other bits (a tmpfs is sticky) stay.
fn open_to_all(dir: &Path) -> Result<(), Cause> {
    let mode = fs::metadata(dir).map_err(Cause::io("stat", dir))?.permissions().mode();
    if mode & 0o777 == 0o777 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(Cause::io("chmod", dir))
}
