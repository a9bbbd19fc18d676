//! Ending one instance of a container: its preStop hook, then the runtime's stop.

use std::time::Duration;

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;

use super::container::{EndedByUs, is_alive};
use super::decide::Planner;
use super::event::PodEvent;
use super::observed::ContainerState;
use super::record::{PodRecord, whole_secs};
use super::spec::{self, Role};
use super::stage::Stage;
use super::step::{HookKind, Step, StepKey};
use crate::now::{Mono, Now, Wall};

/// kubelet 1.36: the runtime never gets less time than this to stop a container.
pub(super) const GRACE_SECS_MIN: i64 = 2;

/// Reason and message of the event about a preStop hook that failed.
pub(super) const HOOK_FAILED: &str = "FailedPreStopHook";
pub(super) const HOOK_FAILED_MESSAGE: &str = "PreStopHook failed";

/// Why an instance must end; it decides the grace and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KillCause {
    /// The pod is being stopped.
    Stop,
    /// Its liveness or startup probe failed.
    Probe,
    PostStart,
    /// The pod wants another image.
    Definition,
    /// Its sandbox is replaced.
    Sandbox,
    /// The runtime does not know its state.
    Unknown,
    /// A second one of the same container lives.
    Double,
    RestartAll,
    /// Its new size needs a new start.
    Resize,
}

/// The ending of one instance.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Kill {
    pub(super) name: ContainerName,
    pub(super) cause: KillCause,
    pub(super) grace_secs: i64,
    pub(super) began: Now,
    pub(super) hook: Hook,
    /// What the running stop was told, in seconds, and when.
    pub(super) told: Option<(i64, Mono)>,
    /// The runtime said that it is stopped.
    pub(super) is_stopped: bool,
    earlier_end: Option<Wall>,
}

/// The preStop hook of an instance that must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hook {
    Due,
    Over,
}

impl Kill {
    /// Whole seconds that remain of the grace, as the runtime is told.
    pub(super) fn remaining(&self, now: Mono) -> i64 {
        self.grace_secs.saturating_sub(whole_secs(now.since(self.began.mono))).max(GRACE_SECS_MIN)
    }

    fn deadline(&self) -> Mono {
        self.began.mono + Duration::from_secs(self.grace_secs.unsigned_abs())
    }

    /// Whether the runtime stopped it although its state stays unknown.
    pub(super) fn is_over(&self, state: &ContainerState) -> bool {
        self.is_stopped && *state == ContainerState::Unknown
    }
}

