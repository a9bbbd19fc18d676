//! Pulling an image: its documents, its layers side by side, unpacked in order as they arrive.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rubelet_proto::cri;
use tokio::sync::{OwnedMutexGuard, Semaphore, oneshot};
use tokio::task::JoinSet;

use super::auth::Credential;
use super::document::{
    CONFIG_MAX, Config, Descriptor, Document, INDEX_DEPTH_MAX, MANIFEST_MAX, Manifest, bounded, choose,
};
use super::download::Download;
use super::error::is_out_of_room;
use super::records::Record;
use super::reference::{Reference, Which};
use super::registry::Registry;
use super::wire::Wire;
use super::{ImageError, Images, Lease, PullError, Store};
use crate::digest::Digest;
use crate::snapshot::layers::NewLayer;

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of packed layers that are here.
    pub done_bytes: u64,
    /// Bytes of all packed layers that are needed.
    pub total_bytes: u64,
}

/// Is told how far a pull is, at each step. Must be quick.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// What to create containers from: the image's id.
    pub id: String,
    /// Name of the credential that was used, which does not reveal it; `None`: it was not needed or not given. For the
    /// record of who may use the image.
    pub credential: Option<Digest>,
    /// What to show.
    pub image: cri::Image,
}

impl Images {
    /// Brings an image here from its registry and unpacks it. Whoever pulls proves to the registry that they may, also if
    /// the image is here already.
    ///
    /// Dropping the future gives the pull up; what has arrived is used the next time.
    pub async fn pull(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        progress: Option<ProgressSink>,
    ) -> Result<Pulled, ImageError> {
        let reference =
            Reference::parse(image).map_err(|source| ImageError::Reference { text: image.to_owned(), source })?;
        let credential = Credential::of(auth, reference.domain())?;
        let credential_id = credential.id();
        let pull = Pull { store: self.store.clone(), lease: Lease::new(&self.store), reference: reference.clone() };
        let failed = |e| ImageError::Pull { reference: Box::new(reference.clone()), source: Box::new(e) };
        let done = pull.run(credential, progress).await;
        drop(pull);
        if let Err(error) = &done
            && is_out_of_room(error)
        {
            // What has arrived would fill the disk until the next try, which would fail for it.
            self.blocking(|store| store.collect_unused(Duration::ZERO)).await?;
        }
        let record = done.map_err(failed)?;
        let image = self.store.state().images.get(&record.id).unwrap_or(&record).to_cri();
        Ok(Pulled { id: record.id.to_string(), credential: credential_id, image })
    }
}

struct Pull {
    store: Arc<Store>,
    lease: Lease,
    reference: Reference,
}

/// An image's documents, before its layers.
struct Described {
    documents: Vec<Digest>,
    manifest: Manifest,
    config: Config,
    size: u64,
}

/// A layer that is missing, and when it has arrived.
struct Awaited {
    descriptor: Descriptor,
    diff_id: Digest,
    chain: Digest,
    arrival: oneshot::Receiver<Result<(), PullError>>,
}

impl Pull {
    async fn run(&self, credential: Credential, progress: Option<ProgressSink>) -> Result<Record, PullError> {
        let (hosts, domain) = (self.store.options.hosts.clone(), self.reference.domain().to_owned());
        let hosts = rubelet_host::task::blocking(move || hosts.of(&domain)).await;
        let hosts = hosts.map_err(|e| PullError::from(ImageError::panicked(e)))?.map_err(PullError::Hosts)?;
        let wire = Wire::new(self.store.options.patience, self.store.options.proxy.clone());
        let registry = Registry::new(wire, hosts, self.reference.clone(), credential, self.store.options.retry);
        let registry = Arc::new(registry);
        let resolve = |source| PullError::Resolve { reference: Box::new(self.reference.clone()), source };
        let target = registry.resolve().await.map_err(resolve)?;
        let described = self.describe(&registry, &target).await?;
        self.store.reached("pull.described");
        let chains = chains(&described.config);
        self.lease.add(chains.iter().copied().chain(described.manifest.layers.iter().map(|l| l.digest)));
        let fetched = self.layers(&registry, &described, &chains, progress).await;
        self.forget_packed(&described.manifest).await?;
        fetched?;
        self.store.reached("pull.forgotten");
        let record = Record {
            id: described.manifest.config.digest,
            tags: match self.reference.which() {
                Which::Tag(_) => vec![self.reference.to_string()],
                Which::Digest(_) => Vec::new(),
            },
            digests: vec![self.reference.at(target.digest).to_string()],
            size: described.size,
            user: described.config.config.user.clone(),
            documents: described.documents,
            chains,
            is_pinned: false,
        };
        let known = record.clone();
        self.blocking(move |store| store.register(known)).await?;
        Ok(record)
    }

