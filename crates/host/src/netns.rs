//! Network namespaces: made, kept by a file, entered by threads that live no longer than their work.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::mount::{self, Unmount};

/// Makes a namespace that stays as long as `file`, which must not exist. `inside` runs in it before anybody sees it.
pub fn make<T: Send>(file: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    fs::OpenOptions::new().write(true).create_new(true).open(file)?;
    let make = || {
        // SAFETY: a new network namespace affects this thread only, which ends with this work; no file or memory of others is
        // touched.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        let done = inside()?;
        mount::bind(Path::new("/proc/thread-self/ns/net"), file).map_err(io::Error::other)?;
        Ok(done)
    };
    let made = in_thread(make);
    if made.is_err() {
        let _ = remove(file);
    }
    made
}

/// Keeps the network namespace of a process by a file, which must not exist.
pub fn keep(pid: u32, file: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).open(file)?;
    mount::bind(Path::new(&format!("/proc/{pid}/ns/net")), file).map_err(io::Error::other)
}

/// Runs something in the namespace that a file keeps.
pub fn within<T: Send>(file: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = fs::File::open(file)?;
    in_thread(|| {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        inside()
    })
}

/// Lets go of a namespace. A file that is not there is no error.
pub fn remove(file: &Path) -> io::Result<()> {
    mount::unmount(file, Unmount::Lazy).map_err(io::Error::other)?;
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_entered_and_removed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: network namespaces need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let links = || Ok(fs::read_to_string("/proc/thread-self/net/dev")?.lines().count());
        let inside = make(&file, links).unwrap();
        assert_eq!(within(&file, links).unwrap(), inside);
        assert!(make(&file, links).is_err());
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert!(!file.exists() && within(&file, links).is_err());
    }
}
