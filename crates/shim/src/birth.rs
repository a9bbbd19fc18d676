//! Who the container's processes are: written when it is created, for an agent that finds the shim gone.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::setup::BIRTH_FILE;

/// Pids mean something only together with the time their process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The container's first process, on the host.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`.
    pub pid_start_ticks: u64,
    pub shim: u32,
    pub shim_start_ticks: u64,
}

impl Birth {
    /// Whether the container's first process is there.
    pub fn is_container_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.pid_start_ticks)
    }

    /// Whether the shim is there.
    pub fn is_shim_alive(&self) -> bool {
        start_ticks(self.shim) == Some(self.shim_start_ticks)
    }
}

/// When a process began, in ticks since boot. `None`: there is none, or it is a zombie.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

pub(crate) fn write(bundle: &Path, birth: &Birth) -> io::Result<()> {
    // Whole or not there: a shim may be killed at any moment.
    let temporary = bundle.join(format!(".{BIRTH_FILE}"));
    fs::write(&temporary, serde_json::to_vec(birth)?)?;
    fs::rename(temporary, bundle.join(BIRTH_FILE))
}

pub(crate) fn read(bundle: &Path) -> io::Result<Birth> {
    Ok(serde_json::from_slice(&fs::read(bundle.join(BIRTH_FILE))?)?)
}