    /// Index, manifest and configuration, from the store where they are there.
    async fn describe(&self, registry: &Registry, target: &Descriptor) -> Result<Described, PullError> {
        let mut documents = Vec::new();
        let mut size = 0;
        let mut next = target.clone();
        let manifest = loop {
            if documents.len() > INDEX_DEPTH_MAX {
                return Err(PullError::Document(super::document::DocumentError::TooDeep));
            }
            self.lease.add([next.digest]);
            bounded("manifest", &next, MANIFEST_MAX).map_err(PullError::Document)?;
            let (bytes, media_type) = match self.stored(next.digest, MANIFEST_MAX).await? {
                Some(bytes) => (bytes, next.media_type.clone()),
                None => {
                    let (bytes, media_type) = registry.manifest(&next).await.map_err(PullError::Copy)?;
                    self.keep(bytes.clone()).await?;
                    (bytes, if next.media_type.is_empty() { media_type } else { next.media_type.clone() })
                }
            };
            documents.push(next.digest);
            let parsed = Document::parse(&bytes, next.digest, &media_type).map_err(PullError::Document)?;
            match parsed {
                Document::Manifest(manifest) => {
                    size += bytes.len() as u64;
                    break manifest;
                }
                Document::Index(manifests) => {
                    next = choose(&manifests, &self.store.options.platform).map_err(PullError::Document)?.clone();
                }
            }
        };
        let wanted = &manifest.config;
        self.lease.add([wanted.digest]);
        let bytes = match self.stored(wanted.digest, CONFIG_MAX).await? {
            Some(bytes) => bytes,
            None => {
                let bytes = registry.small_blob(wanted, CONFIG_MAX).await.map_err(PullError::Copy)?;
                self.keep(bytes.clone()).await?;
                bytes
            }
        };
        let config = Config::parse(&bytes, wanted.digest).map_err(PullError::Document)?;
        config.check(manifest.layers.len(), &self.store.options.platform).map_err(PullError::Document)?;
        size += bytes.len() as u64 + manifest.layers.iter().map(|l| l.size).sum::<u64>();
        Ok(Described { documents, manifest, config, size })
    }

    /// Fetches the layers that are missing, a few at a time, and unpacks them from the bottom on.
    async fn layers(
        &self,
        registry: &Arc<Registry>,
        described: &Described,
        chains: &[Digest],
        progress: Option<ProgressSink>,
    ) -> Result<(), PullError> {
        let present = {
            let state = self.store.state();
            chains.iter().take_while(|c| state.layers.contains_key(c)).count()
        };
        let missing: Vec<&Descriptor> = described.manifest.layers.iter().skip(present).collect();
        let total_bytes = missing.iter().map(|l| l.size).sum();
        let done = Arc::new(AtomicU64::new(0));
        let slots = Arc::new(Semaphore::new(self.store.options.parallel_downloads.max(1)));
        // Dropped with this future: then the downloads end.
        let mut downloads = JoinSet::new();
        let mut awaited = Vec::new();
        for (at, descriptor) in missing.into_iter().enumerate() {
            let (arrived, arrival) = oneshot::channel();
            let download =
                Download { store: self.store.clone(), registry: registry.clone(), wanted: descriptor.clone() };
            let (slots, done, progress) = (slots.clone(), done.clone(), progress.clone());
            downloads.spawn(async move {
                // The semaphore is never closed.
                let _slot = slots.acquire_owned().await;
                let tell = |bytes| {
                    let done_bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    if let Some(sink) = &progress {
                        sink(Progress { done_bytes, total_bytes });
                    }
                };
                // Nobody waits if another layer has failed.
                let _ = arrived.send(download.run(tell).await);
            });
            let at = present + at;
            let diff_id = described.config.rootfs.diff_ids[at];
            awaited.push(Awaited { descriptor: descriptor.clone(), diff_id, chain: chains[at], arrival });
        }
        self.unpack(awaited, &chains[..present]).await
    }

