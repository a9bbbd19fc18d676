//! Whether a container that ended runs again.

use std::time::Duration;

use rubelet_api::v1;

use super::backoff::Limits;
use super::container::{ContainerRecord, EndedByUs, ended_at, exit_code};
use super::kill::KillCause;
use super::observed::{ContainerState, ObservedContainer};
use super::record::PodRecord;
use super::spec::{self, Role, Wanted};
use super::step::StepKey;
use crate::node::NodeFacts;
use crate::now::{Now, Wall};

/// Exit code of an instance that could not be started and has none of its own.
const NEVER_STARTED: i32 = 128;

/// What follows the end of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AfterExit {
    Restart,
    /// The whole pod starts over in its sandbox.
    RestartAll,
    Stay,
}

/// What the policies say about an exit code: the container's rules first, then its own policy, then the pod's.
pub(super) fn after_exit(pod: &v1::Pod, wanted: &Wanted<'_>, code: i32) -> AfterExit {
    let action = action(wanted.spec, code);
    // kubelet 1.36: the pod starts over whatever kind of container says so.
    match (wanted.role, action) {
        (Role::Ephemeral, _) => return AfterExit::Stay,
        (_, Some("RestartAllContainers")) => return AfterExit::RestartAll,
        (Role::Sidecar, _) => return AfterExit::Restart,
        (Role::Init, _) if code == 0 => return AfterExit::Stay,
        (_, Some("Restart")) => return AfterExit::Restart,
        _ => {}
    }
    match policy(pod, wanted) {
        "Never" => AfterExit::Stay,
        "OnFailure" if code == 0 => AfterExit::Stay,
        _ => AfterExit::Restart,
    }
}

/// What the first of a container's rules that fits an exit code says.
fn action(container: &v1::Container, code: i32) -> Option<&str> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let rule = rules.find(|rule| rule.exit_codes.as_ref().is_some_and(|codes| fits(codes, code)))?;
    Some(&rule.action)
}

/// The restart policy that holds for the container.
pub(super) fn policy<'a>(pod: &'a v1::Pod, wanted: &Wanted<'a>) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    wanted.spec.restart_policy.as_deref().or(of_pod).unwrap_or("Always")
}

/// The pod's own restart policy.
pub(super) fn pod_policy(pod: &v1::Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a dead instance is followed by another one, with regard to who ended it.
pub(super) fn is_restarted(pod: &v1::Pod, wanted: &Wanted<'_>, record: &ContainerRecord, id: &str, code: i32) -> bool {
    if wanted.role == Role::Ephemeral {
        return false;
    }
    let ended_by_us = record.ended_by_us.as_ref().filter(|e| e.id.as_str() == id);
    match ended_by_us.map(EndedByUs::cause) {
        Some(
            KillCause::Definition | KillCause::Sandbox | KillCause::RestartAll | KillCause::Unknown | KillCause::Resize,
        ) => true,
        Some(KillCause::Probe) => policy(pod, wanted) != "Never",
        Some(KillCause::PostStart | KillCause::Double | KillCause::Stop) | None => {
            after_exit(pod, wanted, code) != AfterExit::Stay
        }
    }
}

/// Whether an instance that is being ended is followed by none, whatever its exit code will be.
pub(super) fn is_last(pod: &v1::Pod, wanted: &Wanted<'_>, cause: KillCause) -> bool {
    match cause {
        KillCause::Probe => policy(pod, wanted) == "Never",
        KillCause::PostStart | KillCause::Double | KillCause::Stop => {
            policy(pod, wanted) == "Never" && wanted.spec.restart_policy_rules.is_none()
        }
        KillCause::Definition | KillCause::Sandbox | KillCause::RestartAll | KillCause::Unknown | KillCause::Resize => {
            false
        }
    }
}

impl PodRecord {
    /// Whether every regular container has ended for good or is about to. kubelet 1.36: nothing else happens in the pod while one is
    /// being ended, so that from here on no sidecar starts again or is ended for its probes.
    pub(super) fn is_winding_down(&self) -> bool {
        spec::regulars(&self.pod).all(|w| self.is_over(&w))
    }

    /// Whether a container has ended for good or is about to.
    pub(super) fn is_over(&self, wanted: &Wanted<'_>) -> bool {
        let mut kills = self.kills.values().filter(|k| k.name.as_str() == wanted.name());
        self.ended_for_good(wanted).is_some() || kills.any(|k| is_last(&self.pod, wanted, k.cause))
    }

    /// The exit code of a dead instance. One that could not be started is dead, too, even where the runtime leaves it as created.
    pub(super) fn end_of(&self, instance: &ObservedContainer) -> Option<i32> {
        let start_failed = self.container(instance.name.as_str()).and_then(|c| c.start_failed.as_ref());
        let never = start_failed.filter(|(id, _)| *id == instance.id && instance.state == ContainerState::Created);
        exit_code(&instance.state).or(never.map(|_| NEVER_STARTED))
    }

    /// Until when a container that ended and runs again stays down, and the delay that is shown; `None`: it may start now, or there
    /// is nothing to restart. One that is being started waits no more, although the next wait is longer from then on. kubelet 1.36: an
    /// instance that we ended counts by the one before it.
    pub(super) fn crash_wait(&self, wanted: &Wanted<'_>, node: &NodeFacts, now: Now) -> Option<(Wall, Duration)> {
        let container = self.container(wanted.name())?;
        let newest = self.newest(wanted.name())?;
        let key = StepKey::EnsureImage(newest.name.clone());
        if container.launch.is_some() || self.steps.is_under_way(&key) {
            return None;
        }
        let start_failed = container.start_failed.as_ref().filter(|(id, _)| *id == newest.id).map(|(_, at)| *at);
        let ended = ended_at(&newest.state).or(start_failed)?;
        let code = exit_code(&newest.state).unwrap_or(NEVER_STARTED);
        if !is_restarted(&self.pod, wanted, container, newest.id.as_str(), code) {
            return None;
        }
        let by_us = container.ended_by_us.as_ref().filter(|e| e.id == newest.id && e.cause != KillCause::Stop);
        let ended = match by_us {
            Some(by_us) => by_us.earlier_end?,
            None => ended,
        };
        container.back_off?.until(ended, Limits::of(node)).filter(|(until, _)| now.wall < *until)
    }
}

fn fits(rule: &v1::ContainerRestartRuleOnExitCodes, code: i32) -> bool {
    let is_listed = rule.values.iter().flatten().any(|v| *v == code);
    match rule.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        _ => false,
    }
}
