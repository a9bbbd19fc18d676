//! Images: from a name to a file system.
//!
//! A store is a directory: `blobs` (manifests and configurations), `ingest` (what is on its way), `layers` (unpacked, shared),
//! `images` (one record each), `containers` (what each container changed). Everything is written beside its place, synced
//! and renamed there, the record last: after a power failure an image is there wholly or not at all. Packed layers are
//! not kept once they are unpacked.
//!
//! Nothing is removed that an image, a container or a pull under way needs: all three are looked at under one lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rubelet_proto::cri;

use crate::digest::Digest;
use crate::snapshot::extract::{Limits, Rules};
use crate::snapshot::layers::{Layer, Layers};
use crate::snapshot::rootfs::{Claim, RootFs, Stacks};

pub(crate) mod auth;
pub(crate) mod blobs;
mod collect;
mod dial;
pub mod document;
mod download;
mod error;
pub mod hosts;
mod import;
mod pull;
pub(crate) mod records;
pub mod reference;
pub mod registry;
pub(crate) mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

pub use auth::CredentialError;
pub use blobs::StoreError;
pub use collect::Collected;
pub use dial::Proxy;
pub use error::{ImageError, PullError};
pub use import::ImportError;
pub use pull::{Progress, ProgressSink, Pulled};

use blobs::{Blobs, file_error};
use document::{CONFIG_MAX, Config, Platform};
use hosts::HostsConfig;
use records::{Record, Records};
use reference::Reference;
use registry::Retry;
use wire::Patience;

/// How a store works.
#[derive(Clone, Debug)]
pub struct Options {
    pub hosts: HostsConfig,
    /// What images must run on.
    pub platform: Platform,
    pub limits: Limits,
    /// Layers of one image that are fetched at the same time. containerd: 3.
    pub parallel_downloads: usize,
    pub retry: Retry,
    pub patience: Patience,
    /// Nothing is read from the environment.
    pub proxy: Proxy,
    /// Called with the name of each point at which a process that is killed leaves something half done. For tests.
    pub fault: Option<fn(&'static str)>,
}

impl Default for Options {
    /// This machine, containerd's figures, no configuration of registries.
    fn default() -> Self {
        Self {
            hosts: HostsConfig::default(),
            platform: Platform::of_this_machine(),
            limits: Limits::default(),
            parallel_downloads: 3,
            retry: Retry::default(),
            patience: Patience::default(),
            proxy: Proxy::default(),
            fault: None,
        }
    }
}

/// The images of a node. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Images {
    store: Arc<Store>,
}

pub(crate) struct Store {
    root: PathBuf,
    options: Options,
    blobs: Blobs,
    layers: Layers,
    records: Records,
    stacks: Stacks,
    /// Held by who changes images or containers, which takes the disk's time. `state` is held for moments only, except by
    /// who collects; so looking at images never waits for the disk. Taken before `state`.
    changes: Mutex<()>,
    state: Mutex<State>,
    blob_locks: Locks,
    layer_locks: Locks,
    /// A pull or an import has ended, well or not.
    ended: Arc<tokio::sync::Notify>,
    /// Locked as long as the store is open: two processes would remove each other's layers.
    _lock: File,
}

/// What is known. Files are written before it changes.
#[derive(Default)]
struct State {
    images: BTreeMap<Digest, Record>,
    layers: BTreeMap<Digest, Layer>,
    claims: BTreeMap<String, Claim>,
    /// Content and layers that pulls under way count on.
    leases: HashMap<u64, HashSet<Digest>>,
    last_lease: u64,
}

