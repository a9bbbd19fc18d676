//! Being told by the kernel when a cgroup's memory crosses a mark. Version 1 only: version 2 has no such thing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};

use super::{CgroupError, Tree, Version};

impl Tree {
    /// A descriptor that becomes readable when the memory of the cgroup crosses `bytes`, in either direction. Closing it ends it.
    ///
    /// # Errors
    /// Version 2, and files that are not there or take nothing.
    pub fn notify_memory(&self, path: impl AsRef<Path>, bytes: u64) -> Result<OwnedFd, CgroupError> {
        if self.version == Version::V2 {
            return Err(CgroupError::MissingController("memory"));
        }
        let dir = self.dir("memory", path)?;
        let usage = dir.join("memory.usage_in_bytes");
        let watched = File::open(&usage).map_err(|source| CgroupError::Read { path: usage, source })?;
        let control = dir.join("cgroup.event_control");
        let failed = |source: io::Error, value: String| CgroupError::Write { path: control.clone(), value, source };
        let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| failed(e.into(), "an eventfd".into()))?;
        let line = format!("{} {} {bytes}", told.as_raw_fd(), watched.as_raw_fd());
        let write = |line: &str| OpenOptions::new().write(true).open(&control)?.write_all(line.as_bytes());
        write(&line).map_err(|e| failed(e, line))?;
        Ok(told)
    }
}
