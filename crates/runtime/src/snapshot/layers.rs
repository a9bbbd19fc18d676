//! Unpacked layers on disk: `layers/CHAIN/fs`, shared by all images that have the same layers from the bottom on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ahead::Ahead;
use super::extract::{ExtractError, Extracted, Rules, extract};
use crate::digest::{Digest, Meter};
use crate::scratch::{self, ScratchDir};

/// Digits of a layer's name on disk: all names of a stack fit the options of an old kernel's mount.
const NAME_DIGITS: usize = 16;
const RECORD: &str = "layer.json";
const ROOT: &str = "fs";
const EMPTY: &str = "empty";
const BOTTOM: &str = "bottom";

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("unpack")]
    Unpack(#[from] ExtractError),
    #[error("wrong diff id calculated on extraction {actual}, expected {expected}")]
    DiffId { actual: Digest, expected: Digest },
    #[error("{path} is another layer than {chain}")]
    Taken { path: PathBuf, chain: Digest },
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError + use<> {
    let path = path.to_owned();
    move |source| LayerError::File { what, path, source }
}

/// What is known of a layer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Name of the stack that ends with this layer.
    pub(crate) chain: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// The layers of one store. All functions block.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    rules: Rules,
}

/// A layer that is unpacked and not yet known to anybody.
#[derive(Debug)]
pub(crate) struct NewLayer {
    scratch: ScratchDir,
    pub(crate) layer: Layer,
}

impl NewLayer {
    /// The directory of its files.
    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.path().join(ROOT)
    }
}

impl Layers {
    /// Opens the store's layers; what was left unfinished is removed.
    pub(crate) fn open(root: &Path, rules: Rules) -> Result<(Self, BTreeMap<Digest, Layer>), LayerError> {
        let dir = root.join("layers");
        let (empty, bottom) = (dir.join(EMPTY), dir.join(BOTTOM));
        for dir in [&empty, &bottom] {
            fs::create_dir_all(dir).map_err(file_error("create", dir))?;
        }
        scratch::sweep(&dir).map_err(file_error("tidy", &dir))?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(file_error("read", &dir))? {
            let path = entry.map_err(file_error("read", &dir))?.path();
            if path == empty || path == bottom {
                continue;
            }
            let record = fs::read(path.join(RECORD)).ok().and_then(|text| serde_json::from_slice::<Layer>(&text).ok());
            match record {
                Some(layer) => drop(known.insert(layer.chain, layer)),
                // Only complete layers get their name; this one is damaged, and pulled anew when it is wanted.
                None => drop(ScratchDir::of_unwanted(&path, &dir).map_err(file_error("remove", &path))?),
            }
        }
        Ok((Self { dir, rules }, known))
    }

    fn place(&self, chain: Digest) -> PathBuf {
        self.dir.join(&chain.hex()[..NAME_DIGITS])
    }

    /// The directory of a layer's files.
    pub(crate) fn root(&self, chain: Digest) -> PathBuf {
        self.place(chain).join(ROOT)
    }

    /// A directory without anything: the layer of an image that has none.
    pub(crate) fn empty(&self) -> PathBuf {
        self.dir.join(EMPTY)
    }

    /// Another one, where overlayfs wants two.
    pub(crate) fn bottom(&self) -> PathBuf {
        self.dir.join(BOTTOM)
    }

    /// Unpacks one layer from `blob`. `lower`: the directories of the layers below, the topmost first.
    pub(crate) fn unpack(
        &self,
        blob: &Path,
        chain: Digest,
        diff_id: Digest,
        lower: &[PathBuf],
    ) -> Result<NewLayer, LayerError> {
        let scratch = ScratchDir::new(&self.dir, "new").map_err(file_error("create a directory in", &self.dir))?;
        let root = scratch.path().join(ROOT);
        fs::create_dir(&root).map_err(file_error("create", &root))?;
        let file = File::open(blob).map_err(file_error("open", blob))?;
        let content = Ahead::start(file).map_err(file_error("read", blob))?;
        let mut meter = Meter::new(content);
        let Extracted { bytes, entries } = extract(&mut meter, &root, lower, &self.rules)?;
        let (_, actual, _) = meter.finish();
        if actual != diff_id {
            return Err(LayerError::DiffId { actual, expected: diff_id });
        }
        Ok(NewLayer { scratch, layer: Layer { chain, diff_id, bytes, entries } })
    }

    /// Gives unpacked layers their names, when all of them are safely on the disk.
    pub(crate) fn publish(&self, layers: Vec<NewLayer>) -> Result<Vec<Layer>, LayerError> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let dir = File::open(&self.dir).map_err(file_error("open", &self.dir))?;
        for new in &layers {
            let path = new.scratch.path().join(RECORD);
            // A record has only numbers and digests.
            let text = serde_json::to_vec(&new.layer).map_err(io::Error::other).map_err(file_error("write", &path))?;
            fs::write(&path, text).map_err(file_error("write", &path))?;
        }
        rustix::fs::syncfs(&dir).map_err(|e| file_error("sync", &self.dir)(e.into()))?;
        let mut published = Vec::new();
        for new in layers {
            let place = self.place(new.layer.chain);
            if place.exists() {
                return Err(LayerError::Taken { path: place, chain: new.layer.chain });
            }
            new.scratch.keep_as(&place).map_err(file_error("move to", &place))?;
            published.push(new.layer);
        }
        dir.sync_all().map_err(file_error("sync", &self.dir))?;
        Ok(published)
    }

    /// Takes a layer's name away at once; its files go when the answer is dropped.
    pub(crate) fn remove(&self, chain: Digest) -> Result<ScratchDir, LayerError> {
        let place = self.place(chain);
        ScratchDir::of_unwanted(&place, &self.dir).map_err(file_error("remove", &place))
    }
}
