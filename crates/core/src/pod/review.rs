//! Conclusions that last, drawn after every fact: which stage holds, and which instances must end.

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;

use super::container::{Launch, is_alive};
use super::event::PodEvent;
use super::kill::{KillCause, Why};
use super::look::PATIENCE;
use super::observed::{ContainerState, ObservedContainer};
use super::record::{PodRecord, SandboxNeed};
use super::restart::{is_last, is_restarted, pod_policy};
use super::spec::{self, Role, Wanted};
use super::stage::{Cleaning, Stage, StopCause};
use super::step::{ProbeKind, StepKey};
use crate::now::{Mono, Now};
use crate::render::container_hash;

/// kubelet 1.36: reason and message of a pod that ran longer than `activeDeadlineSeconds`.
pub(super) const DEADLINE: &str = "DeadlineExceeded";
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";
const OVERDUE_MESSAGE: &str = "Container runtime did not kill the pod within specified grace period.";

impl PodRecord {
    /// Draws every conclusion that is due. Nothing is concluded before the first look.
    pub(super) fn review(&mut self, now: Now) {
        if self.observed.is_none() {
            return;
        }
        if matches!(self.stage, Stage::Queued { is_behind: false }) {
            self.begin();
        }
        if self.pod.metadata.deletion_timestamp.is_some() && matches!(self.stage, Stage::Queued { .. } | Stage::Active)
        {
            // It came with its end.
            let cause = self.told_end().unwrap_or(StopCause::Withdrawn);
            self.stop(cause, spec::grace_secs(&self.pod), true, now);
        }
        if matches!(self.stage, Stage::Active) {
            self.review_active(now);
        }
        if matches!(self.stage, Stage::Stopping(_)) {
            self.review_stopping(now);
        }
        if let Stage::Cleaning(cleaning) = &self.stage
            && self.is_clean(cleaning)
        {
            self.stage = Stage::Gone;
        }
    }

    /// The first look is taken and no other pod stands before this one.
    fn begin(&mut self) {
        self.stage = Stage::Active;
        self.resume_created();
    }

    /// A container that was created before the agent started, and never started, is started: it is what the pod asks for.
    fn resume_created(&mut self) {
        let Some(observed) = &self.observed else { return };
        let Some(sandbox) = observed.sandboxes.first().filter(|s| s.is_ready).map(|s| s.id.clone()) else { return };
        let mut created = Vec::new();
        for wanted in spec::wanted(&self.pod).chain(spec::guests(&self.guests)) {
            if let Some(newest) = self.newest(wanted.name())
                && newest.state == ContainerState::Created
                && newest.sandbox == sandbox
                && is_as_defined(&wanted, newest)
            {
                created
                    .push((newest.name.clone(), Launch::Start { id: newest.id.clone(), count: newest.restart_count }));
            }
        }
        for (name, launch) in created {
            let container = self.containers.entry(name).or_default();
            if container.launch.is_none() {
                container.launch = Some(launch);
            }
        }
    }

    fn review_active(&mut self, now: Now) {
        self.give_up_waiting(now);
        if let Some(cause) = self.end_of_pod(now) {
            if matches!(cause, StopCause::Failed { .. }) {
                self.events.push(PodEvent::normal("", DEADLINE, DEADLINE_MESSAGE));
            }
            let grace = spec::grace_secs(&self.pod);
            return self.stop(cause, grace, false, now);
        }
        self.review_restart_all(now);
        if self.restart_all.is_some() {
            return;
        }
        self.review_sandbox(now);
        self.review_instances(now);
        self.review_resize(now);
    }

    /// What we made and never saw is not there.
    fn give_up_waiting(&mut self, now: Now) {
        let is_over = |since: Mono| now.mono.since(since) >= PATIENCE;
        if self.sandbox.awaited.as_ref().is_some_and(|(_, since)| is_over(*since)) {
            self.sandbox.awaited = None;
        }
        for container in self.containers.values_mut() {
            if matches!(&container.launch, Some(Launch::Await { since, .. }) if is_over(*since)) {
                container.launch = None;
            }
        }
    }

    /// When `activeDeadlineSeconds` are over.
    pub(super) fn deadline(&self, now: Now) -> Option<Mono> {
        let secs = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let ran = std::time::Duration::try_from(now.wall.duration_since(self.started_at?)).unwrap_or_default();
        let all = std::time::Duration::from_secs(u64::try_from(secs).unwrap_or(0));
        Some(now.mono + all.saturating_sub(ran))
    }

