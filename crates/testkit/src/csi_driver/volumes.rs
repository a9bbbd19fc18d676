//! The volumes themselves: folders, and files behind loop devices.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_host::exec::{self, Order};
use rubelet_host::mount;
use rustix::mount::{MountFlags, mount_remount};

use crate::grpc::Refusal;

/// Of a volume that was never expanded.
const SIZE_BYTES: i64 = 1 << 30;
/// Of the file behind a block device.
const DEVICE_BYTES: u64 = 16 << 20;

/// All volumes of the driver.
pub(super) struct Volumes<'a> {
    data: &'a Path,
}

/// One of them.
pub(super) struct Volume<'a> {
    data: &'a Path,
    handle: &'a str,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(data: &'a Path) -> Self {
        Self { data }
    }

    pub(super) fn volume(&self, handle: &'a str) -> Result<Volume<'a>, Refusal> {
        if handle.is_empty() || handle.starts_with('.') || handle.contains('/') {
            return Err(Refusal::invalid(format!("{handle:?} is no name for a volume")));
        }
        Ok(Volume { data: self.data, handle })
    }
}

impl Volume<'_> {
    fn path(&self) -> PathBuf {
        self.data.join("volumes").join(self.handle)
    }

    fn note(&self, kind: &str) -> PathBuf {
        self.data.join(kind).join(self.handle)
    }

    /// Makes the folder, and gives it to a group where one is wished for.
    pub(super) fn folder(&self, group: &str) -> Result<(), Refusal> {
        let path = self.path();
        done("make", &path, fs::create_dir_all(&path))?;
        if let Ok(gid) = group.parse::<u32>() {
            done("give away", &path, std::os::unix::fs::chown(&path, None, Some(gid)))?;
            done("chmod", &path, fs::set_permissions(&path, fs::Permissions::from_mode(0o2770)))?;
        }
        Ok(())
    }

    pub(super) fn bind_folder(&self, target: &Path, is_read_only: bool) -> Result<(), Refusal> {
        done("make", target, fs::create_dir_all(target))?;
        if !mount::is_mount_point(target).map_err(|e| refused(&e))? {
            mount::bind(&self.path(), target).map_err(|e| refused(&e))?;
        }
        if is_read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            done("remount", target, mount_remount(target, flags, "").map_err(io::Error::from))?;
        }
        Ok(())
    }

    /// The device that stands for the volume, made if need be.
    pub(super) fn device(&self) -> Result<PathBuf, Refusal> {
        if let Some(device) = self.known_device() {
            return Ok(device);
        }
        let path = self.path();
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| trouble("open", &path, &e))?;
        if file.metadata().is_ok_and(|m| m.len() == 0) {
            done("lengthen", &path, file.set_len(DEVICE_BYTES))?;
        }
        let said = losetup(&[OsStr::new("--find"), OsStr::new("--show"), path.as_os_str()])?;
        Ok(PathBuf::from(said.trim()))
    }

    fn known_device(&self) -> Option<PathBuf> {
        let wanted = fs::canonicalize(self.path()).ok()?;
        let mut devices = fs::read_dir("/sys/block").ok()?.filter_map(Result::ok).filter(|device| {
            let backing = fs::read_to_string(device.path().join("loop/backing_file"));
            backing.is_ok_and(|file| Path::new(file.trim_end()) == wanted)
        });
        devices.next().map(|device| Path::new("/dev").join(device.file_name()))
    }

    pub(super) fn release_device(&self) -> Result<(), Refusal> {
        match self.known_device() {
            Some(device) => losetup(&[OsStr::new("--detach"), device.as_os_str()]).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn bind_device(&self, target: &Path) -> Result<(), Refusal> {
        let device = self.device()?;
        let is_there = fs::metadata(target).is_ok_and(|m| m.file_type().is_block_device());
        if is_there {
            return Ok(());
        }
        done("make", target, fs::OpenOptions::new().create(true).append(true).open(target).map(drop))?;
        mount::bind(&device, target).map_err(|e| refused(&e))
    }

    pub(super) fn unbind(target: &Path) -> Result<(), Refusal> {
        if target.exists() && mount::is_mount_point(target).map_err(|e| refused(&e))? {
            mount::unmount(target, mount::Unmount::Plain).map_err(|e| refused(&e))?;
        }
        Ok(())
    }

    pub(super) fn remove_target(target: &Path) -> Result<(), Refusal> {
        let removed = match fs::symlink_metadata(target) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(target),
            Ok(_) => fs::remove_file(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        done("remove", target, removed)
    }

    /// It goes with its pod.
    pub(super) fn note_inline(&self) -> Result<(), Refusal> {
        let note = self.note("inline");
        done("write", &note, fs::write(&note, ""))
    }

    pub(super) fn forget_inline(&self) -> Result<(), Refusal> {
        let note = self.note("inline");
        if note.exists() {
            done("remove", &self.path(), fs::remove_dir_all(self.path()))?;
            done("remove", &note, fs::remove_file(&note))?;
        }
        Ok(())
    }

    pub(super) fn expand(&self, bytes: i64) -> Result<(), Refusal> {
        if bytes < self.size() {
            return Err(Refusal { code: 11, message: format!("the volume has {} bytes already", self.size()) });
        }
        let note = self.note("sizes");
        done("write", &note, fs::write(&note, bytes.to_string()))
    }

    pub(super) fn size(&self) -> i64 {
        fs::read_to_string(self.note("sizes")).ok().and_then(|n| n.trim().parse().ok()).unwrap_or(SIZE_BYTES)
    }

    pub(super) fn used_bytes(&self) -> i64 {
        let sizes = self.entries().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.size());
        i64::try_from(sizes.sum::<u64>()).unwrap_or(i64::MAX)
    }

    pub(super) fn files(&self) -> i64 {
        i64::try_from(self.entries().count()).unwrap_or(i64::MAX)
    }

    fn entries(&self) -> impl Iterator<Item = fs::DirEntry> {
        fs::read_dir(self.path()).into_iter().flatten().filter_map(Result::ok)
    }
}

fn losetup(arguments: &[&OsStr]) -> Result<String, Refusal> {
    let order = Order {
        program: Path::new("/sbin/losetup"),
        arguments,
        environment: &[],
        input: &[],
        patience: Duration::from_secs(10),
        output_max: 4096,
    };
    let answer = exec::run(&order).map_err(|e| refused(&e))?;
    if answer.status.success() {
        return Ok(String::from_utf8_lossy(&answer.stdout).into_owned());
    }
    Err(Refusal::internal(format!("losetup: {}", String::from_utf8_lossy(&answer.stderr).trim())))
}

fn done(operation: &str, path: &Path, result: io::Result<()>) -> Result<(), Refusal> {
    result.map_err(|error| trouble(operation, path, &error))
}

fn trouble(operation: &str, path: &Path, error: &io::Error) -> Refusal {
    Refusal::internal(format!("{operation} {}: {error}", path.display()))
}

fn refused(error: &dyn std::error::Error) -> Refusal {
    Refusal::internal(rubelet_host::chain(error))
}
