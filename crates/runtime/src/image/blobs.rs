//! Content by digest, on disk: `blobs/sha256/HEX`, and what is on its way there in `ingest`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::sync::OwnedMutexGuard;

use crate::digest::{Digest, Meter};
use crate::scratch::{self, ScratchDir};

/// Why content could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("unexpected commit size {actual}, expected {expected}: failed precondition")]
    Size { actual: u64, expected: u64 },
    #[error("unexpected commit digest {actual}, expected {expected}: failed precondition")]
    Digest { actual: Digest, expected: Digest },
    #[error("parse {path}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("write {what}: {reason}")]
    Write { what: String, reason: String },
}

pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { what, path, source }
}

/// The store's directories. All functions block.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let blobs = Self { root: root.to_owned() };
        for dir in [blobs.dir(), blobs.ingest_dir()] {
            fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
            scratch::sweep(&dir).map_err(file_error("tidy", &dir))?;
        }
        blobs.sweep()?;
        Ok(blobs)
    }

    /// Removes files that were being written when the power failed.
    fn sweep(&self) -> Result<(), StoreError> {
        let dir = self.dir();
        for entry in fs::read_dir(&dir).map_err(file_error("read", &dir))? {
            let entry = entry.map_err(file_error("read", &dir))?;
            if entry.file_name().to_str().is_none_or(|name| Digest::from_hex(name).is_err()) {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }

    fn dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.dir().join(digest.hex())
    }

    /// Where content is while it is incomplete.
    pub(crate) fn ingest_path(&self, digest: Digest) -> PathBuf {
        self.ingest_dir().join(digest.hex())
    }

    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Content of at most `max` bytes; `None` if it is not here or not what it should be.
    pub(crate) fn read_small(&self, digest: Digest, max: u64) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.path(digest)).ok()?.take(max + 1).read_to_end(&mut content).ok()?;
        (Digest::of(&content) == digest).then_some(content)
    }

    /// Keeps small content, whole or not at all, also when the power fails.
    pub(crate) fn put(&self, content: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(content);
        if self.read_small(digest, content.len() as u64).is_none() {
            write(&self.path(digest), content)?;
        }
        Ok(digest)
    }

    /// Begins or resumes taking content in. The guard keeps others away until the content is complete or given up.
    pub(crate) fn ingest(&self, digest: Digest, size: u64, guard: OwnedMutexGuard<()>) -> Result<Ingest, StoreError> {
        let path = self.ingest_path(digest);
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(file_error("open", &path))?;
        let here = file.metadata().map_err(file_error("look at", &path))?.len();
        if here > size {
            file.set_len(0).map_err(file_error("empty", &path))?;
        }
        // What is there already is digested again.
        let mut meter = Meter::new(io::sink());
        io::copy(&mut file, &mut meter).map_err(file_error("read", &path))?;
        let resumed = meter.bytes();
        Ok(Ingest { path, done: self.path(digest), file, meter, digest, size, resumed, _guard: guard })
    }

    /// Digests of what is here.
    pub(crate) fn list(&self) -> Result<Vec<Digest>, StoreError> {
        names(&self.dir())
    }

    /// Digests of what is on its way, with the time of its last change.
    pub(crate) fn list_ingests(&self) -> Result<Vec<Digest>, StoreError> {
        names(&self.ingest_dir())
    }

    pub(crate) fn remove(&self, digest: Digest) -> Result<u64, StoreError> {
        remove_file(&self.path(digest))
    }

    pub(crate) fn remove_ingest(&self, digest: Digest) -> Result<u64, StoreError> {
        remove_file(&self.ingest_path(digest))
    }

    /// A directory of its own for an import, below `ingest`.
    pub(crate) fn import_dir(&self) -> Result<ScratchDir, StoreError> {
        ScratchDir::new(&self.ingest_dir(), "import").map_err(file_error("create a directory in", &self.ingest_dir()))
    }
}

fn names(dir: &Path) -> Result<Vec<Digest>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(file_error("read", dir))? {
        let name = entry.map_err(file_error("read", dir))?.file_name();
        found.extend(name.to_str().and_then(|n| Digest::from_hex(n).ok()));
    }
    found.sort();
    Ok(found)
}

fn remove_file(path: &Path) -> Result<u64, StoreError> {
    let bytes = fs::symlink_metadata(path).map_or(0, |stat| stat.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(file_error("remove", path)(e)),
    }
}

/// Writes a file that is whole or absent, also after the power failed.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    rubelet_host::paths::write_atomic(path, content, 0o600)
        .map_err(|e| StoreError::Write { what: path.display().to_string(), reason: rubelet_host::chain(&e) })
}

/// Content on its way. Dropped, it stays and is resumed the next time.
pub(crate) struct Ingest {
    path: PathBuf,
    done: PathBuf,
    file: File,
    meter: Meter<io::Sink>,
    digest: Digest,
    size: u64,
    resumed: u64,
    _guard: OwnedMutexGuard<()>,
}

impl Ingest {
    /// Bytes that are here.
    pub(crate) fn bytes(&self) -> u64 {
        self.meter.bytes()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.bytes() >= self.size
    }

    /// Whether some of it is from an earlier attempt.
    pub(crate) fn was_resumed(&self) -> bool {
        self.resumed > 0
    }

    pub(crate) fn write(&mut self, content: &[u8]) -> Result<(), StoreError> {
        let actual = self.bytes() + content.len() as u64;
        if actual > self.size {
            return Err(StoreError::Size { actual, expected: self.size });
        }
        self.file.write_all(content).map_err(file_error("write", &self.path))?;
        self.meter.account(content);
        Ok(())
    }

    /// Forgets what is here.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(file_error("empty", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(file_error("rewind", &self.path))?;
        self.meter = Meter::new(io::sink());
        self.resumed = 0;
        Ok(())
    }

    /// Size and digest are as expected: it becomes content. Not synced; see [`super::Images`] for when that matters.
    pub(crate) fn finish(mut self) -> Result<(), (Box<Self>, StoreError)> {
        let (_, actual, bytes) = std::mem::replace(&mut self.meter, Meter::new(io::sink())).finish();
        let expected = self.size;
        if bytes != expected {
            return Err((Box::new(self), StoreError::Size { actual: bytes, expected }));
        }
        if actual != self.digest {
            let expected = self.digest;
            return Err((Box::new(self), StoreError::Digest { actual, expected }));
        }
        match fs::rename(&self.path, &self.done) {
            Ok(()) => Ok(()),
            Err(e) => {
                let error = file_error("move", &self.done)(e);
                Err((Box::new(self), error))
            }
        }
    }
}