    fn end_of_pod(&self, now: Now) -> Option<StopCause> {
        // Before any other end: it came with this one.
        if let Some(cause) = self.told_end() {
            return Some(cause);
        }
        if self.deadline(now).is_some_and(|at| at <= now.mono) {
            let (reason, message) = (DEADLINE.to_owned(), DEADLINE_MESSAGE.to_owned());
            return Some(StopCause::Failed { reason, message, disruption: None });
        }
        self.completion().map(|has_failed| StopCause::Completed { has_failed })
    }

    /// The end that the pod's status tells of.
    fn told_end(&self) -> Option<StopCause> {
        match self.pod.status.as_ref()?.phase.as_deref()? {
            phase @ ("Failed" | "Succeeded") => Some(StopCause::Completed { has_failed: phase == "Failed" }),
            _ => None,
        }
    }

    /// Whether all work of the pod is done and nothing is started again; then, whether it failed.
    fn completion(&self) -> Option<bool> {
        let has_regular = spec::regulars(&self.pod).any(|w| self.newest(w.name()).is_some());
        let failed_init = |w: &Wanted<'_>| w.role == Role::Init && self.ended_for_good(w).is_some_and(|code| code != 0);
        if !has_regular && spec::inits(&self.pod).any(|w| failed_init(&w)) {
            return Some(true);
        }
        let mut has_failed = false;
        for wanted in spec::regulars(&self.pod) {
            has_failed |= self.ended_for_good(&wanted)? != 0;
        }
        Some(has_failed)
    }

    /// The exit code of a container that ended and stays down.
    pub(super) fn ended_for_good(&self, wanted: &Wanted<'_>) -> Option<i32> {
        let newest = self.newest(wanted.name())?;
        let code = self.end_of(newest)?;
        let record = self.container(wanted.name())?;
        let is_over = record.launch.is_none() && !is_restarted(&self.pod, wanted, record, newest.id.as_str(), code);
        is_over.then_some(code)
    }

    /// A sandbox that is to be replaced takes everything in it along.
    fn review_sandbox(&mut self, now: Now) {
        let SandboxNeed::Make { attempt } = self.sandbox_need() else { return };
        let Some(newest) = self.newest_sandbox() else { return };
        let is_first = self.sandbox.announced != Some(newest.attempt);
        let has_ended = !newest.is_ready && self.steps.is_recent(&StepKey::StopSandbox(newest.id.clone()));
        if is_first && !has_ended {
            self.sandbox.announced = Some(newest.attempt);
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.events.push(PodEvent::normal("", "SandboxChanged", message));
        }
        let grace_secs = spec::grace_secs(&self.pod);
        for (id, name) in self.unkilled() {
            self.kill(&id, &name, Why { cause: KillCause::Sandbox, grace_secs, message: None }, now);
        }
        let has_run = attempt > 0 && self.observed.as_ref().is_some_and(|o| !o.containers.is_empty());
        if pod_policy(&self.pod) == "Never" && has_run && self.alive().next().is_none() {
            // kubelet 1.36: what may not run twice does not begin again in another sandbox.
            self.stop(StopCause::Completed { has_failed: true }, grace_secs, false, now);
        }
    }

    /// Living instances that nobody ends yet.
    fn unkilled(&self) -> Vec<(ContainerId, ContainerName)> {
        self.alive().filter(|c| !self.kills.contains_key(&c.id)).map(|c| (c.id.clone(), c.name.clone())).collect()
    }

    /// Single instances that must end while the pod goes on.
    fn review_instances(&mut self, now: Now) {
        let mut ends: Vec<(ContainerId, ContainerName, Why)> = Vec::new();
        for wanted in spec::wanted(&self.pod) {
            for (nth, instance) in self.instances(wanted.name()).filter(|c| is_alive(&c.state)).enumerate() {
                if self.kills.contains_key(&instance.id) {
                    continue;
                }
                if let Some(why) = self.why_end(&wanted, instance, nth > 0) {
                    ends.push((instance.id.clone(), instance.name.clone(), why));
                }
            }
        }
        for (id, name, why) in ends {
            self.kill(&id, &name, why, now);
        }
    }

