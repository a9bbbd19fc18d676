//! How the container ended: on disk before anybody is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::setup::EXIT_FILE;
use crate::wire::Exit;

/// The end that a wait status tells.
pub(crate) fn of_status(status: i32, started_at_nanos: Option<i64>, finished_at_nanos: i64, oom_kills: u64) -> Exit {
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = signal.map_or_else(|| libc::WEXITSTATUS(status), |signal| 128 + signal);
    Exit { code, signal, started_at_nanos, finished_at_nanos, oom_kills }
}

/// Writes, syncs, renames: after power loss there is all of it or nothing.
pub(crate) fn write(bundle: &Path, exit: &Exit) -> io::Result<()> {
    let temporary = bundle.join(format!(".{EXIT_FILE}"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    file.sync_data()?;
    fs::rename(&temporary, bundle.join(EXIT_FILE))
}

/// `None`: it is not known to have ended.
pub(crate) fn read(bundle: &Path) -> io::Result<Option<Exit>> {
    match fs::read(bundle.join(EXIT_FILE)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
