//! Which range of the host's users belongs to which pod with users of its own.
//!
//! kubelet 1.36: ranges are multiples of their length, from the length itself on; each is written to `pods/UID/userns` before it is used,
//! and found there after a restart, whoever wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rubelet_api::ids::PodUid;
use rubelet_core::render::users::UserRange;
use rubelet_host::{chain, paths};
use serde::{Deserialize, Serialize};

const FILE: &str = "userns";
const FILE_MODE: u32 = 0o644;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// All ranges.
pub struct Users {
    pods_dir: PathBuf,
    length: u32,
    /// First ids of the ranges that are taken, by pod.
    taken: Mutex<BTreeMap<PodUid, u32>>,
}

impl Users {
    /// Finds the ranges of pods that are there. `length`: ids per pod.
    pub fn open(pods_dir: PathBuf, length: u32) -> Self {
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(&pods_dir).into_iter().flatten().flatten() {
            if let Some(range) = read(&entry.path()) {
                taken.insert(PodUid::new(entry.file_name().to_string_lossy()), range.first);
            }
        }
        Self { pods_dir, length, taken: Mutex::new(taken) }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<PodUid, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The range of a pod: the one it has, or a new one. Blocks.
    ///
    /// # Errors
    /// None is left, or it cannot be written down.
    pub fn of(&self, uid: &PodUid) -> Result<UserRange, String> {
        let dir = self.pods_dir.join(uid.as_str());
        let mut taken = self.taken();
        if let Some(range) = read(&dir) {
            taken.insert(uid.clone(), range.first);
            return Ok(range);
        }
        let is_free = |first: &u32| !taken.values().any(|other| other == first);
        let all = (1..=u32::MAX / self.length).map(|n| n.saturating_mul(self.length));
        // The last range ends where ids end.
        let mut fitting = all.take_while(|first| first.checked_add(self.length - 1).is_some());
        let first = fitting.find(is_free).ok_or("could not find an empty slot to allocate a user namespace")?;
        let map = || vec![Mapping { host_id: first, container_id: 0, length: self.length }];
        let text = serde_json::to_vec(&Written { uid_mappings: map(), gid_mappings: map() })
            .map_err(|e| format!("write the range of users of pod {uid}: {e}"))?;
        paths::write_atomic(&dir.join(FILE), &text, FILE_MODE).map_err(|e| chain(&e))?;
        taken.insert(uid.clone(), first);
        Ok(UserRange { first, length: self.length })
    }

    /// Gives a pod's range back; its directory is gone.
    pub fn release(&self, uid: &PodUid) {
        self.taken().remove(uid);
    }
}

/// What is written for a pod; `None` when nothing is, or nothing that makes sense.
fn read(pod_dir: &Path) -> Option<UserRange> {
    let written: Written = serde_json::from_slice(&fs::read(pod_dir.join(FILE)).ok()?).ok()?;
    match (written.uid_mappings.as_slice(), written.gid_mappings.as_slice()) {
        ([user], [group]) if user == group && user.container_id == 0 && user.length > 0 => {
            Some(UserRange { first: user.host_id, length: user.length })
        }
        _ => {
            tracing::warn!(path = %pod_dir.join(FILE).display(), "The range of users of a pod is not understood; it gets another one");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_meet_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().to_owned();
        for uid in ["a", "b", "c"] {
            fs::create_dir(pods.join(uid)).unwrap();
        }
        let (a, b, c) = (PodUid::new("a"), PodUid::new("b"), PodUid::new("c"));
        let users = Users::open(pods.clone(), 65_536);
        assert_eq!(users.of(&a).unwrap(), UserRange { first: 65_536, length: 65_536 });
        assert_eq!(users.of(&b).unwrap().first, 131_072);
        assert_eq!(users.of(&a).unwrap().first, 65_536);
        let text = fs::read_to_string(pods.join("a/userns")).unwrap();
        assert_eq!(
            text,
            r#"{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":65536,"containerId":0,"length":65536}]}"#
        );
        let users = Users::open(pods.clone(), 65_536);
        fs::remove_dir_all(pods.join("a")).unwrap();
        users.release(&a);
        assert_eq!((users.of(&c).unwrap().first, users.of(&b).unwrap().first), (65_536, 131_072));
        fs::write(pods.join("c/userns"), "{}").unwrap();
        assert_eq!(users.of(&c).unwrap().first, 65_536 * 3, "what was lost is not given out twice");
    }

    #[test]
    fn the_last_range_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::open(dir.path().to_owned(), 1 << 31);
        for uid in ["a", "b"] {
            fs::create_dir(dir.path().join(uid)).unwrap();
        }
        assert_eq!(users.of(&PodUid::new("a")).unwrap().first, 1 << 31);
        assert!(users.of(&PodUid::new("b")).unwrap_err().starts_with("could not find an empty slot"));
    }
}
