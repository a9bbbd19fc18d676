//! All directories and names that decide what the static pod path shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rubelet_api::gather::Gather;
use rubelet_host::watch::{Chain, chain};

/// The way to the path itself and to everything in it that is a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    root: Chain,
    /// The directory of manifests, by its real path; `None` when the path is a file or missing.
    dir: Option<PathBuf>,
    /// Where each entry is configured, for those in the directory.
    configured: PathBuf,
    links: BTreeMap<PathBuf, Chain>,
}

impl Routes {
    /// Follows `path` and the links among `entries` (full paths).
    pub(super) fn new(path: &Path, entries: &[PathBuf]) -> Self {
        let root = chain(path);
        let dir = root.end.clone().filter(|end| end.is_dir());
        let is_link = |p: &PathBuf| std::fs::symlink_metadata(p).is_ok_and(|m| m.file_type().is_symlink());
        let links = match dir {
            Some(_) => entries.iter().filter(|e| is_link(e)).map(|e| (e.clone(), chain(e))).into_map(),
            None => BTreeMap::new(),
        };
        Self { root, dir, configured: path.to_owned(), links }
    }

    pub(super) fn dirs(&self) -> BTreeSet<PathBuf> {
        let chains = std::iter::once(&self.root).chain(self.links.values());
        chains.flat_map(|c| c.names.keys().cloned()).chain(self.dir.clone()).collect()
    }

    /// Whether a change of this name may change what is read.
    pub(super) fn concerns(&self, dir: &Path, name: &OsStr) -> bool {
        let is_entry = self.dir.as_deref() == Some(dir) && !name.as_encoded_bytes().starts_with(b".");
        is_entry || self.root.concerns(dir, name) || self.links.values().any(|c| c.concerns(dir, name))
    }

    /// The entry of the directory that has this name, itself and no target of a link.
    pub(super) fn entry(&self, dir: &Path, name: &OsStr) -> Option<PathBuf> {
        (self.dir.as_deref() == Some(dir)).then(|| self.configured.join(name))
    }

    /// The entries that a file's real path is read through.
    pub(super) fn entries_of(&self, real: &Path) -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            self.links.iter().filter(|(_, c)| c.end.as_deref() == Some(real)).map(|(e, _)| e.clone()).collect();
        if self.root.end.as_deref() == Some(real) {
            entries.push(self.configured.clone());
        }
        if let (Some(dir), Some(name)) = (&self.dir, real.file_name())
            && real.parent() == Some(dir)
        {
            entries.push(self.configured.join(name));
        }
        entries
    }
}
