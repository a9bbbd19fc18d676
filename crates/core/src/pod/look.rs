//! Taking in a complete look at the pod in the runtime.

use std::time::Duration;

use rubelet_api::ids::ContainerName;

use super::container::{ContainerRecord, Launch, is_alive};
use super::observed::{ContainerState, Observed};
use super::record::PodRecord;
use super::stage::Stage;
use super::step::StepKey;
use crate::now::Now;

/// A sandbox or container that we made and that does not show for this long is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

impl PodRecord {
    pub(super) fn look(&mut self, mut observed: Observed, now: Now) {
        observed.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        observed.containers.sort_by(|a, b| (&a.name, b.created_at, &b.id).cmp(&(&b.name, a.created_at, &a.id)));
        let is_first = self.observed.is_none();
        if is_first {
            self.adopt(&observed, now);
        }
        self.look_at_sandboxes(&observed);
        let names: Vec<ContainerName> = self.containers.keys().cloned().collect();
        for name in names.into_iter().chain(observed.containers.iter().map(|c| c.name.clone())) {
            self.look_at_container(&name, &observed);
        }
        if observed.has_cgroup == Some(false) {
            self.ground.has_cgroup = false;
            let is_running = observed.containers.iter().any(|c| c.state.is_running());
            self.sandbox.is_cgroup_lost |= is_running && matches!(self.stage, Stage::Active);
        }
        self.steps.look(now.mono);
        self.observed = Some(observed);
        self.finish_kills();
        self.begin_probes(now);
    }

    /// The first look: what ran before us tells when the pod began, and a created container may be started.
    fn adopt(&mut self, observed: &Observed, now: Now) {
        let oldest = observed.sandboxes.iter().map(|s| s.created_at).min();
        let began = self.started_at.or(oldest).unwrap_or(now.wall);
        self.started_at = Some(began);
    }

    fn look_at_sandboxes(&mut self, observed: &Observed) {
        let memory = &mut self.sandbox;
        for sandbox in &observed.sandboxes {
            memory.attempt_max = memory.attempt_max.max(Some(sandbox.attempt));
            if sandbox.is_ready {
                memory.to_stop.insert(sandbox.id.clone());
            }
        }
        memory.to_stop.retain(|id| observed.sandboxes.iter().any(|s| s.id == *id));
        if memory.awaited.as_ref().is_some_and(|(id, _)| observed.sandboxes.iter().any(|s| s.id == *id)) {
            memory.awaited = None;
        }
        if let Some(newest) = observed.sandboxes.first() {
            if !newest.ips.is_empty() || newest.is_ready {
                memory.ips.clone_from(&newest.ips);
            }
            if !newest.is_ready {
                memory.is_cgroup_lost = false;
            } else if !newest.is_host_network || newest.ips.is_empty() {
                self.is_trouble_told = false;
            }
        }
    }

    fn look_at_container(&mut self, name: &ContainerName, observed: &Observed) {
        let is_kept = self.stage.stop_cause().is_some();
        let removed = |id| self.steps.is_recent(&StepKey::RemoveContainer(id));
        let mut instances = observed.containers.iter().filter(|c| c.name == *name);
        let newest = instances.next();
        let was_removed =
            self.containers.get(name).and_then(|c| c.last_seen.as_ref()).is_some_and(|seen| removed(seen.id.clone()));
        let is_starting = newest.is_some_and(|n| self.steps.is_under_way(&StepKey::StartContainer(n.id.clone())));
        let container = self.containers.entry(name.clone()).or_default();
        for instance in observed.containers.iter().filter(|c| c.name == *name) {
            container.saw_count(instance.restart_count);
            if matches!(instance.state, ContainerState::Exited { .. }) {
                container.remember_end(instance);
            }
        }
        match newest {
            Some(newest) => {
                container.is_lost = false;
                container.last_seen = Some(newest.clone());
                if newest.state.is_running() && !container.awaits_hook(&newest.id) {
                    container.failure = None;
                }
                if container.start_failed.as_ref().is_some_and(|(id, _)| *id != newest.id) {
                    container.start_failed = None;
                }
            }
            // A pod that ends keeps showing what its containers came to.
            None if is_kept => {}
            None if was_removed => {
                container.is_lost = false;
                container.last_seen = None;
            }
            None => container.is_lost = container.last_seen.is_some(),
        }
        if !is_starting {
            container.look_at_launch(newest.map(|n| (&n.id, &n.state)));
        }
    }
}

impl ContainerRecord {
    fn look_at_launch(&mut self, newest: Option<(&rubelet_api::ids::ContainerId, &ContainerState)>) {
        let is_done = match (&self.launch, newest) {
            (Some(Launch::Await { id, .. }), Some((seen, state))) => id == seen && *state != ContainerState::Created,
            (Some(Launch::Start { id, .. }), Some((seen, state))) => {
                id == seen && (is_alive(state) || matches!(state, ContainerState::Exited { .. }))
            }
            (Some(Launch::Hook { .. } | Launch::Create { .. }) | None, _) | (Some(_), None) => false,
        };
        if is_done {
            self.launch = None;
        }
    }
}
