//! `RestartAllContainers`: every container of the pod ends, is removed and starts over in the same sandbox.

use std::collections::BTreeSet;

use rubelet_api::ids::ContainerName;

use super::container::{ContainerRecord, exit_code, is_alive};
use super::decide::Planner;
use super::kill::{KillCause, Why};
use super::record::PodRecord;
use super::restart::{AfterExit, after_exit};
use super::spec::{self, Role};
use super::step::Step;
use crate::now::Now;

/// All containers are being replaced.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct RestartAll {
    /// Containers whose exit demands it; they are removed last.
    pub(super) sources: BTreeSet<ContainerName>,
}

impl PodRecord {
    /// Begins when a container's rule says so, ends when no instance is left.
    pub(super) fn review_restart_all(&mut self, now: Now) {
        let demands = |w: &spec::Wanted<'_>| {
            let code = self.newest(w.name()).and_then(|c| exit_code(&c.state));
            code.is_some_and(|code| after_exit(&self.pod, w, code) == AfterExit::RestartAll)
        };
        let sources: BTreeSet<ContainerName> =
            spec::wanted(&self.pod).filter(demands).map(|w| ContainerName::new(w.name())).collect();
        match &mut self.restart_all {
            None if sources.is_empty() => return,
            None => self.restart_all = Some(RestartAll { sources }),
            Some(all) => all.sources.extend(sources),
        }
        self.containers.values_mut().for_each(ContainerRecord::start_over);
        let Some(observed) = &self.observed else { return };
        let alive: Vec<_> = observed
            .containers
            .iter()
            .filter(|c| is_alive(&c.state) && !self.kills.contains_key(&c.id))
            .map(|c| (c.id.clone(), c.name.clone()))
            .collect();
        let is_over = observed.containers.is_empty() && !self.is_making_something();
        for (id, name) in alive {
            self.kill(&id, &name, Why { cause: KillCause::RestartAll, grace_secs: 0, message: None }, now);
        }
        if is_over {
            self.restart_all = None;
        }
    }
}

impl ContainerRecord {
    fn start_over(&mut self) {
        self.launch = None;
        self.failure = None;
        self.start_failed = None;
    }
}

/// Removes what has ended: first the regular containers, then init containers, last those whose exit demanded it. Logs stay.
pub(super) fn decide(p: &mut Planner<'_>, all: &RestartAll) {
    let record = p.record;
    let Some(observed) = &record.observed else { return };
    if record.alive().next().is_some() {
        return;
    }
    let place = |name: &ContainerName| {
        let role = spec::find(&record.pod, name.as_str()).map(|w| w.role);
        match role {
            _ if all.sources.contains(name) => 2,
            Some(Role::Init | Role::Sidecar) => 1,
            Some(Role::Regular | Role::Ephemeral) | None => 0,
        }
    };
    let first = observed.containers.iter().map(|c| place(&c.name)).min();
    for dead in observed.containers.iter().filter(|c| Some(place(&c.name)) == first) {
        p.issue(Step::RemoveContainer { container: dead.name.clone(), id: dead.id.clone(), keep_logs: true });
    }
}