impl Images {
    /// Opens the store at `root`, making it if there is none. What earlier processes left unfinished is removed, downloads
    /// excepted. Blocks.
    pub fn open(root: &Path, options: Options) -> Result<Self, ImageError> {
        fs::create_dir_all(root).map_err(file_error("create", root))?;
        let root = fs::canonicalize(root).map_err(file_error("resolve", root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(file_error("create", &path))?;
        lock.try_lock().map_err(|e| ImageError::Locked { root: root.clone(), reason: e.to_string() })?;
        let rules = Rules { limits: options.limits, is_privileged: rustix::process::geteuid().is_root() };
        let blobs = Blobs::open(&root)?;
        let (layers, known) = Layers::open(&root, rules)?;
        let (records, images) = Records::open(&root)?;
        let (stacks, claims) = Stacks::open(&root, rules.is_privileged)?;
        let mut state = State { images, layers: known, claims, ..State::default() };
        // A layer that was lost takes its images along: they are pulled again.
        let State { images, layers: present, .. } = &mut state;
        images.retain(|_, image| {
            let is_whole = image.chains.iter().all(|c| present.contains_key(c)) && image.blobs().all(|b| blobs.has(b));
            if !is_whole {
                tracing::warn!("image {} is incomplete on disk and has to be pulled again", image.id);
            }
            is_whole
        });
        let store = Store {
            root,
            options,
            blobs,
            layers,
            records,
            stacks,
            changes: Mutex::new(()),
            state: Mutex::new(state),
            blob_locks: Locks::default(),
            layer_locks: Locks::default(),
            ended: Arc::default(),
            _lock: lock,
        };
        Ok(Self { store: Arc::new(store) })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.store.root
    }

    /// All images, or those that `filter` names.
    pub fn list(&self, filter: Option<&cri::ImageFilter>) -> Vec<cri::Image> {
        let state = self.store.state();
        let wanted = filter.and_then(|f| f.image.as_ref()).map(|i| i.image.as_str()).filter(|i| !i.is_empty());
        match wanted {
            Some(image) => state.find(image).map(Record::to_cri).into_iter().collect(),
            None => state.images.values().map(Record::to_cri).collect(),
        }
    }

    /// The image of a name, a digest, an id or the beginning of one.
    pub fn status(&self, image: &str) -> Option<cri::Image> {
        self.store.state().find(image).map(Record::to_cri)
    }

    /// CRI's answer for an image. `is_verbose`: with its layers' chain and its configuration, as containerd tells them.
    pub async fn image_status(&self, image: &str, is_verbose: bool) -> Result<cri::ImageStatusResponse, ImageError> {
        let mut answer = cri::ImageStatusResponse { image: self.status(image), info: BTreeMap::new() };
        if is_verbose && answer.image.is_some() {
            let chain = self.store.state().find(image).and_then(|r| r.chains.last().copied());
            let told = serde_json::json!({ "chainID": chain, "imageSpec": self.config(image).await? });
            answer.info.insert("info".to_owned(), told.to_string());
        }
        Ok(answer)
    }

    /// What containers of the image run unless they are told otherwise.
    pub async fn config(&self, image: &str) -> Result<Config, ImageError> {
        let image = image.to_owned();
        self.blocking(move |store| store.config(&image)).await
    }

    /// As [`config`](Self::config), for who may block.
    pub(crate) fn config_now(&self, image: &str) -> Result<Config, ImageError> {
        self.store.config(image)
    }

    /// Removes an image with all its names; one that is not there is no error. What containers use of it stays as long as
    /// they are there.
    pub async fn remove(&self, image: &str) -> Result<Collected, ImageError> {
        let image = image.to_owned();
        self.blocking(move |store| {
            let changing = store.change();
            let Some(id) = store.state().find(&image).map(|r| r.id) else { return Ok(Collected::default()) };
            store.records.remove(id)?;
            store.reached("remove.unrecorded");
            store.state().images.remove(&id);
            drop(changing);
            store.collect_unused(collect::INGEST_AGE)
        })
        .await
    }

    /// Sets whether an image is to be left alone by those who collect images.
    pub async fn pin(&self, image: &str, is_pinned: bool) -> Result<(), ImageError> {
        let image = image.to_owned();
        self.blocking(move |store| {
            let _changing = store.change();
            let mut record = store.state().find(&image).ok_or_else(|| ImageError::missing(&image))?.clone();
            record.is_pinned = is_pinned;
            store.records.write(&record)?;
            store.state().images.insert(record.id, record);
            Ok(())
        })
        .await
    }

    /// Makes the file system of a container: what it changes goes into a directory of its own. Mount it with
    /// [`RootFs::attach`]. The image's layers stay until [`release`](Self::release), even if the image is removed.
    pub async fn prepare(&self, container: &str, image: &str) -> Result<RootFs, ImageError> {
        self.claim(container, image, false).await
    }

    /// Makes a read-only view of an image, for a volume. `name` is among those of containers.
    pub async fn view(&self, name: &str, image: &str) -> Result<RootFs, ImageError> {
        self.claim(name, image, true).await
    }

    async fn claim(&self, name: &str, image: &str, is_view: bool) -> Result<RootFs, ImageError> {
        let (name, image) = (name.to_owned(), image.to_owned());
        self.blocking(move |store| store.claim(name, &image, is_view)).await
    }

    /// As [`prepare`](Self::prepare), for who may block.
    pub(crate) fn prepare_now(&self, container: &str, image: &str) -> Result<RootFs, ImageError> {
        self.store.claim(container.to_owned(), image, false)
    }

    /// As [`view`](Self::view), for who may block.
    pub(crate) fn view_now(&self, name: &str, image: &str) -> Result<RootFs, ImageError> {
        self.store.claim(name.to_owned(), image, true)
    }

    /// The file system made for `container` earlier, e.g. before a restart.
    pub fn rootfs(&self, container: &str) -> Option<RootFs> {
        let state = self.store.state();
        state.claims.get(container).map(|claim| self.store.stacks.of(claim, &self.store.layers))
    }

    /// Names of all containers and views.
    pub fn claimed(&self) -> Vec<String> {
        self.store.state().claims.keys().cloned().collect()
    }

    /// Removes what a container changed, or a view. Unmount it before. What is not there is no error.
    pub async fn release(&self, container: &str) -> Result<(), ImageError> {
        let name = container.to_owned();
        self.blocking(move |store| store.release(&name)).await
    }

    /// As [`release`](Self::release), for who may block.
    pub(crate) fn release_now(&self, container: &str) -> Result<(), ImageError> {
        self.store.release(container)
    }

    /// Room that a container's changes take; `None` if it is unknown.
    pub async fn usage(&self, container: &str) -> Result<Option<crate::snapshot::usage::Usage>, ImageError> {
        let Some(rootfs) = self.rootfs(container) else { return Ok(None) };
        self.blocking(move |_| Ok(Some(rootfs.usage()?))).await
    }

    /// Runs blocking work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let store = self.store.clone();
        rubelet_host::task::blocking(move || work(&store)).await.map_err(ImageError::panicked)?
    }
}

impl Store {
    /// A point at which a kill leaves something half done.
    fn reached(&self, point: &'static str) {
        if let Some(fault) = self.options.fault {
            fault(point);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Files are written before the state changes, so that it is right also if somebody panicked meanwhile.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, image: &str) -> Result<Config, ImageError> {
        let id = self.state().find(image).ok_or_else(|| ImageError::missing(image))?.id;
        let bytes = self.blobs.read_small(id, CONFIG_MAX).ok_or_else(|| ImageError::missing(&id.to_string()))?;
        Ok(Config::parse(&bytes, id)?)
    }

    fn claim(&self, name: String, image: &str, is_view: bool) -> Result<RootFs, ImageError> {
        let _changing = self.change();
        let record = self.state().find(image).ok_or_else(|| ImageError::missing(image))?.clone();
        let claim = Claim { name: name.clone(), image: record.id, chains: record.chains, is_view };
        let rootfs = self.stacks.make(&claim, &self.layers)?;
        self.records.touch(claim.image, std::time::SystemTime::now());
        self.state().claims.insert(name, claim);
        Ok(rootfs)
    }

    fn release(&self, name: &str) -> Result<(), ImageError> {
        let _changing = self.change();
        if !self.state().claims.contains_key(name) {
            return Ok(());
        }
        // The files go in the background.
        drop(self.stacks.remove(name)?);
        self.state().claims.remove(name);
        Ok(())
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an image known under its names, which others lose.
    fn register(&self, mut record: Record) -> Result<(), ImageError> {
        let _changing = self.change();
        if let Some(old) = self.state().images.get(&record.id) {
            let add = |to: &mut Vec<String>, from: &[String]| {
                to.extend(from.iter().filter(|n| !to.contains(n)).cloned().collect::<Vec<_>>());
            };
            add(&mut record.tags, &old.tags);
            add(&mut record.digests, &old.digests);
            add_digests(&mut record.documents, &old.documents);
            record.is_pinned |= old.is_pinned;
        }
        for names in [&mut record.tags, &mut record.digests] {
            names.sort();
            names.dedup();
        }
        self.records.write(&record)?;
        self.reached("image.recorded");
        let losers: Vec<Record> = self
            .state()
            .images
            .values()
            .filter(|i| i.id != record.id && i.tags.iter().any(|t| record.tags.contains(t)))
            .cloned()
            .collect();
        for mut loser in losers {
            loser.tags.retain(|t| !record.tags.contains(t));
            self.records.write(&loser)?;
            self.state().images.insert(loser.id, loser);
        }
        self.state().images.insert(record.id, record);
        Ok(())
    }
}

fn add_digests(to: &mut Vec<Digest>, from: &[Digest]) {
    to.extend(from.iter().filter(|d| !to.contains(d)).copied().collect::<Vec<_>>());
}

/// Digits of an id's beginning that are taken for it.
const PREFIX_MIN: usize = 7;

impl State {
    fn find(&self, image: &str) -> Option<&Record> {
        if let Ok(id) = image.parse::<Digest>().or_else(|_| Digest::from_hex(image)) {
            return self.images.get(&id);
        }
        if let Ok(reference) = Reference::parse(image) {
            let name = reference.to_string();
            let is_imported = |i: &Record| {
                let by_document =
                    |tag: &str, document| Reference::parse(tag).is_ok_and(|t| t.at(document).to_string() == name);
                name.contains('@') && i.documents.iter().any(|d| i.tags.iter().any(|tag| by_document(tag, *d)))
            };
            let has_name = |i: &&Record| i.tags.contains(&name) || i.digests.contains(&name) || is_imported(i);
            let found = self.images.values().find(has_name);
            if found.is_some() {
                return found;
            }
        }
        let digits = image.strip_prefix("sha256:").unwrap_or(image);
        let mut matching = self.images.values().filter(|i| i.id.hex().starts_with(digits));
        match (matching.next(), matching.next()) {
            (Some(one), None) if digits.len() >= PREFIX_MIN => Some(one),
            (_, _) => None,
        }
    }
}

/// One lock for each digest that is being worked on.
#[derive(Default)]
struct Locks(Mutex<HashMap<Digest, std::sync::Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    fn of(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(&digest).and_then(std::sync::Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(digest, Arc::downgrade(&lock));
        lock
    }

    async fn lock(&self, digest: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.of(digest).lock_owned().await
    }

    /// For where it is allowed to block.
    fn lock_blocking(&self, digest: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.of(digest).blocking_lock_owned()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Who tidies up later has nothing to wait for any more.
        self.ended.notify_one();
    }
}

/// Keeps content and layers from being collected while a pull counts on them.
struct Lease {
    store: Arc<Store>,
    id: u64,
}

impl Lease {
    fn new(store: &Arc<Store>) -> Self {
        let mut state = store.state();
        state.last_lease += 1;
        let id = state.last_lease;
        state.leases.insert(id, HashSet::new());
        Self { store: store.clone(), id }
    }

    fn add(&self, digests: impl IntoIterator<Item = Digest>) {
        self.store.state().leases.entry(self.id).or_default().extend(digests);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.state().leases.remove(&self.id);
        self.store.ended.notify_one();
    }
}
