//! The socket's file: made, guarded and removed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::ServeError;

/// For root and its group.
const SOCKET_MODE: u32 = 0o660;
/// Others may pass through, not look.
const DIRECTORY_MODE: u32 = 0o711;

/// A socket that is listened on; its file goes with it.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: what stands at the path later may be another's.
    file: (u64, u64),
}

impl Socket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Somebody listens there, something that is no socket is there, or the system refuses.
    pub(super) async fn listen(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Prepare { path: path.to_owned(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_dirs(dir).map_err(failed)?;
        if is_taken(path).await.map_err(failed)? {
            return Err(ServeError::Taken { path: path.to_owned() });
        }
        // Bound beside and moved into place, which replaces a stale one: at its place it has its mode from the beginning.
        let beside = dir.join(format!(".{}", std::process::id()));
        remove(&beside).map_err(failed)?;
        let listener = UnixListener::bind(&beside).map_err(failed)?;
        let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| fs::symlink_metadata(&beside))
            .and_then(|file| fs::rename(&beside, path).map(|()| (file.dev(), file.ino())));
        match placed {
            Ok(file) => Ok(Self { listener, path: path.to_owned(), file }),
            Err(source) => {
                // The first failure is the one to tell.
                let _ = remove(&beside);
                Err(failed(source))
            }
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_ours {
            // One that stays is replaced by the next who listens.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        // Whatever the umask is.
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(DIRECTORY_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether somebody listens at `path`. What is there and no socket is an error.
async fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(false),
        // Too many clients wait already.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
