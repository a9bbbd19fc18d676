//! Who has which addresses and ports on the bridge: one file, written anew with each change.
//!
//! It is renamed into place without waiting for the disk: after a power failure no pod runs, and what the file does not know by then
//! the kernel does not know either. For the same reason what an earlier boot has left counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::file_error;
use crate::{NetworkError, PortMapping, Subnet, Wanted};

/// What one pod has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    /// For messages.
    pub(crate) pod: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// What the addresses are out of, in the same order.
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) ports: Vec<PortMapping>,
    /// Name of the host's end of the pod's link.
    pub(crate) link: String,
}

impl Entry {
    pub(crate) fn of(wanted: &Wanted<'_>) -> Self {
        let pod = format!("{}/{}", wanted.namespace, wanted.name);
        Self { pod, ports: wanted.ports.clone(), ..Self::default() }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    /// During which all this was given out.
    boot: String,
    pods: BTreeMap<String, Entry>,
    /// The addresses that were given out last, one of each family at most.
    last: Vec<IpAddr>,
}

/// All entries.
#[derive(Debug)]
pub(crate) struct Book {
    path: PathBuf,
    content: Content,
}

impl Book {
    pub(crate) fn open(dir: &Path, boot: &str) -> Result<Self, NetworkError> {
        let path = dir.join("addresses.json");
        let mut content = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), err = %error, "the list of the pods' addresses is damaged and begun anew");
                Content::default()
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Content::default(),
            Err(e) => return Err(file_error("read", &path)(e)),
        };
        if content.boot != boot {
            content.pods.clear();
            boot.clone_into(&mut content.boot);
        }
        Ok(Self { path, content })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Entry> {
        self.content.pods.get(id)
    }

    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.content.pods.keys().cloned().collect()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.content.pods.iter()
    }

    pub(crate) fn is_taken(&self, address: IpAddr) -> bool {
        self.content.pods.values().any(|entry| entry.addresses.contains(&address))
    }

    pub(crate) fn last(&self, is_v4: bool) -> Option<IpAddr> {
        self.content.last.iter().copied().find(|address| address.is_ipv4() == is_v4)
    }

    /// Sets or removes an entry; what is in memory follows the file.
    pub(crate) fn write(&mut self, id: &str, entry: Option<Entry>) -> Result<(), NetworkError> {
        let before = match entry {
            Some(entry) => {
                for address in &entry.addresses {
                    self.content.last.retain(|known| known.is_ipv4() != address.is_ipv4());
                    self.content.last.push(*address);
                }
                self.content.pods.insert(id.to_owned(), entry)
            }
            None => self.content.pods.remove(id),
        };
        let written = self.save();
        if written.is_err() {
            match before {
                Some(entry) => drop(self.content.pods.insert(id.to_owned(), entry)),
                None => drop(self.content.pods.remove(id)),
            }
        }
        written
    }

    fn save(&self) -> Result<(), NetworkError> {
        let text = serde_json::to_vec(&self.content)
            .map_err(std::io::Error::other)
            .map_err(file_error("write", &self.path))?;
        let beside = self.path.with_extension("new");
        fs::write(&beside, text).map_err(file_error("write", &beside))?;
        fs::rename(&beside, &self.path).map_err(file_error("rename to", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_outlive_the_process_and_a_damaged_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let mut book = Book::open(dir.path(), "b").unwrap();
        let subnets = Subnet::defaults();
        let entry = Entry { addresses: vec![address], pod: "a/b".into(), subnets, ..Entry::default() };
        book.write("x", Some(entry.clone())).unwrap();
        let mut again = Book::open(dir.path(), "b").unwrap();
        assert_eq!((again.get("x"), again.last(true), again.is_taken(address)), (Some(&entry), Some(address), true));
        again.write("x", None).unwrap();
        assert_eq!((again.get("x"), again.last(true), again.is_taken(address)), (None, Some(address), false));
        fs::write(dir.path().join("addresses.json"), "{").unwrap();
        assert!(Book::open(dir.path(), "b").unwrap().ids().is_empty());
    }

    #[test]
    fn nobody_has_an_address_after_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let mut book = Book::open(dir.path(), "b").unwrap();
        book.write("x", Some(Entry { addresses: vec![address], ..Entry::default() })).unwrap();
        let next = Book::open(dir.path(), "c").unwrap();
        assert_eq!((next.get("x"), next.is_taken(address), next.last(true)), (None, false, Some(address)));
    }
}
