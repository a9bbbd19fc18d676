//! The sandboxes and containers that there are: the one place in memory where that is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri;
use tokio::sync::watch;

pub(crate) mod record;

use record::{ContainerRecord, End, SandboxRecord};

use crate::stats::rate::Rate;

/// A pod's sandbox.
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) record: Mutex<SandboxRecord>,
    pub(crate) life: watch::Sender<SandboxLife>,
    /// Held by verbs that change it, one after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) cpu: Rate,
}

/// How far a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SandboxLife {
    /// Its pause process runs, with this pid on the host.
    Ready { pid: u32 },
    /// Stopped, or its pause process has ended.
    NotReady,
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) sandbox: SandboxId,
    pub(crate) record: Mutex<ContainerRecord>,
    pub(crate) life: watch::Sender<Life>,
    /// Held by verbs that start or remove it.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) cpu: Rate,
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Life {
    Created,
    /// With the pid of its first process on the host.
    Running {
        pid: u32,
        started_at_nanos: i64,
    },
    Ended(End),
}

impl Sandbox {
    pub(crate) fn new(id: SandboxId, record: SandboxRecord, life: SandboxLife) -> Arc<Self> {
        Arc::new(Self {
            id,
            record: Mutex::new(record),
            life: watch::Sender::new(life),
            turn: tokio::sync::Mutex::default(),
            cpu: Rate::default(),
        })
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, SandboxRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn life(&self) -> SandboxLife {
        *self.life.borrow()
    }
}

impl Container {
    pub(crate) fn new(id: ContainerId, record: ContainerRecord, life: Life) -> Arc<Self> {
        Arc::new(Self {
            id,
            sandbox: SandboxId::new(&record.sandbox),
            record: Mutex::new(record),
            life: watch::Sender::new(life),
            turn: tokio::sync::Mutex::default(),
            cpu: Rate::default(),
        })
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, ContainerRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// Waits until it has ended; one that was never started does not end.
    pub(crate) async fn ended(&self) -> End {
        let mut life = self.life.subscribe();
        loop {
            if let Life::Ended(end) = &*life.borrow_and_update() {
                return end.clone();
            }
            // The sender lives as long as we do.
            let _ = life.changed().await;
        }
    }
}

/// All of them, and the names that are taken.
#[derive(Default)]
pub(crate) struct Pods {
    sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
    /// Names by whom they are reserved for; those of sandboxes and containers differ in form.
    names: HashMap<String, String>,
}

impl Pods {
    /// Takes a name for an id. The answer is the id that has it already.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<(), String> {
        match self.names.get(name) {
            Some(other) if other != id => Err(other.clone()),
            Some(_) | None => {
                self.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives back the name that an id had taken.
    pub(crate) fn free_name_of(&mut self, id: &str) {
        self.names.retain(|_, holder| holder != id);
    }

    /// Ids of all that there are and all that are being made.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let there = self.sandboxes.keys().map(ToString::to_string);
        let there = there.chain(self.containers.keys().map(ToString::to_string));
        there.chain(self.names.values().cloned()).collect()
    }

    /// Ids of sandboxes that have a network, or are being made.
    pub(crate) fn attached(&self) -> Vec<String> {
        let is_stopped = |id: &str| self.sandboxes.get(&SandboxId::new(id)).is_some_and(|s| s.record().is_stopped);
        self.ids().into_iter().filter(|id| !is_stopped(id)).collect()
    }

    pub(crate) fn add_sandbox(&mut self, sandbox: Arc<Sandbox>) {
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    pub(crate) fn add_container(&mut self, container: Arc<Container>) {
        self.containers.insert(container.id.clone(), container);
    }

    pub(crate) fn forget_sandbox(&mut self, id: &SandboxId) {
        self.sandboxes.remove(id);
        self.free_name_of(id.as_str());
    }

    pub(crate) fn forget_container(&mut self, id: &ContainerId) {
        self.containers.remove(id);
        self.free_name_of(id.as_str());
    }

    /// By its id, or the beginning of it when only one begins so.
    pub(crate) fn sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        only(self.sandboxes.range(SandboxId::new(id)..).map(|(key, one)| (key.as_str(), one)), id)
    }

    /// By its id, or the beginning of it when only one begins so.
    pub(crate) fn container(&self, id: &str) -> Option<Arc<Container>> {
        only(self.containers.range(ContainerId::new(id)..).map(|(key, one)| (key.as_str(), one)), id)
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        self.containers.values().filter(|c| c.sandbox == *sandbox).cloned().collect()
    }
}

/// The first of `sorted`, if its key begins with `id` and no other's does, or is `id` itself.
fn only<'a, T: Clone + 'a>(mut sorted: impl Iterator<Item = (&'a str, &'a T)>, id: &str) -> Option<T> {
    let (key, first) = sorted.next().filter(|(key, _)| !id.is_empty() && key.starts_with(id))?;
    let is_ambiguous = key != id && sorted.next().is_some_and(|(other, _)| other.starts_with(id));
    (!is_ambiguous).then(|| first.clone())
}

/// The name under which a sandbox is unique: its metadata, as containerd joins them.
pub(crate) fn sandbox_name(metadata: &cri::PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt)
}

/// The name under which a container is unique.
pub(crate) fn container_name(metadata: &cri::ContainerMetadata, sandbox: &cri::PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}_{}", metadata.name, sandbox.name, sandbox.namespace, sandbox.uid, metadata.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_shortened_while_they_mean_one() {
        let mut pods = Pods::default();
        for id in ["ab01", "ab02", "cd01", "cd0123"] {
            pods.add_sandbox(Sandbox::new(SandboxId::new(id), SandboxRecord::default(), SandboxLife::NotReady));
        }
        let found = |id: &str| pods.sandbox(id).map(|s| s.id.to_string());
        assert_eq!(found("ab01").as_deref(), Some("ab01"));
        assert_eq!(found("ab"), None);
        assert_eq!(found("cd01").as_deref(), Some("cd01"));
        assert_eq!(found("cd012").as_deref(), Some("cd0123"));
        assert_eq!((found(""), found("x")), (None, None));
    }

    #[test]
    fn a_name_is_taken_once_and_given_back() {
        let mut pods = Pods::default();
        assert_eq!(pods.reserve("a", "1"), Ok(()));
        assert_eq!(pods.reserve("a", "2"), Err("1".to_owned()));
        pods.free_name_of("1");
        assert_eq!(pods.reserve("a", "2"), Ok(()));
    }
}