impl PodRecord {
    /// Decides that an instance must end. It is told once; a later reason with less grace shortens it.
    pub(super) fn kill(&mut self, id: &ContainerId, name: &ContainerName, why: Why, now: Now) {
        if let Some(kill) = self.kills.get_mut(id) {
            if why.cause == KillCause::Stop {
                kill.cause = KillCause::Stop;
                let spent = whole_secs(now.mono.since(kill.began.mono));
                kill.grace_secs = kill.grace_secs.min(spent.saturating_add(why.grace_secs));
            }
            return;
        }
        let wanted = spec::find_any(&self.pod, &self.guests, name.as_str());
        let hook = wanted.and_then(|w| w.spec.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        let hook = if hook.is_some() && why.grace_secs > 0 { Hook::Due } else { Hook::Over };
        let path = wanted.map(|w| w.field_path()).unwrap_or_default();
        let message = why.message.unwrap_or_else(|| format!("Stopping container {name}"));
        self.events.push(PodEvent::normal(path, "Killing", message));
        let container = self.containers.entry(name.clone()).or_default();
        let kill = Kill {
            name: name.clone(),
            cause: why.cause,
            grace_secs: why.grace_secs,
            began: now,
            hook,
            told: None,
            is_stopped: false,
            earlier_end: container
                .ends
                .first()
                .filter(|e| e.id != *id)
                .and_then(|e| super::container::ended_at(&e.state)),
        };
        self.kills.insert(id.clone(), kill);
    }

    /// Kills of a pod that is being stopped take no longer than the pod's grace.
    pub(super) fn shorten_kills(&mut self, grace_secs: i64, now: Now) {
        for kill in self.kills.values_mut() {
            let spent = whole_secs(now.mono.since(kill.began.mono));
            kill.grace_secs = kill.grace_secs.min(grace_secs.max(spent));
        }
    }

    /// After a look: kills whose instance is dead or gone are over.
    pub(super) fn finish_kills(&mut self) {
        let Some(observed) = &self.observed else { return };
        let is_living = |id: &ContainerId| observed.containers.iter().any(|c| c.id == *id && is_alive(&c.state));
        let over: Vec<ContainerId> = self.kills.keys().filter(|id| !is_living(id)).cloned().collect();
        for id in over {
            let Some(kill) = self.kills.remove(&id) else { continue };
            let was_in_hook = self.steps.is_under_way(&StepKey::RunHook(id.clone(), HookKind::PreStop));
            if was_in_hook && pre_stop(&self.pod, &kill.name).is_some_and(|hook| hook.exec.is_some()) {
                // Its command ended with the container.
                let path = self.field_path(&kill.name);
                self.events.push(PodEvent::warning(path, HOOK_FAILED, HOOK_FAILED_MESSAGE));
            }
            self.containers.entry(kill.name.clone()).or_default().ended_by_us =
                Some(EndedByUs { id, cause: kill.cause, decided: kill.began.wall, earlier_end: kill.earlier_end });
        }
    }
}

/// Why, with how much grace, and with which words.
#[derive(Clone, Debug)]
pub(super) struct Why {
    pub(super) cause: KillCause,
    pub(super) grace_secs: i64,
    /// The event's; `None`: the usual one.
    pub(super) message: Option<String>,
}

/// Hooks and stops of all instances that must end.
pub(super) fn decide(p: &mut Planner<'_>) {
    for (id, kill) in &p.record.kills {
        let is_living = p.record.alive().any(|c| c.id == *id);
        if !is_living {
            continue;
        }
        match kill.hook {
            Hook::Due if p.now.mono < kill.deadline() => run_hook(p, id, kill),
            Hook::Due | Hook::Over if may_signal(p, kill) => stop(p, id, kill),
            Hook::Due | Hook::Over => p.wake(kill.deadline()),
        }
    }
    // A hook outlives the grace, but not its container.
    let under_way = p.record.steps.under_way().filter_map(|key| match key {
        StepKey::RunHook(id, HookKind::PreStop) => Some(id),
        _ => None,
    });
    let left: Vec<ContainerId> = under_way.filter(|id| p.record.alive().all(|c| c.id != **id)).cloned().collect();
    for id in left {
        p.cancel(StepKey::RunHook(id, HookKind::PreStop));
    }
}

/// kubelet 1.36: a hook that takes longer than the grace is waited for no more, and goes on until the container has ended.
fn run_hook(p: &mut Planner<'_>, id: &ContainerId, kill: &Kill) {
    p.wake(kill.deadline());
    let Some(handler) = pre_stop(&p.record.pod, &kill.name).cloned() else { return };
    p.issue(Step::RunHook { container: kill.name.clone(), id: id.clone(), kind: HookKind::PreStop, handler });
}

fn pre_stop<'a>(pod: &'a v1::Pod, name: &ContainerName) -> Option<&'a v1::LifecycleHandler> {
    spec::find(pod, name.as_str())?.spec.lifecycle.as_ref()?.pre_stop.as_ref()
}

fn stop(p: &mut Planner<'_>, id: &ContainerId, kill: &Kill) {
    let key = StepKey::StopContainer(id.clone());
    let remaining = kill.remaining(p.now.mono);
    if p.record.steps.is_under_way(&key) {
        if let Some((told, at)) = kill.told {
            let left = told.saturating_sub(whole_secs(p.now.mono.since(at)));
            if left > remaining.saturating_add(1) {
                p.cancel(key);
            }
        }
        return;
    }
    p.issue(Step::StopContainer { container: kill.name.clone(), id: id.clone(), grace_secs: remaining });
}

/// kubelet 1.36: when a pod stops, sidecars get their signal after all regular containers and all sidecars behind them have ended, or
/// when the grace is used up.
fn may_signal(p: &Planner<'_>, kill: &Kill) -> bool {
    let record = p.record;
    if !matches!(record.stage, Stage::Stopping(_)) || p.now.mono >= kill.deadline() {
        return true;
    }
    let is_sidecar = |name: &str| spec::find(&record.pod, name).is_some_and(|w| w.role == Role::Sidecar);
    if !is_sidecar(kill.name.as_str()) {
        return true;
    }
    let place = |name: &str| spec::inits(&record.pod).position(|w| w.name() == name);
    let own = place(kill.name.as_str());
    record.alive().all(|c| is_sidecar(c.name.as_str()) && place(c.name.as_str()) <= own)
}
