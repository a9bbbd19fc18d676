//! Certificates that change under a running server: the files are looked at again when someone asks.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Loaded, TlsError, files, load};
use crate::{TlsFiles, TlsServerConfig};

/// How often the files are looked at, at most. A node that nobody asks does not look at all.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is loaded, and from what (kubelet 1.36: given files and the client CA are watched and reloaded).
pub(crate) struct Reloading {
    config: TlsServerConfig,
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

/// Which file it is behind all links, and when it was changed. A file written anew differs, and so does a link that
/// points elsewhere.
#[derive(Debug, PartialEq)]
struct Stamp {
    file: (u64, u64),
    changed: (i64, i64),
    length: u64,
}

impl Reloading {
    pub(crate) fn start(config: TlsServerConfig) -> Result<Self, TlsError> {
        let files = files(&config)?;
        let stamps = stamps(&watched(&config, &files));
        let loaded = load(&config, &files)?;
        let state = Mutex::new(State { loaded, stamps, looked_at: Instant::now() });
        Ok(Self { config, files, state })
    }

    /// What a connection or request is to use. Files that have become unusable change nothing.
    pub(crate) fn current(&self) -> Loaded {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= LOOK_EVERY {
            state.looked_at = Instant::now();
            let now = stamps(&watched(&self.config, &self.files));
            if now != state.stamps {
                state.stamps = now;
                match load(&self.config, &self.files) {
                    Ok(loaded) => {
                        tracing::info!(certificate = %self.files.certificate.display(), "TLS files have changed");
                        state.loaded = loaded;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "changed TLS files cannot be used, going on with the old ones")
                    }
                }
            }
        }
        state.loaded.clone()
    }
}

fn watched<'a>(config: &'a TlsServerConfig, files: &'a TlsFiles) -> Vec<&'a PathBuf> {
    [&files.certificate, &files.key].into_iter().chain(&config.authentication.client_ca_file).collect()
}

fn stamps(paths: &[&PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp { file: (found.dev(), found.ino()), changed: (found.ctime(), found.ctime_nsec()), length: found.len() })
}
