//! The file system of a container: an image's layers, and above them a directory for its changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rubelet_host::mount::{self, MountError, Overlay, Upper};
use serde::{Deserialize, Serialize};

use super::layers::Layers;
use super::usage::{self, Usage};
use crate::digest::Digest;
use crate::scratch::{self, ScratchDir};

const RECORD: &str = "container.json";
const CHANGES: &str = "fs";
const WORK: &str = "work";
/// Letters of a container's name at most.
const NAME_MAX: usize = 200;

/// Why a container's file system cannot be made or mounted.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("container name {name:?} is not made of letters, digits, dots, dashes and underscores")]
    Name { name: String },
    #[error("container {name:?} has a file system already")]
    Exists { name: String },
    #[error(transparent)]
    Mount(#[from] MountError),
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootFsError + use<> {
    let path = path.to_owned();
    move |source| RootFsError::File { what, path, source }
}

/// That a container (or a view) needs an image's layers.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) image: Digest,
    /// From the bottom.
    pub(crate) chains: Vec<Digest>,
    /// Read-only, without a directory for changes.
    pub(crate) is_view: bool,
}

/// Containers' directories: `containers/NAME`. All functions block.
#[derive(Clone, Debug)]
pub(crate) struct Stacks {
    root: PathBuf,
    is_privileged: bool,
}

/// What a container's file system consists of. Not mounted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFs {
    /// Directories that are only read, the topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory that takes the changes, and overlayfs's own; `None`: read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
    base: PathBuf,
    is_privileged: bool,
}

/// The users that a container has for its own.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a> {
    /// The user namespace.
    pub namespace: &'a fs::File,
    /// Who on the host is its root.
    pub first_uid: u32,
    pub first_gid: u32,
}

impl RootFs {
    /// Mounts it on `target`, in the mount namespace of the calling thread. Blocks.
    pub fn attach(&self, target: &Path) -> Result<(), RootFsError> {
        let upper = self.upper.as_ref().map(|(dir, work)| Upper { dir, work });
        let overlay = Overlay { lower: &self.lower, upper, user_xattr: !self.is_privileged };
        Ok(mount::overlay(target, &self.base, &overlay)?)
    }

    /// The same for a container with users of its own: to its root belongs what is the image's root's. `places` is a directory for the
    /// time of the call. Overlayfs itself cannot be mapped, its layers can. Blocks.
    pub fn attach_mapped(&self, target: &Path, users: &Users<'_>, places: &Path) -> Result<(), RootFsError> {
        fs::create_dir_all(places).map_err(file_error("create", places))?;
        let mapped = self.stack_mapped(target, users, places);
        // The overlay has mounts of its own of all this.
        for at in 0..self.lower.len() {
            let place = places.join(at.to_string());
            if place.exists() {
                mount::unmount(&place, mount::Unmount::Lazy)?;
                fs::remove_dir(&place).map_err(file_error("remove", &place))?;
            }
        }
        fs::remove_dir(places).map_err(file_error("remove", places))?;
        mapped
    }

    fn stack_mapped(&self, target: &Path, users: &Users<'_>, places: &Path) -> Result<(), RootFsError> {
        let mut lower = Vec::with_capacity(self.lower.len());
        for (at, dir) in self.lower.iter().enumerate() {
            let place = places.join(at.to_string());
            fs::create_dir(&place).map_err(file_error("create", &place))?;
            mount::bind_mapped(dir, &place, users.namespace)?;
            lower.push(place);
        }
        if let Some((changes, _)) = &self.upper {
            let stat = fs::metadata(&self.lower[0]).map_err(file_error("look at", &self.lower[0]))?;
            let owner = (users.first_uid.saturating_add(stat.uid()), users.first_gid.saturating_add(stat.gid()));
            chown(changes, Some(owner.0), Some(owner.1)).map_err(file_error("change the owner of", changes))?;
        }
        Self { lower, ..self.clone() }.attach(target)
    }

    /// Room that the changes take. Blocks.
    pub fn usage(&self) -> Result<Usage, RootFsError> {
        match &self.upper {
            Some((dir, _)) => usage::of_tree(dir).map_err(file_error("look through", dir)),
            None => Ok(Usage::default()),
        }
    }
}