    /// Unpacks layers in order. What is unpacked is made known before waiting for the network, so that others who need it
    /// do not wait as well; syncing once for several layers saves time.
    async fn unpack(&self, awaited: Vec<Awaited>, below: &[Digest]) -> Result<(), PullError> {
        let mut lower: Vec<PathBuf> = below.iter().rev().map(|c| self.store.layers.root(*c)).collect();
        let mut batch: Vec<(NewLayer, OwnedMutexGuard<()>)> = Vec::new();
        for mut layer in awaited {
            let arrived = match layer.arrival.try_recv() {
                Ok(arrived) => arrived,
                Err(_) => {
                    self.publish(std::mem::take(&mut batch), &mut lower).await?;
                    let ended = |_| PullError::from(ImageError::Panicked("a download has ended early".to_owned()));
                    layer.arrival.await.map_err(ended)?
                }
            };
            arrived?;
            let guard = self.store.layer_locks.lock(layer.chain).await;
            if self.store.state().layers.contains_key(&layer.chain) {
                lower.insert(0, self.store.layers.root(layer.chain));
                continue;
            }
            let blob = self.store.blobs.path(layer.descriptor.digest);
            let (store, stack, chain, diff_id) = (self.store.clone(), lower.clone(), layer.chain, layer.diff_id);
            let work = move || store.layers.unpack(&blob, chain, diff_id, &stack);
            let new = rubelet_host::task::blocking(work).await.map_err(|e| PullError::from(ImageError::panicked(e)))?;
            let new = new.map_err(|source| PullError::Extract { diff_id, source })?;
            self.store.reached("pull.unpacked");
            lower.insert(0, new.root());
            batch.push((new, guard));
        }
        self.publish(batch, &mut lower).await
    }

    /// Makes unpacked layers known; their directories get other paths by it.
    async fn publish(
        &self,
        batch: Vec<(NewLayer, OwnedMutexGuard<()>)>,
        lower: &mut [PathBuf],
    ) -> Result<(), PullError> {
        for (new, _) in &batch {
            let old = new.root();
            lower.iter_mut().filter(|dir| **dir == old).for_each(|dir| *dir = self.store.layers.root(new.layer.chain));
        }
        let (layers, guards): (Vec<NewLayer>, Vec<_>) = batch.into_iter().unzip();
        if layers.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        let work = move || {
            // In the closure, so that nobody begins the same layers while they are being published.
            let _guards = guards;
            let published = store.layers.publish(layers)?;
            store.reached("pull.published");
            store.state().layers.extend(published.into_iter().map(|l| (l.chain, l)));
            Ok(())
        };
        let done = rubelet_host::task::blocking(work).await;
        done.map_err(|e| PullError::from(ImageError::panicked(e)))?.map_err(PullError::Commit)
    }

    /// Removes packed layers that nobody else is about to unpack.
    async fn forget_packed(&self, manifest: &Manifest) -> Result<(), PullError> {
        let packed: Vec<Digest> = manifest.layers.iter().map(|l| l.digest).collect();
        let own = self.lease.id;
        self.blocking(move |store| {
            let state = store.state();
            for digest in packed {
                if !state.leases.iter().any(|(lease, held)| *lease != own && held.contains(&digest)) {
                    store.blobs.remove(digest)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn stored(&self, digest: Digest, max: u64) -> Result<Option<Vec<u8>>, PullError> {
        self.blocking(move |store| Ok(store.blobs.read_small(digest, max))).await
    }

    async fn keep(&self, content: Vec<u8>) -> Result<(), PullError> {
        self.blocking(move |store| Ok(store.blobs.put(&content).map(drop)?)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, PullError> {
        Images { store: self.store.clone() }.blocking(work).await.map_err(PullError::from)
    }
}

/// The name of each stack of a configuration's layers, from the bottom.
pub(super) fn chains(config: &Config) -> Vec<Digest> {
    let mut below = None;
    let mut chains = Vec::new();
    for diff_id in &config.rootfs.diff_ids {
        let chain = Digest::chain(below.as_ref(), diff_id);
        chains.push(chain);
        below = Some(chain);
    }
    chains
}
