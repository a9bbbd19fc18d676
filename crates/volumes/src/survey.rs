//! What pods left on disk: looked at once after a start, before anything is decided about it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rubelet_host::mount as host_mount;

use crate::unmount::UnmountError;

/// A pod's directory with what is mounted in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodOnDisk {
    /// Name of the directory.
    pub uid: String,
    pub dir: PathBuf,
    /// Mount points in it, in the order to unmount them.
    pub mounts: Vec<PathBuf>,
}

/// The volumes that a pod has in its directory: by each the name of its plugin, as upstream's metrics have it.
pub fn plugins(pod_dir: &Path) -> Vec<String> {
    let children = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
    let mut found = Vec::new();
    for plugin in children(&pod_dir.join("volumes")) {
        let name = plugin.file_name().to_string_lossy().replace('~', "/");
        for volume in children(&plugin.path()) {
            let driver = crate::csi::driver_of(&volume.path());
            found.push(driver.map_or_else(|| name.clone(), |driver| format!("{name}:{driver}")));
        }
    }
    found
}

/// All pods that have a directory in `pods_dir` (`<root-dir>/pods`). None when that does not exist.
pub fn survey(pods_dir: &Path) -> Result<Vec<PodOnDisk>, UnmountError> {
    let read = |source| UnmountError::Read { path: pods_dir.to_owned(), source };
    let entries = match fs::read_dir(pods_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(read(e)),
    };
    let mut pods = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_dir()
            && let Ok(uid) = entry.file_name().into_string()
        {
            let dir = entry.path();
            pods.insert(uid.clone(), PodOnDisk { uid, dir, mounts: Vec::new() });
        }
    }
    // The mount table has real paths, `pods_dir` may lie behind a link.
    let real = fs::canonicalize(pods_dir).map_err(read)?;
    for mount in host_mount::at_or_below(&real)? {
        let Ok(inner) = mount.target.strip_prefix(&real) else { continue };
        let uid = inner.components().next().and_then(|c| c.as_os_str().to_str());
        if let Some(pod) = uid.and_then(|u| pods.get_mut(u)) {
            pod.mounts.push(mount.target.clone());
        }
    }
    Ok(pods.into_values().collect())
}
