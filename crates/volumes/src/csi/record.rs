//! `vol_data.json`: whose volume a folder is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::client::CsiError;

pub(super) const RECORD: &str = "vol_data.json";
/// No record is larger.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// What identifies a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) driver: String,
    pub(super) handle: String,
}

pub(super) fn write(dir: &Path, record: BTreeMap<&str, &str>) -> Result<(), CsiError> {
    let path = dir.join(RECORD);
    let mut text = serde_json::Value::from_iter(record).to_string();
    text.push('\n');
    // Written beside and renamed: a record is whole or not there.
    let next = dir.join(".vol_data.json.tmp");
    fs::write(&next, text).map_err(CsiError::file("write", &next))?;
    fs::rename(&next, &path).map_err(CsiError::file("rename", &path))
}

/// `None` when there is no record.
pub(super) fn read(dir: &Path) -> Result<Option<Record>, CsiError> {
    let path = dir.join(RECORD);
    let broken = |why: &str| CsiError::Record { path: path.clone(), why: why.to_owned() };
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() <= RECORD_BYTES_MAX => {}
        Ok(_) => return Err(broken("it is no file of at most 64 KiB")),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(CsiError::file("stat", &path)(e)),
    }
    let text = fs::read(&path).map_err(CsiError::file("read", &path))?;
    let record: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|e| broken(&e.to_string()))?;
    match (record.get("driverName"), record.get("volumeHandle")) {
        (Some(driver), Some(handle)) => Ok(Some(Record { driver: driver.clone(), handle: handle.clone() })),
        _ => Err(broken("it names no driver or no volume")),
    }
}

/// The driver of the volume in this folder; `None`: it is no driver's, or its record cannot be read.
pub(crate) fn driver_of(dir: &Path) -> Option<String> {
    read(dir).ok().flatten().map(|record| record.driver)
}

/// The folders of a pod's volumes of drivers.
pub(super) fn volume_dirs(pod_dir: &Path) -> Result<Vec<PathBuf>, CsiError> {
    children(&pod_dir.join("volumes/kubernetes.io~csi"))
}

/// The pods, other than `except`, that have the volume's file system.
pub(super) fn is_used(root_dir: &Path, record: &Record, except: Option<&str>) -> Result<bool, CsiError> {
    for pod in children(&root_dir.join("pods"))? {
        if except.is_some_and(|uid| pod.file_name().is_some_and(|name| name == uid)) {
            continue;
        }
        for dir in volume_dirs(&pod)? {
            if read(&dir)?.is_some_and(|r| r == *record) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, CsiError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CsiError::file("read", dir)(e)),
    };
    let found: Result<Vec<_>, _> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut found = found.map_err(CsiError::file("read", dir))?;
    found.sort();
    Ok(found)
}

pub(super) fn remove_dir(dir: &Path) -> Result<(), CsiError> {
    crate::devices::gone(fs::remove_dir(dir)).map_err(CsiError::file("remove", dir))
}

pub(super) fn remove_file(path: &Path) -> Result<(), CsiError> {
    crate::devices::gone(fs::remove_file(path)).map_err(CsiError::file("remove", path))
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
