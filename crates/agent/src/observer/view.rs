//! What one pod's worker has seen so far, and how a relist differs from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_core::pod::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
use tokio::time::Instant;

use super::{Ask, Seen, Sighting};

#[cfg(test)]
mod tests;

/// What is gone is remembered for this long, against looks that began before it went.
const GONE_KEPT: Duration = Duration::from_secs(60);

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
    /// When the relist began; `None` for rows that nobody listed: they say nothing.
    pub at: Option<Instant>,
    /// Sandbox and whether it is ready.
    pub sandboxes: BTreeMap<SandboxId, bool>,
    pub containers: BTreeMap<ContainerId, ListedState>,
    /// Whether the pod has its cgroup; `None` where that was not asked.
    pub has_cgroup: Option<bool>,
}

/// All that was seen of one pod, by id.
#[derive(Clone, Debug, Default)]
pub struct View {
    sandboxes: BTreeMap<SandboxId, Known<ObservedSandbox>>,
    containers: BTreeMap<ContainerId, Known<ObservedContainer>>,
    cgroup: Option<(Instant, bool)>,
}

/// The latest sighting of one thing.
#[derive(Clone, Debug)]
struct Known<T> {
    at: Instant,
    /// `None`: it is gone.
    seen: Option<T>,
    pid: Option<u32>,
    is_watched: bool,
}

impl View {
    /// Takes in sightings; says whether anything is new.
    pub fn take(&mut self, seen: Vec<Sighting>) -> bool {
        let mut is_new = false;
        for Sighting { at, seen } in seen {
            is_new |= match seen {
                Seen::Sandbox(sandbox, pid) => self.take_sandbox(at, sandbox, pid),
                Seen::SandboxGone(id) => put(&mut self.sandboxes, id, at, None, None),
                Seen::Container(container, pid) => {
                    put(&mut self.containers, container.id.clone(), at, Some(*container), pid)
                }
                Seen::ContainerGone(id) => put(&mut self.containers, id, at, None, None),
                Seen::Cgroup(has) => self.take_cgroup(at, has),
            };
        }
        is_new
    }

    fn take_sandbox(&mut self, at: Instant, mut sandbox: ObservedSandbox, pid: Option<u32>) -> bool {
        let known = self.sandboxes.get(&sandbox.id).and_then(|k| k.seen.as_ref());
        if sandbox.ips.is_empty()
            && !sandbox.is_ready
            && let Some(known) = known
        {
            // Kubelet 1.36: a sandbox that stopped keeps the addresses it had.
            sandbox.ips.clone_from(&known.ips);
        }
        put(&mut self.sandboxes, sandbox.id.clone(), at, Some(sandbox), pid)
    }

    fn take_cgroup(&mut self, at: Instant, has: bool) -> bool {
        if self.cgroup.is_some_and(|(before, _)| before > at) {
            return false;
        }
        let is_new = self.cgroup.map(|(_, had)| had) != Some(has);
        self.cgroup = Some((at, has));
        is_new
    }

    /// The view as a fact: newest first.
    pub fn observed(&self) -> Observed {
        let mut sandboxes: Vec<_> = self.sandboxes().cloned().collect();
        sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        let mut containers: Vec<_> = self.containers().cloned().collect();
        containers.sort_by(|a, b| (&a.name, b.created_at).cmp(&(&b.name, a.created_at)));
        Observed { sandboxes, containers, has_cgroup: self.cgroup.map(|(_, has)| has) }
    }

    /// What to look at because a relist shows it otherwise. What was seen after the relist began needs no second look.
    pub fn differences(&self, listed: &Listed) -> Vec<Ask> {
        let Some(at) = listed.at else { return Vec::new() };
        let mut asks = Vec::new();
        for (id, is_ready) in &listed.sandboxes {
            let known = self.sandboxes.get(id);
            let same = known.is_some_and(|k| k.at > at || k.seen.as_ref().map(|s| s.is_ready) == Some(*is_ready));
            if !same {
                asks.push(Ask::Sandbox(id.clone()));
            }
        }
        let lost = |k: &Known<_>| k.seen.is_some() && k.at <= at;
        for (id, _) in self.sandboxes.iter().filter(|(id, k)| lost(k) && !listed.sandboxes.contains_key(*id)) {
            asks.push(Ask::Sandbox(id.clone()));
        }
        for (id, state) in &listed.containers {
            let known = self.containers.get(id);
            let shown = |k: &Known<ObservedContainer>| k.seen.as_ref().map(|c| listed_state(&c.state));
            if !known.is_some_and(|k| k.at > at || shown(k) == Some(*state)) {
                asks.push(Ask::Container(id.clone()));
            }
        }
        let lost = |k: &Known<_>| k.seen.is_some() && k.at <= at;
        for (id, _) in self.containers.iter().filter(|(id, k)| lost(k) && !listed.containers.contains_key(*id)) {
            asks.push(Ask::Container(id.clone()));
        }
        if let (Some(has), Some((seen_at, had))) = (listed.has_cgroup, self.cgroup)
            && has != had
            && seen_at <= at
        {
            asks.push(Ask::Cgroup);
        }
        asks
    }

    /// Living sandboxes and containers whose end nobody waits for yet; from now on somebody does.
    pub fn unwatched(&mut self) -> Vec<(Ask, u32)> {
        let mut found = Vec::new();
        for (id, known) in &mut self.sandboxes {
            if let Some(pid) = known.watch(|s| s.is_ready) {
                found.push((Ask::SandboxEnded(id.clone()), pid));
            }
        }
        for (id, known) in &mut self.containers {
            if let Some(pid) = known.watch(|c| c.state.is_running()) {
                found.push((Ask::ContainerEnded(id.clone()), pid));
            }
        }
        found
    }

    /// Addresses of the newest sandbox.
    pub fn ips(&self) -> Vec<IpAddr> {
        let newest = self.sandboxes().max_by_key(|s| (s.attempt, s.created_at));
        newest.map(|s| s.ips.clone()).unwrap_or_default()
    }

    /// Nothing of the pod is in the runtime, as far as was seen.
    pub fn is_empty(&self) -> bool {
        self.sandboxes().next().is_none() && self.containers().next().is_none()
    }

    fn sandboxes(&self) -> impl Iterator<Item = &ObservedSandbox> {
        self.sandboxes.values().filter_map(|k| k.seen.as_ref())
    }

    fn containers(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.values().filter_map(|k| k.seen.as_ref())
    }
}

impl<T> Known<T> {
    fn watch(&mut self, lives: impl Fn(&T) -> bool) -> Option<u32> {
        let is_due = !self.is_watched && self.seen.as_ref().is_some_and(lives);
        let pid = self.pid.filter(|_| is_due)?;
        self.is_watched = true;
        Some(pid)
    }
}

/// Puts a sighting into its place unless a later one is there; says whether it is new.
fn put<K: Ord, T: PartialEq>(
    all: &mut BTreeMap<K, Known<T>>,
    id: K,
    at: Instant,
    seen: Option<T>,
    pid: Option<u32>,
) -> bool {
    all.retain(|_, k| k.seen.is_some() || at.saturating_duration_since(k.at) < GONE_KEPT);
    match all.get_mut(&id) {
        Some(known) if known.at > at => false,
        Some(known) => {
            let is_new = known.seen != seen;
            known.is_watched &= pid.is_none() || known.pid == pid;
            *known = Known { at, seen, pid, is_watched: known.is_watched };
            is_new
        }
        None => {
            let is_new = seen.is_some();
            all.insert(id, Known { at, seen, pid, is_watched: false });
            is_new
        }
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
