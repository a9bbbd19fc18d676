//! Processes by pidfd: a pid that was recycled is never mistaken for the one that was meant.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One process, held by a pidfd.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// Takes hold of a process. `NotFound` when there is none of that pid.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(rustix::io::Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends SIGKILL. A process that is gone already is fine.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// Sends SIGTERM. A process that is gone already is fine.
    pub fn tell_to_end(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.0, Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// Blocks until the process has ended or `deadline` passed; true when it has ended.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) => {}
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Completes when the process has ended (it need not be reaped).
    pub async fn exited(self) -> io::Result<()> {
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open and the same until that is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        fd.readable().await.map(drop)
    }
}

/// Completes when the process `pid` has ended; at once when there is none.
pub async fn exited(pid: u32) -> io::Result<()> {
    match Handle::open(pid) {
        Ok(handle) => handle.exited().await,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = Handle::open(child.id()).unwrap();
        assert!(!handle.wait_until(Instant::now()));
        drop(child.stdin.take());
        tokio::time::timeout(Duration::from_secs(10), handle.exited()).await.unwrap().unwrap();
        child.wait().unwrap();
        tokio::time::timeout(Duration::from_secs(10), exited(child.id())).await.unwrap().unwrap();
    }

    #[test]
    fn a_killed_process_ends() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let handle = Handle::open(child.id()).unwrap();
        handle.kill();
        assert!(handle.wait_until(Instant::now() + Duration::from_secs(10)));
        child.wait().unwrap();
    }
}