    fn why_end(&self, wanted: &Wanted<'_>, instance: &ObservedContainer, is_double: bool) -> Option<Why> {
        let grace_secs = spec::grace_secs(&self.pod);
        let name = wanted.name();
        let is_left_alone = wanted.role == Role::Sidecar && self.is_winding_down();
        let why = |cause, message: Option<String>| Some(Why { cause, grace_secs, message });
        if is_double {
            return why(KillCause::Double, None);
        }
        if instance.state == ContainerState::Unknown {
            let message = format!("Container {name} is in unknown state, try killing it before restart");
            return why(KillCause::Unknown, Some(message));
        }
        if !is_as_defined(wanted, instance) {
            return why(KillCause::Definition, Some(format!("Container {name} definition changed, will be restarted")));
        }
        let kind = self.failed_probe(wanted, instance).filter(|_| !is_left_alone)?;
        let (word, probe) = match kind {
            ProbeKind::Startup => ("startup", wanted.spec.startup_probe.as_ref()),
            ProbeKind::Liveness | ProbeKind::Readiness => ("liveness", wanted.spec.liveness_probe.as_ref()),
        };
        let is_again = wanted.role == Role::Sidecar || !is_last(&self.pod, wanted, KillCause::Probe);
        if !is_again && self.is_alone(wanted) {
            // kubelet 1.36: the pod ends, with the grace of pods and their words.
            return why(KillCause::Probe, None);
        }
        let own_grace = probe.and_then(|p| p.termination_grace_period_seconds);
        let tail = if is_again { ", will be restarted" } else { "" };
        Some(Why {
            cause: KillCause::Probe,
            grace_secs: own_grace.unwrap_or(grace_secs),
            message: Some(format!("Container {name} failed {word} probe{tail}")),
        })
    }

    /// The probe that wants an instance's end.
    fn failed_probe(&self, wanted: &Wanted<'_>, instance: &ObservedContainer) -> Option<ProbeKind> {
        self.container(wanted.name())?.probes.as_ref().filter(|p| p.id == instance.id)?.failed()
    }

    /// Whether nothing of the pod goes on without this container: every other one is over, or fails its probe for good, too.
    fn is_alone(&self, wanted: &Wanted<'_>) -> bool {
        let fails = |other: &Wanted<'_>| {
            let failed = self.newest(other.name()).and_then(|instance| self.failed_probe(other, instance));
            failed.is_some() && is_last(&self.pod, other, KillCause::Probe)
        };
        let mut others = spec::regulars(&self.pod).filter(|other| other.name() != wanted.name());
        wanted.role == Role::Regular && others.all(|other| self.is_over(&other) || fails(&other))
    }

    fn review_stopping(&mut self, now: Now) {
        self.give_up_waiting(now);
        let Stage::Stopping(stopping) = &mut self.stage else { return };
        let began = *stopping.began.get_or_insert(now);
        let (grace_secs, cause, is_withdrawn) = (stopping.grace_secs, stopping.cause.clone(), stopping.is_withdrawn);
        let spent = super::record::whole_secs(now.mono.since(began.mono));
        let left = grace_secs.saturating_sub(spent).max(1);
        for (id, name) in self.unkilled() {
            self.kill(&id, &name, Why { cause: KillCause::Stop, grace_secs: left, message: None }, now);
        }
        let is_stopped = self.alive().next().is_none()
            && !self.is_making_something()
            && !self.is_laying_ground()
            && self.sandbox.awaited.is_none()
            && self.sandbox.to_stop.is_empty()
            // kubelet 1.36: before the API server hears of the end, which lets others have what it used.
            && !self.holds_claims();
        if !is_stopped
            && let Stage::Stopping(stopping) = &mut self.stage
            && stopping.overdue_at().is_some_and(|at| at <= now.mono)
        {
            stopping.is_overdue = true;
            self.events.push(PodEvent::warning("", "ExceededGracePeriod", OVERDUE_MESSAGE));
        }
        if is_stopped {
            self.stage = Stage::Cleaning(Cleaning {
                cause,
                is_withdrawn,
                is_unmounted: false,
                has_no_cgroup: false,
                has_no_dirs: false,
            });
        }
    }

    /// Nothing is left of a pod that nobody wants.
    fn is_clean(&self, cleaning: &Cleaning) -> bool {
        let is_empty = self.observed.as_ref().is_some_and(|o| o.containers.is_empty() && o.sandboxes.is_empty());
        cleaning.is_withdrawn && cleaning.is_unmounted && cleaning.has_no_cgroup && cleaning.has_no_dirs && is_empty
    }
}

/// Whether an instance was made from this image and name. kubelet 1.36: the hash covers nothing else.
fn is_as_defined(wanted: &Wanted<'_>, instance: &ObservedContainer) -> bool {
    let image = wanted.spec.image.as_deref().unwrap_or_default();
    instance.hash.is_none_or(|hash| hash == container_hash(image, wanted.name()))
}

/// Names of a pod for messages: `name_namespace(uid)`.
pub(super) fn full_name(pod: &v1::Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}_{}({})",
        metadata.name.as_deref().unwrap_or_default(),
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.uid.as_deref().unwrap_or_default()
    )
}
