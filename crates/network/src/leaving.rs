//! Links on their way out. The kernel lets nobody go on who removes one until all processors have taken note, some 20 ms: a thread in
//! the background waits for that.
//!
//! What it was told to remove is down already. If this program is killed, the link is gone with the pod's
//! namespace, or with the next sweep.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::link;

/// The links that are being removed.
#[derive(Debug, Default)]
pub(crate) struct Leaving(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    is_less: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The first is being removed.
    names: VecDeque<String>,
    is_at_work: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let Some(name) = queue.names.front().cloned() else {
                queue.is_at_work = false;
                self.is_less.notify_all();
                return;
            };
            drop(queue);
            if let Err(error) = link::remove(&name) {
                tracing::warn!(link = name, err = %error, "a link of a pod that is gone could not be removed; the next sweep tries again");
            }
            self.lock().names.pop_front();
            self.is_less.notify_all();
        }
    }
}

impl Drop for Leaving {
    /// Who has the network next finds no link that is about to go.
    fn drop(&mut self) {
        self.settle();
    }
}

impl Leaving {
    /// Removes a link in the background; at once if there is no thread to be had.
    pub(crate) fn add(&self, name: &str) {
        let mut queue = self.0.lock();
        queue.names.push_back(name.to_owned());
        if queue.is_at_work {
            return;
        }
        queue.is_at_work = true;
        drop(queue);
        let shared = self.0.clone();
        let spawned = std::thread::Builder::new()
            .name("leaving-links".into())
            .stack_size(128 * 1024)
            .spawn(move || shared.work());
        if spawned.is_err() {
            self.0.work();
        }
    }

    /// Waits until no link of this name is being removed.
    pub(crate) fn wait(&self, name: &str) {
        self.wait_while(|names| names.iter().any(|one| one == name));
    }

    /// Waits until no link is being removed.
    pub(crate) fn settle(&self) {
        self.wait_while(|names| !names.is_empty());
    }

    fn wait_while(&self, is_in: impl Fn(&VecDeque<String>) -> bool) {
        let mut queue = self.0.lock();
        while is_in(&queue.names) {
            queue = self.0.is_less.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
