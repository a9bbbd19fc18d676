//! What is known of each image, in one small file each: `images/HEX.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rubelet_proto::cri;
use serde::{Deserialize, Serialize};

use super::blobs::{StoreError, file_error, write};
use crate::digest::Digest;

/// An image that is on the node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Record {
    /// Digest of the configuration: what CRI calls the image's id.
    pub(crate) id: Digest,
    /// The index and the manifest, as far as there are any; images from Docker's archives have none.
    pub(crate) documents: Vec<Digest>,
    /// `docker.io/library/nginx:latest`
    pub(crate) tags: Vec<String>,
    /// `docker.io/library/nginx@sha256:…`
    pub(crate) digests: Vec<String>,
    /// Bytes of manifest, configuration and packed layers, as containerd counts them.
    pub(crate) size: u64,
    /// The layers, from the bottom: the name of each stack.
    pub(crate) chains: Vec<Digest>,
    /// `config.User`
    pub(crate) user: String,
    /// Not to be collected.
    pub(crate) is_pinned: bool,
}

impl Record {
    /// As CRI has it. containerd: a user that is no number is a name.
    pub(crate) fn to_cri(&self) -> cri::Image {
        let user = self.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok();
        cri::Image {
            id: self.id.to_string(),
            repo_tags: self.tags.clone(),
            repo_digests: self.digests.clone(),
            size: self.size,
            uid: uid.map(|value| cri::Int64Value { value }),
            username: if uid.is_none() { user.to_owned() } else { String::new() },
            spec: None,
            pinned: self.is_pinned,
        }
    }

    /// Content that the image needs as long as it is here. (Packed layers are not kept.)
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.documents.iter().copied().chain([self.id])
    }
}

/// The files of records. All functions block.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Reads all records; one that is damaged is left out with a warning, its image is pulled again when it is wanted.
    pub(crate) fn open(root: &Path) -> Result<(Self, BTreeMap<Digest, Record>), StoreError> {
        let records = Self { dir: root.join("images") };
        fs::create_dir_all(&records.dir).map_err(file_error("create", &records.dir))?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&records.dir).map_err(file_error("read", &records.dir))? {
            let path = entry.map_err(file_error("read", &records.dir))?.path();
            let Some(digest) = path.file_stem().and_then(|n| n.to_str()).and_then(|n| Digest::from_hex(n).ok()) else {
                // A file that was being written.
                let _ = fs::remove_file(&path);
                continue;
            };
            let text = fs::read(&path).map_err(file_error("read", &path))?;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if record.id == digest => drop(found.insert(digest, record)),
                Ok(_) | Err(_) => tracing::warn!("the record of an image is damaged: {}", path.display()),
            }
        }
        Ok((records, found))
    }

    fn path(&self, id: Digest) -> PathBuf {
        self.dir.join(format!("{}.json", id.hex()))
    }

    pub(crate) fn write(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.path(record.id);
        let text = serde_json::to_vec(record).map_err(|source| StoreError::Parse { path: path.clone(), source })?;
        write(&path, &text)
    }

    pub(crate) fn remove(&self, id: Digest) -> Result<(), StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_error("remove", &path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Remembers that the image is used now, as the time of its file: cheap, and no harm if the power fails.
    pub(crate) fn touch(&self, id: Digest, now: SystemTime) {
        if let Ok(file) = fs::File::options().append(true).open(self.path(id)) {
            let _ = file.set_modified(now);
        }
    }

    /// When the image was used or pulled last.
    pub(crate) fn last_used(&self, id: Digest) -> Option<SystemTime> {
        fs::metadata(self.path(id)).and_then(|stat| stat.modified()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: &str) -> Record {
        Record {
            id: Digest::of(b"config"),
            documents: Vec::new(),
            tags: vec!["docker.io/library/x:1".into()],
            digests: Vec::new(),
            size: 3,
            chains: Vec::new(),
            user: user.into(),
            is_pinned: false,
        }
    }

    #[test]
    fn users_are_numbers_or_names() {
        let shown = |user| {
            let image = record(user).to_cri();
            (image.uid.map(|u| u.value), image.username)
        };
        assert_eq!(shown(""), (None, String::new()));
        assert_eq!(shown("1000:50"), (Some(1000), String::new()));
        assert_eq!(shown("nobody:x"), (None, "nobody".into()));
    }

    #[test]
    fn records_are_found_again_and_damage_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (records, none) = Records::open(dir.path()).unwrap();
        assert!(none.is_empty());
        let kept = record("a");
        records.write(&kept).unwrap();
        fs::write(dir.path().join("images").join(format!("{}.json", Digest::of(b"other").hex())), "{").unwrap();
        let (records, found) = Records::open(dir.path()).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), std::slice::from_ref(&kept));
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
        records.touch(kept.id, then);
        assert_eq!(records.last_used(kept.id), Some(then));
    }
}
