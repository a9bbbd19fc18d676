//! The lock file: one agent at a time, and word when another one wants to start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, inotify};

/// Why a lock file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be opened or made.
    #[error("unable to acquire file lock on {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The lock was refused.
    #[error("unable to acquire file lock on {path:?}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file cannot be watched.
    #[error("watch lock file {path}")]
    Watch {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A held lock; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// Makes the file (mode 0600) when missing and waits until its lock is free.
    ///
    /// # Errors
    /// The file cannot be opened or locked.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| LockError::Open { path: path.to_owned(), source })?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|error| LockError::Lock { path: path.to_owned(), source: error.into() })?;
        Ok(Self { path: path.to_owned(), _file: file })
    }

    /// Begins to watch for someone else opening or deleting the file.
    ///
    /// # Errors
    /// inotify's.
    pub fn watch(&self) -> Result<Contention, LockError> {
        let watch = || {
            let queue = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&queue, &self.path, inotify::WatchFlags::OPEN | inotify::WatchFlags::DELETE_SELF)?;
            Ok(Contention { queue })
        };
        watch().map_err(|error: rustix::io::Errno| LockError::Watch { path: self.path.clone(), source: error.into() })
    }
}

/// A watch of a lock file.
#[derive(Debug)]
pub struct Contention {
    queue: OwnedFd,
}

impl Contention {
    /// Blocks until someone opens or deletes the file.
    ///
    /// # Errors
    /// inotify's.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 1024];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.queue, &mut buffer))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn the_second_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockFile::acquire(&path).unwrap();
        let mut contention = first.watch().unwrap();
        let (sender, receiver) = mpsc::channel();
        let second = std::thread::spawn(move || {
            let lock = LockFile::acquire(&path).unwrap();
            sender.send(()).unwrap();
            drop(lock);
        });
        contention.wait().unwrap();
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "the lock was given twice");
        drop(first);
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        second.join().unwrap();
    }

    #[test]
    fn a_deleted_file_is_contention() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // The kernel tells the deletion once the last one who has the file open closes it.
        let lock = LockFile::acquire(&path).unwrap();
        let mut contention = lock.watch().unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(lock);
        contention.wait().unwrap();
    }

    #[test]
    fn a_missing_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = LockFile::acquire(&dir.path().join("none/lock"));
        assert!(matches!(refused, Err(LockError::Open { .. })));
    }
}
