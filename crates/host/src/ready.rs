//! Waiting for a descriptor without blocking a thread.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Completes when something can be read from `fd`, or its other end is gone.
pub async fn readable(fd: impl AsFd) -> io::Result<()> {
    // A descriptor of our own for the same thing: whatever happens to the caller's, this one stays.
    let own = fd.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is owned by the `AsyncFd` and stays open and the same until that is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
    watched.readable().await.map(drop)
}
