//! The static pod path: a directory of manifests, or one manifest.
//!
//! Everything is read anew on each look, and what a look shows is the whole truth; inotify only says when to look. A name
//! starts a look when it is complete: after its writer closed it (or wrote nothing for two seconds), at once when nothing
//! else is under way, else a moment after the last change, a longer moment after something went away, since editors take a
//! file away before they put the new one.
//! A file that was deleted and is back with the same words was gone all the same: its pod starts over.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_api::pod::Gates;
use rubelet_host::watch::{Change, Event, Watcher};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::{DesiredSet, is_same_wish};

mod routes;
mod scan;

#[cfg(test)]
mod tests;

use routes::Routes;
use scan::Scanner;

/// A look follows the last change after this long, unless that completed a file.
const QUIET: Duration = Duration::from_millis(2);
/// The same when something went away.
const QUIET_GONE: Duration = Duration::from_millis(150);
/// A look is not put off longer than this.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// A file that is being written counts as complete when nothing was written for this long.
const WRITING: Duration = Duration::from_secs(2);
/// And after this long in any case.
const WRITING_MAX: Duration = Duration::from_secs(20);
/// Looks in a row when the paths to watch change under us.
const LOOKS_MAX: usize = 3;

/// The file source, as configured.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// `staticPodPath`, absolute. It need not exist.
    pub path: PathBuf,
    /// `fileCheckFrequency`.
    pub check_every: Duration,
    /// Name of the node, part of static pods' names and UIDs.
    pub node_name: String,
    pub gates: Gates,
}

impl FileSource {
    /// Runs as a task of its own until the receiver is gone.
    pub fn spawn(self, out: mpsc::Sender<DesiredSet>) -> AbortHandle {
        rubelet_host::task::spawn(self.run(out)).abort_handle()
    }

    /// Sends the first complete set at once and then every other one, until the receiver is gone.
    pub async fn run(self, out: mpsc::Sender<DesiredSet>) {
        let watcher = match Watcher::new() {
            Ok(watcher) => Some(watcher),
            Err(e) => {
                tracing::warn!(path = %self.path.display(), err = %e, "static pod path can't be watched, it is read periodically only");
                None
            }
        };
        let task = Task {
            check_every: self.check_every.max(Duration::from_millis(100)),
            scanner: Some(Scanner::new(self)),
            watcher,
            routes: Routes::default(),
            writing: BTreeMap::new(),
            told: None,
            deleted: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        task.run(out).await;
    }
}

/// A file that somebody writes to.
#[derive(Clone, Copy, Debug)]
struct Writing {
    first: Instant,
    last: Instant,
}

impl Writing {
    fn until(&self) -> Instant {
        (self.last + WRITING).min(self.first + WRITING_MAX)
    }
}

struct Task {
    check_every: Duration,
    /// Lent to a blocking thread during a look.
    scanner: Option<Scanner>,
    watcher: Option<Watcher>,
    routes: Routes,
    /// By the file's real path.
    writing: BTreeMap<PathBuf, Writing>,
    told: Option<DesiredSet>,
    /// Entries that were deleted since they were read.
    deleted: BTreeSet<PathBuf>,
    /// Directories that can't be watched and were complained about.
    refused: BTreeSet<PathBuf>,
}

impl Task {
    async fn run(mut self, out: mpsc::Sender<DesiredSet>) {
        loop {
            let Some(set) = self.look().await else { return };
            let is_new = self.told.as_ref().is_none_or(|told| !is_same_wish(told, &set));
            if is_new {
                self.told = Some(set.clone());
                if out.send(set).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = self.until_due() => {}
                () = out.closed() => return,
            }
        }
    }