impl Stacks {
    /// Opens the directory of containers and reads who claims what.
    pub(crate) fn open(root: &Path, is_privileged: bool) -> Result<(Self, BTreeMap<String, Claim>), RootFsError> {
        let stacks = Self { root: root.to_owned(), is_privileged };
        let dir = stacks.dir();
        fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
        scratch::sweep(&dir).map_err(file_error("tidy", &dir))?;
        let mut claims = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(file_error("read", &dir))? {
            let path = entry.map_err(file_error("read", &dir))?.path();
            let record = path.join(RECORD);
            match fs::read(&record).ok().and_then(|text| serde_json::from_slice::<Claim>(&text).ok()) {
                Some(claim) if path.file_name().is_some_and(|n| n == claim.name.as_str()) => {
                    claims.insert(claim.name.clone(), claim);
                }
                // Changes of a container are nobody's to delete but its owner's; without its layers it can't be used.
                Some(_) | None => tracing::warn!("the record of a container is damaged: {}", record.display()),
            }
        }
        Ok((stacks, claims))
    }

    fn dir(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Makes the directories of a claim and its record.
    pub(crate) fn make(&self, claim: &Claim, layers: &Layers) -> Result<RootFs, RootFsError> {
        check(&claim.name)?;
        let place = self.dir().join(&claim.name);
        if place.exists() {
            return Err(RootFsError::Exists { name: claim.name.clone() });
        }
        let new = ScratchDir::new(&self.dir(), "new").map_err(file_error("create a directory in", &self.dir()))?;
        let rootfs = self.of(claim, layers);
        if !claim.is_view {
            for name in [CHANGES, WORK] {
                let dir = new.path().join(name);
                fs::create_dir(&dir).map_err(file_error("create", &dir))?;
            }
            self.take_after(&new.path().join(CHANGES), &rootfs.lower[0])?;
        }
        let record = new.path().join(RECORD);
        let text = serde_json::to_vec(claim).map_err(io::Error::other).map_err(file_error("write", &record))?;
        rubelet_host::paths::write_atomic(&record, &text, 0o600)
            .map_err(|e| file_error("write", &record)(io::Error::other(rubelet_host::chain(&e))))?;
        new.keep_as(&place).map_err(file_error("move to", &place))?;
        let dir = self.dir();
        fs::File::open(&dir).and_then(|d| d.sync_all()).map_err(file_error("sync", &dir))?;
        Ok(rootfs)
    }

    /// The root directory that containers see is the upper one: it gets the image's mode and owner.
    fn take_after(&self, dir: &Path, image: &Path) -> Result<(), RootFsError> {
        let stat = fs::metadata(image).map_err(file_error("look at", image))?;
        if self.is_privileged {
            chown(dir, Some(stat.uid()), Some(stat.gid())).map_err(file_error("change the owner of", dir))?;
        }
        let mode = fs::Permissions::from_mode(stat.mode() & 0o7777);
        fs::set_permissions(dir, mode).map_err(file_error("change the mode of", dir))
    }

    /// What a claim consists of.
    pub(crate) fn of(&self, claim: &Claim, layers: &Layers) -> RootFs {
        let mut lower: Vec<PathBuf> = claim.chains.iter().rev().map(|c| layers.root(*c)).collect();
        // Overlayfs wants one layer, and two if there is no directory for changes.
        while lower.len() < 1 + usize::from(claim.is_view) {
            lower.push(if lower.is_empty() { layers.empty() } else { layers.bottom() });
        }
        let place = self.dir().join(&claim.name);
        let upper = (!claim.is_view).then(|| (place.join(CHANGES), place.join(WORK)));
        RootFs { lower, upper, base: self.root.clone(), is_privileged: self.is_privileged }
    }

    /// Takes a container's directory away at once; its files go when the answer is dropped.
    pub(crate) fn remove(&self, name: &str) -> Result<ScratchDir, RootFsError> {
        check(name)?;
        let place = self.dir().join(name);
        ScratchDir::of_unwanted(&place, &self.dir()).map_err(file_error("remove", &place))
    }
}

/// A name becomes a directory's.
fn check(name: &str) -> Result<(), RootFsError> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || !name.bytes().all(is_fine) {
        return Err(RootFsError::Name { name: name.to_owned() });
    }
    Ok(())
}
