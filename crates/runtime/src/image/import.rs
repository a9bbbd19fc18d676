//! Images from archives: OCI layouts and what `docker save` writes, plain or packed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::blobs::{StoreError, file_error};
use super::document::{CONFIG_MAX, Config, Descriptor, Document, DocumentError, INDEX_DEPTH_MAX, MANIFEST_MAX, choose};
use super::error::is_out_of_room;
use super::pull::chains;
use super::records::Record;
use super::reference::{Reference, ReferenceError};
use super::{ImageError, Images, Lease, Store};
use crate::digest::{Digest, Meter};
use crate::snapshot::LayerError;
use crate::snapshot::archive::{Archive, Kind};
use crate::snapshot::compression::unpacked;

/// Files of one archive at most.
const FILES_MAX: usize = 20_000;
/// Links in an archive that lead to links, and so on.
const LINKS_MAX: usize = 8;
/// Name of an image in an OCI layout, as containerd's tools write it; and as the specification has it.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Why an archive cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("read the archive")]
    Read(#[source] io::Error),
    #[error("the archive has more than {FILES_MAX} files")]
    TooManyFiles,
    #[error("neither index.json nor manifest.json is in the archive")]
    NoImages,
    #[error("{name} is not in the archive")]
    Missing { name: String },
    #[error("{name} has not the content that its digest names")]
    Wrong { name: String },
    #[error("parse {name}")]
    Parse { name: String, source: serde_json::Error },
    #[error("image name {name:?}")]
    Name { name: String, source: ReferenceError },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("extract layer {diff_id}")]
    Extract { diff_id: Digest, source: LayerError },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", rubelet_host::chain(&**.0))]
    Other(#[source] Box<ImageError>),
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// The files of an archive, unpacked beside the store.
struct Unpacked {
    files: BTreeMap<String, Taken>,
    links: BTreeMap<String, String>,
}

/// A file of the archive.
#[derive(Clone)]
struct Taken {
    path: PathBuf,
    digest: Digest,
    bytes: u64,
}

/// An image that was found in an archive.
struct Found {
    documents: Vec<Taken>,
    config: Taken,
    layers: Vec<Taken>,
    names: Vec<String>,
}

impl Images {
    /// Imports all images of an archive for this platform, `docker save` or OCI layout, plain, gzip or zstd. Answers what
    /// they are. `is_pinned`: they are to be left alone by those who collect images. Blocks for long; call it where that
    /// is allowed.
    pub fn import(
        &self,
        from: impl Read,
        what: &str,
        is_pinned: bool,
    ) -> Result<Vec<rubelet_proto::cri::Image>, ImageError> {
        self.import_all(from, is_pinned).or_else(|error| {
            if is_out_of_room(&error) {
                self.store.collect_unused(Duration::ZERO)?;
            }
            Err(ImageError::Import { from: what.to_owned(), source: Box::new(error) })
        })
    }

    fn import_all(&self, from: impl Read, is_pinned: bool) -> Result<Vec<rubelet_proto::cri::Image>, ImportError> {
        let dir = self.store.blobs.import_dir()?;
        let done = self.import_through(dir.path(), from, is_pinned);
        // Before the answer: who imports from a command line ends with it.
        dir.remove();
        done
    }

    /// Imports by way of an empty directory.
    fn import_through(
        &self,
        dir: &Path,
        from: impl Read,
        is_pinned: bool,
    ) -> Result<Vec<rubelet_proto::cri::Image>, ImportError> {
        let archive = Unpacked::read(&self.store, dir, from)?;
        self.store.reached("import.read");
        let mut images = Vec::new();
        let found = archive.images(&self.store)?;
        let mut uses: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for layer in found.iter().flat_map(|image| &image.layers) {
            *uses.entry(layer.path.clone()).or_default() += 1;
        }
        for image in found {
            let id = self.store.take_in(&image, is_pinned, &mut uses)?;
            images.extend(self.store.state().images.get(&id).map(Record::to_cri));
        }
        Ok(images)
    }

    /// Imports every archive (`.tar`, `.tar.gz`, `.tgz`, `.tar.zst`) in a directory, and pins its images. One that fails
    /// does not keep the others from it: it is in the answer's second part. Blocks for long.
    pub fn import_dir(&self, dir: &Path) -> Result<(Vec<rubelet_proto::cri::Image>, Vec<ImageError>), ImageError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(file_error("read", dir))? {
            files.push(entry.map_err(file_error("read", dir))?.path());
        }
        files.sort();
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for path in files {
            let name = path.to_string_lossy().into_owned();
            if ![".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let file = File::open(&path).map_err(file_error("open", &path)).map_err(ImageError::from);
            match file.and_then(|file| self.import(file, &name, true)) {
                Ok(more) => images.extend(more),
                Err(error) => failures.push(error),
            }
        }
        Ok((images, failures))
    }
}

impl Unpacked {
    fn read(store: &Arc<Store>, dir: &Path, from: impl Read) -> Result<Self, ImportError> {
        let mut archive = Archive::new(unpacked(from).map_err(ImportError::Read)?);
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut left = store.options.limits.layer_bytes_max;
        while let Some(entry) = archive.next().map_err(ImportError::Read)? {
            let name = plain(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::File => {
                    left = left.checked_sub(entry.size).ok_or_else(|| {
                        ImportError::Read(io::Error::new(io::ErrorKind::FileTooLarge, "the archive is too large"))
                    })?;
                    let path = dir.join(files.len().to_string());
                    let mut meter = Meter::new(File::create(&path).map_err(file_error("create", &path))?);
                    io::copy(&mut (&mut archive).take(entry.size), &mut meter).map_err(ImportError::Read)?;
                    let (_, digest, bytes) = meter.finish();
                    files.insert(name, Taken { path, digest, bytes });
                }
                // Older archives of docker save share layers so.
                Kind::Symlink { target } => {
                    let above = name.rsplit_once('/').map_or("", |(above, _)| above);
                    links.insert(name.clone(), plain(&format!("{above}/{}", String::from_utf8_lossy(&target))));
                }
                Kind::HardLink { target } => {
                    links.insert(name, plain(&String::from_utf8_lossy(&target)));
                }
                Kind::Dir | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo | Kind::Other(_) => {}
            }
            if files.len() + links.len() > FILES_MAX {
                return Err(ImportError::TooManyFiles);
            }
        }
        Ok(Self { files, links })
    }

    fn file(&self, name: &str) -> Result<&Taken, ImportError> {
        let mut at = plain(name);
        for _ in 0..LINKS_MAX {
            if let Some(taken) = self.files.get(&at) {
                return Ok(taken);
            }
            match self.links.get(&at) {
                Some(next) => at.clone_from(next),
                None => break,
            }
        }
        Err(ImportError::Missing { name: name.to_owned() })
    }

    fn blob(&self, digest: Digest) -> Result<&Taken, ImportError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let taken = self.file(&name)?;
        if taken.digest != digest {
            return Err(ImportError::Wrong { name });
        }
        Ok(taken)
    }

    fn text(&self, taken: &Taken, what: &'static str, max: u64) -> Result<Vec<u8>, ImportError> {
        let (digest, size) = (taken.digest, taken.bytes);
        if size > max {
            return Err(DocumentError::TooLarge { what, digest, size, max }.into());
        }
        Ok(fs::read(&taken.path).map_err(file_error("read", &taken.path))?)
    }

    /// The images of the archive. Newer archives of Docker have both lists: then the layout's counts, as it has the
    /// manifests, and Docker's adds names.
    fn images(&self, store: &Store) -> Result<Vec<Found>, ImportError> {
        let saved = self.saved_list()?;
        let index = match (self.file("index.json"), &saved) {
            (Ok(index), _) => index,
            (Err(_), Some(saved)) => return saved.iter().map(|saved| self.saved(saved)).collect(),
            (Err(_), None) => return Err(ImportError::NoImages),
        };
        let text = self.text(index, "index.json", MANIFEST_MAX)?;
        let Document::Index(manifests) = Document::parse(&text, index.digest, "")? else {
            return Err(DocumentError::Neither { digest: index.digest }.into());
        };
        // Several manifests of one name are one image for several platforms.
        let mut named: BTreeMap<Vec<String>, Vec<Descriptor>> = BTreeMap::new();
        for (at, manifest) in manifests.into_iter().enumerate() {
            let names = names(&manifest)?;
            let key = if names.is_empty() { vec![format!("\0{at}")] } else { names };
            named.entry(key).or_default().push(manifest);
        }
        let mut found = Vec::new();
        for (names, manifests) in named {
            let names = names.into_iter().filter(|n| !n.starts_with('\0')).collect();
            found.push(self.described(store, manifests, names)?);
        }
        for saved in saved.iter().flatten() {
            let config = self.file(&saved.config)?.digest;
            for image in found.iter_mut().filter(|image| image.config.digest == config) {
                for name in saved.repo_tags.iter().flatten() {
                    let name = normal(name)?;
                    if !image.names.contains(&name) {
                        image.names.push(name);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Docker's list, if there is one.
    fn saved_list(&self) -> Result<Option<Vec<Saved>>, ImportError> {
        let Ok(list) = self.file("manifest.json") else { return Ok(None) };
        let text = self.text(list, "manifest.json", MANIFEST_MAX)?;
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|source| ImportError::Parse { name: "manifest.json".to_owned(), source })
    }

    fn saved(&self, saved: &Saved) -> Result<Found, ImportError> {
        let mut names = Vec::new();
        for name in saved.repo_tags.iter().flatten() {
            names.push(normal(name)?);
        }
        Ok(Found {
            documents: Vec::new(),
            config: self.file(&saved.config)?.clone(),
            layers: saved.layers.iter().map(|l| self.file(l).cloned()).collect::<Result<_, _>>()?,
            names,
        })
    }

    fn described(&self, store: &Store, manifests: Vec<Descriptor>, names: Vec<String>) -> Result<Found, ImportError> {
        let mut documents = Vec::new();
        let mut offered = manifests;
        for _ in 0..=INDEX_DEPTH_MAX {
            let chosen = choose(&offered, &store.options.platform)?;
            let taken = self.blob(chosen.digest)?;
            let text = self.text(taken, "manifest", MANIFEST_MAX)?;
            documents.push(taken.clone());
            match Document::parse(&text, chosen.digest, &chosen.media_type)? {
                Document::Index(manifests) => offered = manifests,
                Document::Manifest(manifest) => {
                    return Ok(Found {
                        documents,
                        config: self.blob(manifest.config.digest)?.clone(),
                        layers: manifest
                            .layers
                            .iter()
                            .map(|l| self.blob(l.digest).cloned())
                            .collect::<Result<_, _>>()?,
                        names,
                    });
                }
            }
        }
        Err(DocumentError::TooDeep.into())
    }
}

impl Store {
    /// Unpacks an image's layers and makes it known. `uses`: how many layers are still to be unpacked from a file of the archive.
    fn take_in(
        self: &Arc<Self>,
        image: &Found,
        is_pinned: bool,
        uses: &mut BTreeMap<PathBuf, usize>,
    ) -> Result<Digest, ImportError> {
        let lease = Lease::new(self);
        let text = fs::read(&image.config.path).map_err(file_error("read", &image.config.path))?;
        if text.len() as u64 > CONFIG_MAX {
            let (digest, size) = (image.config.digest, image.config.bytes);
            return Err(DocumentError::TooLarge { what: "configuration", digest, size, max: CONFIG_MAX }.into());
        }
        let config = Config::parse(&text, image.config.digest)?;
        config.check(image.layers.len(), &self.options.platform)?;
        let chains = chains(&config);
        lease.add(chains.iter().copied().chain([image.config.digest]));
        lease.add(image.documents.iter().map(|d| d.digest));
        let mut lower: Vec<PathBuf> = Vec::new();
        for ((chain, diff_id), layer) in chains.iter().zip(&config.rootfs.diff_ids).zip(&image.layers) {
            let _guard = self.layer_locks.lock_blocking(*chain);
            let left = uses.entry(layer.path.clone()).and_modify(|left| *left = left.saturating_sub(1)).or_default();
            if !self.state().layers.contains_key(chain) {
                let extract = |source| ImportError::Extract { diff_id: *diff_id, source };
                let new = self.layers.unpack(&layer.path, *chain, *diff_id, &lower).map_err(extract)?;
                self.reached("import.unpacked");
                // What is gone before the layer is synced is not written to the disk.
                if *left == 0 {
                    fs::remove_file(&layer.path).map_err(file_error("remove", &layer.path))?;
                }
                let published = self.layers.publish(vec![new])?;
                self.reached("import.published");
                self.state().layers.extend(published.into_iter().map(|l| (l.chain, l)));
            }
            lower.insert(0, self.layers.root(*chain));
        }
        self.blobs.put(&text)?;
        let mut documents = Vec::new();
        for document in &image.documents {
            let text = fs::read(&document.path).map_err(file_error("read", &document.path))?;
            documents.push(self.blobs.put(&text)?);
        }
        self.reached("import.documents");
        let all = image.documents.iter().chain(&image.layers).map(|t| t.bytes).sum::<u64>();
        let record = Record {
            id: image.config.digest,
            documents,
            tags: image.names.clone(),
            // Those are names under which a registry gave it; by the digests of its documents it is found all the same.
            digests: Vec::new(),
            size: all + image.config.bytes,
            chains,
            user: config.config.user,
            is_pinned,
        };
        self.register(record).map_err(|e| ImportError::Other(Box::new(e)))?;
        Ok(image.config.digest)
    }
}

/// The names of a manifest in an OCI layout. A tag alone names nothing.
fn names(manifest: &Descriptor) -> Result<Vec<String>, ImportError> {
    for key in NAME_ANNOTATIONS {
        if let Some(name) = manifest.annotations.get(key)
            && name.contains(['/', ':'])
        {
            return Ok(vec![normal(name)?]);
        }
    }
    Ok(Vec::new())
}

fn normal(name: &str) -> Result<String, ImportError> {
    let reference = Reference::parse(name).map_err(|source| ImportError::Name { name: name.to_owned(), source })?;
    Ok(reference.to_string())
}

/// A path in an archive without `.`, `..` and a slash at its beginning: a name to find it by, not a place.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