    /// Sets the watches, then reads everything. `None` when the runtime shuts down.
    async fn look(&mut self) -> Option<DesiredSet> {
        let mut looks = 0;
        loop {
            let scanner = self.scanner.take()?;
            let now = Instant::now();
            self.writing.retain(|_, w| w.until() > now);
            let (scanner, routes) = rubelet_host::task::blocking(move || {
                let routes = scanner.routes();
                (scanner, routes)
            })
            .await
            .ok()?;
            self.watch(routes);
            let busy: BTreeSet<PathBuf> = self.writing.keys().flat_map(|real| self.routes.entries_of(real)).collect();
            let (writing, deleted) =
                std::mem::take(&mut self.deleted).into_iter().partition(|path| busy.contains(path));
            self.deleted = writing;
            let mut scanner = scanner;
            let (scanner, set, routes) = rubelet_host::task::blocking(move || {
                scanner.forget_runs(&deleted);
                let set = scanner.look(&busy, jiff::Timestamp::now());
                let routes = scanner.routes();
                (scanner, set, routes)
            })
            .await
            .ok()?;
            self.scanner = Some(scanner);
            looks += 1;
            // What appeared between setting the watches and reading may lead elsewhere: watch that, and read again.
            if routes == self.routes || looks == LOOKS_MAX {
                return Some(set);
            }
        }
    }

    fn watch(&mut self, routes: Routes) {
        self.routes = routes;
        let Some(watcher) = &mut self.watcher else { return };
        let failed = watcher.set(&self.routes.dirs());
        let refused: BTreeSet<PathBuf> = failed.iter().map(|(dir, _)| dir.clone()).collect();
        for (dir, e) in failed.into_iter().filter(|(dir, _)| !self.refused.contains(dir)) {
            tracing::warn!(dir = %dir.display(), err = %e, "directory on the way to static pods can't be watched, changes are seen periodically");
        }
        self.refused = refused;
    }

    /// Waits until a look is due: the period, a complete change, or a file that was written to long enough.
    async fn until_due(&mut self) {
        let period = Instant::now() + self.check_every;
        let mut due = period;
        let mut first_asked = None;
        loop {
            let written = self.writing.values().map(Writing::until).min();
            let wake = written.map_or(due, |w| w.min(due));
            let Some(watcher) = &mut self.watcher else {
                sleep_until(wake).await;
                return;
            };
            let events = tokio::select! {
                events = watcher.next() => events,
                () = sleep_until(wake) => return,
            };
            let now = Instant::now();
            let asked = match events {
                Ok(events) => self.weigh(&events, now),
                Err(e) => {
                    tracing::warn!(err = %e, "watching the static pod path failed, it is read periodically only");
                    self.watcher = None;
                    Some(QUIET)
                }
            };
            if let Some(quiet) = asked {
                let first = *first_asked.get_or_insert(now);
                // Once something went, later events of the same change must not bring the look forward.
                let earliest = if due < period { due } else { now };
                due = (now + quiet).max(earliest).min(first + QUIET_MAX).min(period);
            }
        }
    }

    /// Notes who is writing, and says how long after the events a look is due, if they ask for one.
    fn weigh(&mut self, events: &[Event], now: Instant) -> Option<Duration> {
        let mut asked = None;
        for event in events {
            match event {
                Event::Name { dir, name, change } => {
                    if self.routes.concerns(dir, name) {
                        asked = asked.max(self.weigh_name(dir, name, *change, now));
                    }
                }
                Event::DirGone { .. } => asked = asked.max(Some(QUIET_GONE)),
                Event::Overflow => {
                    self.writing.clear();
                    asked = asked.max(Some(QUIET));
                }
            }
        }
        asked
    }

    fn weigh_name(&mut self, dir: &Path, name: &OsStr, change: Change, now: Instant) -> Option<Duration> {
        let path = dir.join(name);
        match change {
            Change::Created if is_to_be_written(&path) => {
                self.written_to(path, now);
                None
            }
            Change::Modified => {
                self.written_to(path, now);
                None
            }
            Change::MovedIn | Change::Closed => {
                self.writing.remove(&path);
                Some(Duration::ZERO)
            }
            Change::Created => {
                self.writing.remove(&path);
                Some(QUIET)
            }
            Change::Attributes => (!self.writing.contains_key(&path)).then_some(QUIET),
            Change::Removed | Change::MovedOut => {
                self.writing.remove(&path);
                // What is renamed away is what editors do; they put it back.
                if change == Change::Removed {
                    self.deleted.extend(self.routes.entry(dir, name));
                }
                Some(QUIET_GONE)
            }
        }
    }

    fn written_to(&mut self, path: PathBuf, now: Instant) {
        self.writing.entry(path).or_insert(Writing { first: now, last: now }).last = now;
    }
}

/// A new name that is no hard link, no symbolic link and no directory: its writer has yet to close it.
fn is_to_be_written(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.nlink() == 1)
}
