//! Who waits for a change in a directory is woken: one watch of the kernel's for all, however many wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rubelet_host::watch::{Event, Watcher};
use tokio::sync::{Notify, watch};

/// All that is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bells(Arc<Tower>);

#[derive(Debug, Default)]
struct Tower {
    rung: Mutex<Rung>,
    /// Other directories are wanted now.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Rung {
    dirs: BTreeMap<PathBuf, (watch::Sender<()>, usize)>,
    /// Whether the task is there that watches.
    is_served: bool,
}

/// One who waits. It is rung when it is made, too.
#[derive(Debug)]
pub(crate) struct Bell {
    tower: Arc<Tower>,
    dir: PathBuf,
    rung: watch::Receiver<()>,
}

impl Bells {
    /// Watches a directory until the bell is dropped. Needs a tokio runtime.
    pub(crate) fn hang(&self, dir: &Path) -> Bell {
        let mut rung = self.0.lock();
        let (sender, count) = rung.dirs.entry(dir.to_owned()).or_insert_with(|| (watch::Sender::new(()), 0));
        *count += 1;
        let mut receiver = sender.subscribe();
        receiver.mark_changed();
        if !rung.is_served {
            rung.is_served = true;
            rubelet_host::task::spawn(ring(self.0.clone()));
        }
        drop(rung);
        self.0.changed.notify_one();
        Bell { tower: self.0.clone(), dir: dir.to_owned(), rung: receiver }
    }
}

impl Bell {
    /// Something has changed in the directory since the last time. Without a watch of the kernel's this may never be:
    /// look again after a while. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        if self.rung.changed().await.is_err() {
            // Cannot be: the sender is there as long as we are counted.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut rung = self.tower.lock();
        if let Some((_, count)) = rung.dirs.get_mut(&self.dir) {
            *count -= 1;
            if *count == 0 {
                rung.dirs.remove(&self.dir);
                drop(rung);
                self.tower.changed.notify_one();
            }
        }
    }
}

impl Tower {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        // Each change of the map is one step.
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until nobody waits any more.
async fn ring(tower: Arc<Tower>) {
    let mut watcher = match Watcher::new() {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "logs are followed without inotify: once a second");
            tower.lock().is_served = false;
            return;
        }
    };
    loop {
        {
            let mut rung = tower.lock();
            let dirs: BTreeSet<PathBuf> = rung.dirs.keys().cloned().collect();
            if dirs.is_empty() {
                rung.is_served = false;
                return;
            }
            // One that cannot be watched is looked at once a second by who waits.
            let refused = watcher.set(&dirs);
            for (dir, error) in refused {
                tracing::debug!(dir = %dir.display(), %error, "directory of logs is not watched");
            }
            // What happened before the watch was there counts.
            rung.dirs.values().for_each(|(sender, _)| sender.send_modify(|()| {}));
        }
        loop {
            tokio::select! {
                () = tower.changed.notified() => break,
                events = watcher.next() => match events {
                    Ok(events) => tower.tell(&events),
                    Err(error) => {
                        tracing::warn!(%error, "logs are followed without inotify: once a second");
                        tower.lock().is_served = false;
                        return;
                    }
                },
            }
        }
    }
}

impl Tower {
    fn tell(&self, events: &[Event]) {
        let rung = self.lock();
        let mut told: BTreeSet<&Path> = BTreeSet::new();
        for event in events {
            match event {
                Event::Name { dir, .. } | Event::DirGone { dir } => {
                    if told.insert(dir)
                        && let Some((sender, _)) = rung.dirs.get(dir)
                    {
                        sender.send_modify(|()| {});
                    }
                }
                Event::Overflow => rung.dirs.values().for_each(|(sender, _)| sender.send_modify(|()| {})),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_directory_rings_for_those_who_wait_for_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bells = Bells::default();
        let mut waiting: Vec<Bell> = (0..300).map(|_| bells.hang(one.path())).collect();
        let mut other = bells.hang(two.path());
        for bell in waiting.iter_mut().chain([&mut other]) {
            bell.wait().await;
        }
        // The task watches as soon as it had its turn.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        waiting.iter_mut().chain([&mut other]).for_each(|bell| bell.rung.mark_unchanged());
        std::fs::write(one.path().join("0.log"), "x").unwrap();
        for bell in &mut waiting {
            bell.wait().await;
        }
        assert!(!other.rung.has_changed().unwrap());
        drop(waiting);
        drop(other);
        while bells.0.lock().is_served {
            tokio::task::yield_now().await;
        }
        assert!(bells.0.lock().dirs.is_empty());
        bells.hang(one.path()).wait().await;
    }
}
