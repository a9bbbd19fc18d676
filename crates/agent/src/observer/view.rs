//! What one pod's worker has seen so far, and how a relist differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_core::pod::{ContainerState, Observed, ObservedContainer, ObservedSandbox};

use super::{Ask, Sighting};

/// State of a listed container, as far as lists tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListedState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// A relist's rows about one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Sandbox and whether it is ready.
    pub sandboxes: BTreeMap<SandboxId, bool>,
    pub containers: BTreeMap<ContainerId, ListedState>,
}

/// All that was seen of one pod, by id.
#[derive(Clone, Debug, Default)]
pub struct View {
    sandboxes: BTreeMap<SandboxId, ObservedSandbox>,
    containers: BTreeMap<ContainerId, ObservedContainer>,
    pids: BTreeMap<ContainerId, u32>,
    watched: BTreeSet<ContainerId>,
    has_cgroup: Option<bool>,
}

impl View {
    /// Takes in sightings; says whether anything is new.
    pub fn take(&mut self, seen: Vec<Sighting>) -> bool {
        let mut is_new = false;
        for sighting in seen {
            is_new |= self.take_one(sighting);
        }
        is_new
    }

    fn take_one(&mut self, sighting: Sighting) -> bool {
        match sighting {
            Sighting::Sandbox(mut sandbox) => {
                let known = self.sandboxes.get(&sandbox.id);
                if sandbox.ips.is_empty()
                    && !sandbox.is_ready
                    && let Some(known) = known
                {
                    // Kubelet 1.36: a sandbox that stopped keeps the addresses it had.
                    sandbox.ips.clone_from(&known.ips);
                }
                let is_new = known != Some(&sandbox);
                self.sandboxes.insert(sandbox.id.clone(), sandbox);
                is_new
            }
            Sighting::SandboxGone(id) => self.sandboxes.remove(&id).is_some(),
            Sighting::Container(container, pid) => {
                let container = *container;
                if let Some(pid) = pid {
                    self.pids.insert(container.id.clone(), pid);
                }
                let is_new = self.containers.get(&container.id) != Some(&container);
                self.containers.insert(container.id.clone(), container);
                is_new
            }
            Sighting::ContainerGone(id) => {
                self.pids.remove(&id);
                self.watched.remove(&id);
                self.containers.remove(&id).is_some()
            }
            Sighting::Cgroup(has) => {
                let is_new = self.has_cgroup != Some(has);
                self.has_cgroup = Some(has);
                is_new
            }
        }
    }

    /// The view as a fact: newest first.
    pub fn observed(&self) -> Observed {
        let mut sandboxes: Vec<_> = self.sandboxes.values().cloned().collect();
        sandboxes.sort_by(|a, b| (b.attempt, b.created_at).cmp(&(a.attempt, a.created_at)));
        let mut containers: Vec<_> = self.containers.values().cloned().collect();
        containers.sort_by(|a, b| (&a.name, b.created_at).cmp(&(&b.name, a.created_at)));
        Observed { sandboxes, containers, has_cgroup: self.has_cgroup }
    }

    /// What to look at because a relist shows it otherwise.
    pub fn differences(&self, listed: &Listed) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (id, is_ready) in &listed.sandboxes {
            if self.sandboxes.get(id).map(|s| s.is_ready) != Some(*is_ready) {
                asks.push(Ask::Sandbox(id.clone()));
            }
        }
        for id in self.sandboxes.keys().filter(|id| !listed.sandboxes.contains_key(*id)) {
            asks.push(Ask::Sandbox(id.clone()));
        }
        for (id, state) in &listed.containers {
            if self.containers.get(id).map(|c| listed_state(&c.state)) != Some(*state) {
                asks.push(Ask::Container(id.clone()));
            }
        }
        for id in self.containers.keys().filter(|id| !listed.containers.contains_key(*id)) {
            asks.push(Ask::Container(id.clone()));
        }
        asks
    }

    /// Running containers whose end nobody waits for yet; from now on somebody does.
    pub fn unwatched(&mut self) -> Vec<(ContainerId, u32)> {
        let mut found = Vec::new();
        for (id, pid) in &self.pids {
            let is_running = self.containers.get(id).is_some_and(|c| c.state.is_running());
            if is_running && self.watched.insert(id.clone()) {
                found.push((id.clone(), *pid));
            }
        }
        found
    }

    /// Addresses of the newest sandbox.
    pub fn ips(&self) -> Vec<IpAddr> {
        let newest = self.sandboxes.values().max_by_key(|s| (s.attempt, s.created_at));
        newest.map(|s| s.ips.clone()).unwrap_or_default()
    }

    /// The sandbox ids seen.
    pub fn sandbox_ids(&self) -> impl Iterator<Item = &SandboxId> {
        self.sandboxes.keys()
    }

    /// The container ids seen.
    pub fn container_ids(&self) -> impl Iterator<Item = &ContainerId> {
        self.containers.keys()
    }
}

fn listed_state(state: &ContainerState) -> ListedState {
    match state {
        ContainerState::Created => ListedState::Created,
        ContainerState::Running { .. } => ListedState::Running,
        ContainerState::Exited { .. } => ListedState::Exited,
        ContainerState::Unknown => ListedState::Unknown,
    }
}
