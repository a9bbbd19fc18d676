//! Watching paths with inotify, as a future.
//!
//! What is watched is a set of directories. Who wants to know about one path that may be missing, a link, or below a link
//! asks [`chain`] for all directories on the way to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[cfg(test)]
mod tests;

/// Links followed on the way to one path before it counts as missing, as the kernel does.
const LINKS_MAX: usize = 40;
/// Bytes of events read at once.
const BUFFER: usize = 16 * 1024;

/// What happened to a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It appeared: created, linked or renamed to. A regular file that was created has yet to be written.
    Created,
    MovedIn,
    /// Written to, not yet closed.
    Modified,
    /// Closed after writing.
    Closed,
    /// Mode, owner, times or link count changed.
    Attributes,
    /// It is gone.
    Removed,
    /// It has another name now, or is elsewhere.
    MovedOut,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A name in a watched directory changed.
    Name { dir: PathBuf, name: OsString, change: Change },
    /// The watched directory itself was removed, renamed or unmounted; it is not watched any more.
    DirGone { dir: PathBuf },
    /// The kernel dropped events: anything may have changed.
    Overflow,
}

/// A set of watched directories.
#[derive(Debug)]
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
    by_id: HashMap<i32, PathBuf>,
    by_dir: BTreeMap<PathBuf, i32>,
}

impl Watcher {
    /// A watcher of nothing. Fails when the user's limit of inotify instances is reached. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open and the same until that is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { fd, by_id: HashMap::new(), by_dir: BTreeMap::new() })
    }

    /// Watches exactly these directories from now on. Those that cannot be watched come back with the reason.
    pub fn set(&mut self, dirs: &BTreeSet<PathBuf>) -> Vec<(PathBuf, io::Error)> {
        let stale: Vec<PathBuf> = self.by_dir.keys().filter(|d| !dirs.contains(*d)).cloned().collect();
        for dir in stale {
            if let Some(id) = self.by_dir.remove(&dir) {
                self.forget(id);
            }
        }
        let mut refused = Vec::new();
        for dir in dirs {
            let flags = WatchFlags::CREATE
                | WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::ATTRIB
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            // Adding again is how a path that became another directory is noticed: the id differs then.
            match inotify::add_watch(&self.fd, dir, flags) {
                Ok(id) => {
                    let before = self.by_dir.insert(dir.clone(), id);
                    if let Some(before) = before.filter(|&b| b != id) {
                        self.forget(before);
                    }
                    self.by_id.insert(id, dir.clone());
                }
                Err(e) => {
                    if let Some(id) = self.by_dir.remove(dir) {
                        self.forget(id);
                    }
                    refused.push((dir.clone(), e.into()));
                }
            }
        }
        refused
    }

    /// Drops a watch unless another path still means the same directory.
    fn forget(&mut self, id: i32) {
        if self.by_dir.values().all(|&other| other != id) {
            self.by_id.remove(&id);
            let _ = inotify::remove_watch(&self.fd, id);
        }
    }

    /// The next events, at least one. Cancel safe: what was not returned is returned next time.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let events = {
                let mut ready = self.fd.readable().await?;
                let mut events = Vec::new();
                match read_events(ready.get_inner(), &self.by_id, &mut events) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
                events
            };
            for event in &events {
                if let Event::DirGone { dir } = event
                    && let Some(id) = self.by_dir.remove(dir)
                {
                    self.forget(id);
                }
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// One read's worth of events.
fn read_events(fd: &OwnedFd, by_id: &HashMap<i32, PathBuf>, out: &mut Vec<Event>) -> rustix::io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        let event = reader.next()?;
        let flags = event.events();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            out.push(Event::Overflow);
        } else if let Some(dir) = by_id.get(&event.wd()) {
            let is_gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
            match (event.file_name(), change(flags)) {
                (Some(name), Some(change)) => {
                    let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                    out.push(Event::Name { dir: dir.clone(), name, change });
                }
                _ if flags.intersects(is_gone) => out.push(Event::DirGone { dir: dir.clone() }),
                _ => {}
            }
        }
        if reader.is_buffer_empty() {
            return Ok(());
        }
    }
}

fn change(flags: ReadFlags) -> Option<Change> {
    [
        (ReadFlags::CREATE, Change::Created),
        (ReadFlags::MOVED_TO, Change::MovedIn),
        (ReadFlags::MODIFY, Change::Modified),
        (ReadFlags::CLOSE_WRITE, Change::Closed),
        (ReadFlags::ATTRIB, Change::Attributes),
        (ReadFlags::DELETE, Change::Removed),
        (ReadFlags::MOVED_FROM, Change::MovedOut),
    ]
    .into_iter()
    .find(|(flag, _)| flags.intersects(*flag))
    .map(|(_, change)| change)
}

/// The way to one path: directories to watch, and the names in them that decide where the path leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Real directory to the names in it that are on the way.
    pub names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// Where the path leads in the end; `None` when something is missing or a loop.
    pub end: Option<PathBuf>,
}

impl Chain {
    /// Whether a change of `name` in `dir` may change where the path leads.
    pub fn concerns(&self, dir: &Path, name: &OsStr) -> bool {
        self.names.get(dir).is_some_and(|n| n.contains(name))
    }
}

/// Follows an absolute path by hand, link by link, up to its end or to the first name that is missing.
pub fn chain(path: &Path) -> Chain {
    let mut chain = Chain::default();
    let mut at = PathBuf::from("/");
    let mut ahead: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        chain.names.entry(at.clone()).or_default().insert(name.clone());
        let next = at.join(&name);
        match fs::symlink_metadata(&next) {
            Ok(meta) if meta.file_type().is_symlink() => {
                links += 1;
                let Ok(target) = fs::read_link(&next) else { return chain };
                if links > LINKS_MAX {
                    return chain;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                ahead.extend(parts(&target));
            }
            Ok(_) => at = next,
            Err(_) => return chain,
        }
    }
    chain.end = Some(at);
    chain
}

/// Components without root and `.`, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let keep = |c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<OsString> = path.components().filter_map(keep).collect();
    parts.reverse();
    parts
}
