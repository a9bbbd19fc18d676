//! Taking a pod's volumes down: subpaths, then volumes, then the directories of our own kinds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_host::mount::{self as host_mount, Unmount};
use rubelet_host::paths::{self, PathError};

use crate::projects;

#[cfg(test)]
mod tests;

/// Why something of a pod's volumes is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] host_mount::MountError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{path} is still mounted")]
    StillMounted { path: PathBuf },
}

/// Kinds whose content is the pod's own and goes with it. Directories of other kinds are removed when they are empty.
const OWN: [&str; 5] = [
    "kubernetes.io~empty-dir",
    "kubernetes.io~downward-api",
    "kubernetes.io~projected",
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
];
/// How often a busy mount is tried before it is detached lazily.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Rounds over mounts on top of each other.
const ROUNDS_MAX: usize = 8;

/// Unmounts everything below the pod's directory and removes its emptyDirs and written files. For a pod without living
/// containers. Nothing left to do is no error.
pub fn unmount_all(pod_dir: &Path) -> Result<(), UnmountError> {
    let subpaths = pod_dir.join("volume-subpaths");
    // Most pods mount nothing, and the mount table of a full node is long.
    if has_mounts(pod_dir)? {
        unmount_below(&subpaths)?;
        unmount_below(pod_dir)?;
    }
    paths::remove_tree(&subpaths)?;
    for plugin in children(&pod_dir.join("volumes"))? {
        let is_own = plugin.file_name().is_some_and(|n| OWN.iter().any(|own| n == *own));
        for volume in children(&plugin)? {
            if is_own {
                if let Err(error) = projects::release(&volume) {
                    let err = rubelet_host::chain(&error);
                    tracing::warn!(volume = %volume.display(), err, "The project of a volume that goes stays written down");
                }
                paths::remove_tree(&volume)?;
            } else {
                remove_empty(&volume)?;
            }
        }
        remove_empty(&plugin)?;
    }
    Ok(paths::remove_tree(&pod_dir.join("plugins/kubernetes.io~empty-dir"))?)
}

/// Removes the pod's directory after its volumes are down. With anything still mounted inside, or a foreign volume that
/// holds something, it is an error and nothing is removed.
pub fn remove_pod_dir(pod_dir: &Path) -> Result<(), UnmountError> {
    if let Ok(real) = fs::canonicalize(pod_dir)
        && let Some(mount) = host_mount::at_or_below(&real)?.into_iter().next()
    {
        return Err(UnmountError::StillMounted { path: mount.target });
    }
    for plugin in children(&pod_dir.join("volumes"))? {
        for volume in children(&plugin)? {
            remove_empty(&volume)?;
        }
    }
    Ok(paths::remove_tree(pod_dir)?)
}

fn has_mounts(dir: &Path) -> Result<bool, UnmountError> {
    match fs::canonicalize(dir) {
        Ok(real) => Ok(!host_mount::at_or_below(&real)?.is_empty()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(UnmountError::Read { path: dir.to_owned(), source }),
    }
}

fn unmount_below(dir: &Path) -> Result<(), UnmountError> {
    let real = match fs::canonicalize(dir) {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(UnmountError::Read { path: dir.to_owned(), source }),
    };
    for _ in 0..ROUNDS_MAX {
        let mounts = host_mount::at_or_below(&real)?;
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts {
            unmount_patiently(&mount.target)?;
        }
    }
    match host_mount::at_or_below(&real)?.into_iter().next() {
        None => Ok(()),
        Some(mount) => Err(UnmountError::StillMounted { path: mount.target }),
    }
}

/// A mount that stays busy although its pod is dead is detached: who still holds it keeps it, the pod can go.
fn unmount_patiently(target: &Path) -> Result<(), UnmountError> {
    for _ in 0..BUSY_TRIES {
        match host_mount::unmount(target, Unmount::Plain) {
            Ok(()) => return Ok(()),
            Err(host_mount::MountError::Unmount { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(e) => return Err(e.into()),
        }
    }
    tracing::warn!(target = %target.display(), "volume stays busy, detaching it");
    Ok(host_mount::unmount(target, Unmount::Lazy)?)
}

/// Entries of a directory, sorted; none when it does not exist.
fn children(dir: &Path) -> Result<Vec<PathBuf>, UnmountError> {
    let read = |source| UnmountError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(read(e)),
    };
    let mut found = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(read)?;
    found.sort();
    Ok(found)
}

fn remove_empty(dir: &Path) -> Result<(), UnmountError> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(UnmountError::Remove { path: dir.to_owned(), source }),
    }
}
