//! Block devices: bound once for each pod below the volume's folder, and linked from the pod's directory.
//!
//! kubelet 1.36 does the same, and holds each device by a loop device on top; what it left of those is let go here.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_core::pod::step::DeviceMap;
use rubelet_host::exec::{self, Order};
use rubelet_host::{chain, mount as host_mount, paths};

use crate::mount::Cause;

const LOSETUP: &str = "/sbin/losetup";
const LOSETUP_PATIENCE: Duration = Duration::from_secs(10);

/// Whether it is a block device.
pub(crate) fn check(source: &Path) -> Result<(), Cause> {
    let meta = fs::metadata(source).map_err(Cause::io("stat", source))?;
    match meta.file_type().is_block_device() {
        true => Ok(()),
        false => Err(Cause::Refused { message: format!("{} is no block device", source.display()) }),
    }
}

/// Binds `source` to the pod's file and makes the link. Done already: nothing happens.
pub(crate) fn map(source: &Path, map: &DeviceMap, link: &Path) -> Result<(), Cause> {
    paths::ensure_dir(&map.global, 0o750)?;
    let bound = map.global.join(&map.pod);
    let device = fs::metadata(source).map_err(Cause::io("stat", source))?;
    if !fs::metadata(&bound).is_ok_and(|m| m.rdev() == device.rdev() && m.file_type().is_block_device()) {
        release(&bound)?;
        fs::OpenOptions::new().create(true).append(true).open(&bound).map(drop).map_err(Cause::io("make", &bound))?;
        host_mount::bind(source, &bound)?;
    }
    if let Some(dir) = link.parent() {
        paths::ensure_dir(dir, 0o750)?;
    }
    if fs::read_link(link).is_ok_and(|to| to == source) {
        return Ok(());
    }
    gone(fs::remove_file(link)).map_err(Cause::io("remove", link))?;
    std::os::unix::fs::symlink(source, link).map_err(Cause::io("link", link))
}

/// Lets go of what is bound to a pod's file, and removes it. Nothing there: nothing happens.
pub(crate) fn release(bound: &Path) -> Result<(), Cause> {
    if fs::symlink_metadata(bound).is_err() {
        return Ok(());
    }
    let_go(bound)?;
    if host_mount::is_mount_point(bound)? {
        host_mount::unmount(bound, host_mount::Unmount::Plain)?;
    }
    gone(fs::remove_file(bound)).map_err(Cause::io("remove", bound))
}

/// Takes down the devices of the pod that no driver has: those of the node itself.
///
/// # Errors
/// The chain names what is still held.
pub fn unmap_all(root_dir: &Path, uid: &str) -> Result<(), String> {
    const PLUGIN: &str = "kubernetes.io~local-volume";
    let links = root_dir.join("pods").join(uid).join("volumeDevices").join(PLUGIN);
    for link in children(&links).map_err(|e| chain(&e))? {
        let Some(volume) = link.file_name() else { continue };
        let global = root_dir.join("plugins").join(PLUGIN).join("volumeDevices").join(volume);
        release(&global.join(uid)).map_err(|e| chain(&e))?;
        // Other pods may have it.
        let _ = fs::remove_dir(&global);
        gone(fs::remove_file(&link)).map_err(|e| format!("remove {}: {e}", link.display()))?;
    }
    Ok(())
}

/// Detaches loop devices that hold what is bound here.
fn let_go(bound: &Path) -> Result<(), Cause> {
    let Ok(held) = fs::canonicalize(bound) else { return Ok(()) };
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()) != held {
            continue;
        }
        let device = Path::new("/dev").join(device.file_name());
        let order = Order {
            program: Path::new(LOSETUP),
            arguments: &[OsStr::new("--detach"), device.as_os_str()],
            environment: &[],
            input: &[],
            patience: LOSETUP_PATIENCE,
            output_max: 4096,
        };
        let refused = |why: &str| Cause::Refused { message: format!("detach {}: {why}", device.display()) };
        let answer = exec::run(&order).map_err(|e| refused(&chain(&e)))?;
        if !answer.status.success() {
            return Err(refused(String::from_utf8_lossy(&answer.stderr).trim()));
        }
    }
    Ok(())
}

/// Entries of a directory, sorted; none when it does not exist.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, Cause> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Cause::io("read", dir)(e)),
    };
    let found: Result<Vec<_>, _> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut found = found.map_err(Cause::io("read", dir))?;
    found.sort();
    Ok(found)
}

/// What is gone already is no error.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
