//! Directories for work that may be given up at any moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Names that begin so are work that was given up, after a restart.
pub(crate) const PREFIX: &str = ".tmp-";

/// A directory that goes when it is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: Option<PathBuf>,
}

impl ScratchDir {
    /// Makes an empty directory in `parent`, for its owner only.
    pub(crate) fn new(parent: &Path, purpose: &str) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{purpose}-{}-{number}", std::process::id()));
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path: Some(path) })
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Moves the directory to its place.
    pub(crate) fn keep_as(mut self, place: &Path) -> io::Result<()> {
        fs::rename(self.path(), place)?;
        self.path = None;
        Ok(())
    }

    /// Removes it now. Dropped, it may go only later, or not before the next start.
    pub(crate) fn remove(mut self) {
        if let Some(path) = self.path.take() {
            remove(&path);
        }
    }

    /// Moves `dir` away at once, to be removed when the answer is dropped.
    pub(crate) fn of_unwanted(dir: &Path, parent: &Path) -> io::Result<Self> {
        let scratch = Self::new(parent, "gone")?;
        fs::rename(dir, scratch.path().join("it"))?;
        Ok(scratch)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else { return };
        // Large trees take long, and a task must not block.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

fn remove(path: &Path) {
    if let Err(e) = rubelet_host::paths::remove_tree(path) {
        tracing::warn!("{}", rubelet_host::chain(&e));
    }
}

/// Removes what earlier processes gave up in `parent`.
pub(crate) fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
    Ok(())
}
