//! Learning: the only way in which a record changes.

use std::collections::BTreeMap;

use rubelet_api::ids::{ContainerId, ContainerName};

use super::backoff::{BackOff, PullBackOff};
use super::container::{Failure, Launch, ended_at};
use super::event::{PodEvent, shown};
use super::fact::{Done, EvictOrder, Fact, Growth, ImageFound, Order, Outcome, Pulled, StepFailure};
use super::kill::{self, Hook, KillCause, Why};
use super::needs::{Got, Need};
use super::record::{ClaimStage, PodRecord};
use super::spec;
use super::stage::active::NO_ROOM;
use super::stage::{Stage, StopCause};
use super::step::{HookKind, StepKey};
use crate::now::Now;
use crate::resources::claims::wishes;

/// The outcome of a step that was cancelled: no failure, nobody is told.
pub const CANCELLED: &str = "Cancelled";
/// How long a container that could not be created waits.
const CREATE_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// kubelet 1.36: the words.
fn pulled_text(image: &str, pulled: Option<&Pulled>, is_unchecked: bool) -> String {
    match pulled {
        None if is_unchecked => format!("Container image \"{image}\" already present on machine"),
        None => format!("Container image \"{image}\" already present on machine and can be accessed by the pod"),
        Some(pulled) => format!(
            "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {} bytes.",
            shown(pulled.took),
            shown(pulled.took_with_waiting),
            pulled.size_bytes
        ),
    }
}

impl PodRecord {
    /// Takes in one fact and draws the conclusions that last: stage, containers that must end, events.
    pub fn absorb(&mut self, fact: Fact, now: Now) {
        match fact {
            Fact::Desired(pod) => self.desired(pod, now),
            Fact::Resize(verdict) => self.resize_decided(verdict, now),
            Fact::Withdrawn => self.withdrawn(now),
            Fact::Observed(observed) => self.look(observed, now),
            Fact::StepStarted(key) => self.step_started(key, now),
            Fact::StepDone { key, outcome } => self.step_done(&key, outcome, now),
            Fact::Order(order) => self.ordered(order, now),
            Fact::Published { status, events } => self.was_published(status, events),
            Fact::Behind(is_behind) => self.behind(is_behind),
            Fact::Pulling(container) => self.pulling(&container),
            Fact::LogCounts(counts) => {
                for (name, count) in counts {
                    if let (Some(container), Some(last)) = (self.containers.get_mut(&name), count.checked_sub(1)) {
                        container.saw_count(last);
                    }
                }
            }
            Fact::Inputs(got) => self.inputs_came(got, now),
            Fact::Devices(devices) => {
                self.devices = devices;
                // A driver may be there now.
                self.steps.forgive_claims();
            }
            Fact::Tick => {}
        }
        self.review(now);
    }

    fn desired(&mut self, pod: std::sync::Arc<rubelet_api::v1::Pod>, now: Now) {
        if self.source == super::Source::Runtime {
            return;
        }
        let pod = self.hold_sizes(pod);
        for wanted in spec::wanted(&pod) {
            let before = spec::find(&self.pod, wanted.name());
            let is_same =
                before.is_some_and(|b| b.spec.image == wanted.spec.image && b.spec.resources == wanted.spec.resources);
            if let Some(container) = self.containers.get_mut(&ContainerName::new(wanted.name())).filter(|_| !is_same) {
                container.back_off = None;
                container.pull_back_off = None;
                container.failure = None;
            }
        }
        let is_shown_otherwise = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations
            || pod.spec != self.pod.spec;
        self.ground.volumes.revision += u64::from(is_shown_otherwise);
        if wishes::named(&pod, true) != wishes::named(&self.pod, true) {
            self.steps.forgive_claims();
        }
        self.pod = pod;
        self.know_containers();
        if self.pod.metadata.deletion_timestamp.is_some() {
            let grace = spec::grace_secs(&self.pod);
            self.stop(StopCause::Withdrawn, grace, true, now);
        }
    }

    /// What waited for an object, or failed for want of one, is tried at once.
    fn inputs_came(&mut self, got: BTreeMap<Need, Got>, now: Now) {
        let inputs = self.inputs.with(got);
        if inputs == self.inputs {
            return;
        }
        self.inputs = inputs;
        self.ground.volumes.revision += 1;
        self.steps.forgive_for_want();
        let lacked = self.containers.values_mut().filter_map(|c| c.failure.as_mut());
        for failure in lacked.filter(|f| f.reason == crate::render::CONFIG_ERROR) {
            failure.retry_at = failure.retry_at.map(|_| now.mono);
        }
    }

    fn withdrawn(&mut self, now: Now) {
        let grace = spec::grace_secs(&self.pod);
        self.stop(StopCause::Withdrawn, grace, true, now);
    }

    fn ordered(&mut self, order: Order, now: Now) {
        let is_over = self.stage.stop_cause().is_some() || self.is_gone();
        match order {
            Order::Reject { reason, message } if !is_over => {
                self.events.push(PodEvent::warning("", &reason, message.clone()));
                let grace = spec::grace_secs(&self.pod);
                self.stop(StopCause::Rejected { reason, message }, grace, false, now);
            }
            Order::Evict(EvictOrder { grace_secs, reason, message, annotations, disruption }) => {
                if !is_over {
                    let event = PodEvent::warning("", &reason, message.clone());
                    self.events.push(PodEvent { annotations, ..event });
                }
                let grace = grace_secs.unwrap_or_else(|| spec::grace_secs(&self.pod));
                self.stop(StopCause::Failed { reason, message, disruption }, grace, false, now);
            }
            Order::ShutDown { grace_secs } => {
                let own = spec::grace_secs(&self.pod);
                self.stop(StopCause::ShutDown, grace_secs.map_or(own, |most| own.min(most)), false, now);
            }
            Order::Reject { .. } => {}
        }
    }

    fn behind(&mut self, is_behind: bool) {
        let is_untouched = self.observed.as_ref().is_none_or(|o| o.sandboxes.is_empty() && o.containers.is_empty())
            && !self.is_making_something();
        match &mut self.stage {
            Stage::Queued { is_behind: known } => *known = is_behind,
            Stage::Active if is_behind && is_untouched => self.stage = Stage::Queued { is_behind },
            Stage::Active | Stage::Stopping(_) | Stage::Cleaning(_) | Stage::Gone => {}
        }
    }

    fn was_published(&mut self, status: std::sync::Arc<rubelet_api::v1::PodStatus>, events: usize) {
        if events > self.events.len() && !matches!(self.sandbox_need(), super::record::SandboxNeed::Keep(_)) {
            self.is_trouble_told = true;
        }
        if events > self.events.len() {
            for (name, container) in &mut self.containers {
                let newest = self.observed.iter().flat_map(|o| &o.containers).find(|c| c.name == *name);
                container.back_off_told = newest.filter(|c| ended_at(&c.state).is_some()).map(|c| c.id.clone());
            }
        }
        self.events.drain(..events.min(self.events.len()));
        self.published = Some(status);
    }

    fn pulling(&mut self, container: &ContainerName) {
        if let Some(wanted) = spec::find_any(&self.pod, &self.guests, container.as_str()) {
            let image = wanted.spec.image.as_deref().unwrap_or_default();
            self.events.push(PodEvent::normal(wanted.field_path(), "Pulling", format!("Pulling image \"{image}\"")));
        }
    }

    fn step_started(&mut self, key: StepKey, now: Now) {
        self.resize_began(&key);
        match &key {
            StepKey::EnsureImage(name) => self.launch_began(name, now),
            StepKey::Mount(volume) => self.ground.volumes.begin(volume),
            StepKey::Probe(id, kind) => self.probe_started(id, *kind, now),
            StepKey::StopContainer(id) => {
                if let Some(kill) = self.kills.get_mut(id) {
                    kill.told = Some((kill.remaining(now.mono), now.mono));
                }
            }
            StepKey::EnsureCgroup
            | StepKey::PrepareDirs
            | StepKey::Expand(_)
            | StepKey::PrepareClaims(_)
            | StepKey::ReleaseClaims
            | StepKey::CreateSandbox(_)
            | StepKey::CreateContainer(..)
            | StepKey::StartContainer(_)
            | StepKey::RunHook(..)
            | StepKey::RemoveContainer(_)
            | StepKey::StopSandbox(_)
            | StepKey::RemoveSandbox(_)
            | StepKey::ResizePod(..)
            | StepKey::ResizeContainer(..)
            | StepKey::Unmount
            | StepKey::RemoveCgroup
            | StepKey::RemoveDirs => {}
        }
        self.steps.start(key, now.mono);
    }

    /// A container is about to be started: if it ended before, the next restart will wait longer.
    fn launch_began(&mut self, name: &ContainerName, now: Now) {
        let newest = self.newest(name.as_str()).map(|c| (c.id.clone(), ended_at(&c.state)));
        let Some(container) = self.containers.get_mut(name) else { return };
        if let Some(failure) = &mut container.failure {
            failure.retry_at = None;
        }
        let Some((id, ended)) = newest else { return };
        let ended = ended.or_else(|| container.start_failed.as_ref().filter(|(f, _)| *f == id).map(|(_, at)| *at));
        let by_us = container.ended_by_us.as_ref().filter(|e| e.id == id);
        // kubelet 1.36: an instance that we ended counts by the one before it; the first time there is none.
        let is_free = by_us.is_some_and(|e| e.cause != KillCause::Stop && e.earlier_end.is_none());
        if let Some(ended) = ended.filter(|_| !is_free) {
            container.back_off = Some(BackOff::next(container.back_off, ended, now.wall));
        }
    }

    fn step_done(&mut self, key: &StepKey, outcome: Outcome, now: Now) {
        match outcome {
            Ok(Done::GroundGone) => {
                self.steps.cancel(key);
                self.ground.has_dirs = false;
                self.ground.volumes.mounted.clear();
            }
            Ok(done) => {
                if self.steps.succeed(key, now.mono) {
                    self.succeeded(key, done, now);
                }
            }
            Err(failure) if failure.reason == CANCELLED => {
                self.steps.cancel(key);
                self.cancelled(key);
            }
            Err(failure) => {
                self.steps.fail(key, now.mono);
                self.failed(key, failure, now);
            }
        }
    }

    fn succeeded(&mut self, key: &StepKey, done: Done, now: Now) {
        match (key, done) {
            (StepKey::EnsureCgroup, _) => self.ground.has_cgroup = true,
            (StepKey::PrepareDirs, _) => self.ground.has_dirs = true,
            (StepKey::Mount(volume), done) => {
                self.ground.volumes.done(volume, now.mono);
                self.volume_news(volume, done);
            }
            (StepKey::Expand(volume), done) => self.volume_news(volume, done),
            (StepKey::PrepareClaims(attempt), _) => self.claims = ClaimStage::Prepared { attempt: *attempt },
            (StepKey::ReleaseClaims, _) => self.claims = ClaimStage::Released,
            (StepKey::CreateSandbox(attempt), Done::Sandbox(id)) => {
                self.sandbox.attempt_max = self.sandbox.attempt_max.max(Some(*attempt));
                if !self.observed.iter().flat_map(|o| &o.sandboxes).any(|s| s.id == id) {
                    self.sandbox.awaited = Some((id, now.mono));
                }
            }
            (StepKey::EnsureImage(name), Done::Image(found)) => self.image_found(name, found),
            (StepKey::CreateContainer(name, count), Done::Container(id)) => {
                let path = self.field_path(name);
                self.events.push(PodEvent::normal(path, "Created", "Container created"));
                self.created_with_size(name, &id);
                let container = self.containers.entry(name.clone()).or_default();
                container.saw_count(*count);
                container.launch = Some(Launch::Start { id, count: *count });
            }
            (StepKey::StartContainer(id), _) => self.container_started(id, now),
            (StepKey::RunHook(id, HookKind::PostStart), _) => self.hook_ended(id, now),
            (StepKey::RunHook(id, HookKind::PreStop), _) => self.kill_may_go_on(id),
            (StepKey::Probe(id, kind), Done::Probe(answer)) => self.probe_answered(id, *kind, &answer, now),
            (StepKey::StopContainer(id), _) => {
                if let Some(kill) = self.kills.get_mut(id) {
                    kill.is_stopped = true;
                }
            }
            (StepKey::StopSandbox(id), _) => {
                self.sandbox.to_stop.remove(id);
            }
            (StepKey::ResizePod(part, to), _) => self.pod_resized(*part, *to),
            (StepKey::ResizeContainer(id, measure, request, limit), _) => {
                self.container_resized(id, *measure, *request, *limit);
            }
            (StepKey::Unmount, _) => self.cleaned(|c| c.is_unmounted = true),
            (StepKey::RemoveCgroup, _) => self.cleaned(|c| c.has_no_cgroup = true),
            (StepKey::RemoveDirs, _) => self.cleaned(|c| c.has_no_dirs = true),
            (StepKey::RemoveContainer(_) | StepKey::RemoveSandbox(_), _) => {}
            (
                StepKey::CreateSandbox(_) | StepKey::EnsureImage(_) | StepKey::CreateContainer(..) | StepKey::Probe(..),
                Done::Plain
                | Done::Sandbox(_)
                | Done::Image(_)
                | Done::Container(_)
                | Done::GroundGone
                | Done::Probe(_)
                | Done::Mounted
                | Done::Volume(_),
            ) => self.steps.fail(key, now.mono),
        }
    }

    /// kubelet 1.36: the words.
    fn volume_news(&mut self, volume: &str, done: Done) {
        let Done::Volume(news) = done else { return };
        let name = self.volume_name(volume);
        if let Some((global, link)) = news.mapped {
            for (what, path) in [("globalMapPath", global), ("volumeMapPath", link)] {
                let message = format!(
                    "MapVolume.MapPodDevice succeeded for volume {name:?} {what} {:?}",
                    path.display().to_string()
                );
                self.events.push(PodEvent::normal("", "SuccessfulMountVolume", message));
            }
        }
        match news.growth {
            Some(Growth::Done(bytes)) => {
                self.ground.volumes.grown.insert(volume.to_owned(), bytes);
                let node = self.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
                let message = format!("MountVolume.NodeExpandVolume succeeded for volume {name:?} {node}");
                self.events.push(PodEvent::normal("", "FileSystemResizeSuccessful", message));
            }
            Some(Growth::Left(bytes)) => drop(self.ground.volumes.grown.insert(volume.to_owned(), bytes)),
            None => {}
        }
    }

    /// As messages name it: the PersistentVolume's name, or its own.
    fn volume_name(&self, volume: &str) -> String {
        let mut all = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let claim = all.find(|v| v.name == volume).and_then(|v| super::needs::claim_of(&self.pod, v));
        let bound = claim.and_then(|claim| self.inputs.claim(claim).ok()?.volume.metadata.name.clone());
        bound.unwrap_or_else(|| volume.to_owned())
    }

    fn cleaned(&mut self, note: impl FnOnce(&mut super::stage::Cleaning)) {
        if let Stage::Cleaning(cleaning) = &mut self.stage {
            note(cleaning);
        }
    }

    pub(super) fn field_path(&self, name: &ContainerName) -> String {
        spec::find_any(&self.pod, &self.guests, name.as_str()).map(|w| w.field_path()).unwrap_or_default()
    }

    fn image_found(&mut self, name: &ContainerName, found: ImageFound) {
        let Some(wanted) = spec::find_any(&self.pod, &self.guests, name.as_str()) else { return };
        let image = wanted.spec.image.as_deref().unwrap_or_default();
        let event = PodEvent::normal(
            wanted.field_path(),
            "Pulled",
            pulled_text(image, found.pulled.as_ref(), found.is_unchecked),
        );
        for volume in found.volumes.values() {
            if volume.pulled.is_some() {
                self.events.push(PodEvent::normal("", "Pulling", format!("Pulling image \"{}\"", volume.image)));
            }
            let message = pulled_text(&volume.image, volume.pulled.as_ref(), found.is_unchecked);
            self.events.push(PodEvent::normal("", "Pulled", message));
        }
        self.events.push(event);
        let container = self.containers.entry(name.clone()).or_default();
        container.pull_back_off = None;
        container.launch = Some(Launch::Create { image: Box::new(found) });
    }

    fn container_started(&mut self, id: &ContainerId, now: Now) {
        let is_it = |l: &Option<Launch>| matches!(l, Some(Launch::Start { id: of, .. }) if of == id);
        let Some(name) = self.containers.iter().find(|(_, c)| is_it(&c.launch)).map(|(n, _)| n.clone()) else { return };
        let Some(wanted) = spec::find_any(&self.pod, &self.guests, name.as_str()) else { return };
        let has_hook = wanted.spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        self.events.push(PodEvent::normal(wanted.field_path(), "Started", "Container started"));
        let is_seen = self.newest(name.as_str()).is_some_and(|c| c.id == *id && super::container::is_alive(&c.state));
        let container = self.containers.entry(name).or_default();
        container.launch = match (has_hook, is_seen) {
            (true, _) => Some(Launch::Hook { id: id.clone() }),
            (false, false) => Some(Launch::Await { id: id.clone(), since: now.mono }),
            (false, true) => None,
        };
        if !has_hook {
            container.failure = None;
        }
    }

    /// The postStart hook of an instance is over.
    fn hook_ended(&mut self, id: &ContainerId, now: Now) {
        let Some(name) = self.containers.iter().find(|(_, c)| c.awaits_hook(id)).map(|(n, _)| n.clone()) else {
            return;
        };
        let is_seen = self.newest(name.as_str()).is_some_and(|c| c.id == *id);
        let container = self.containers.entry(name).or_default();
        container.launch = (!is_seen).then(|| Launch::Await { id: id.clone(), since: now.mono });
        container.failure = None;
    }

    fn kill_may_go_on(&mut self, id: &ContainerId) {
        if let Some(kill) = self.kills.get_mut(id) {
            kill.hook = Hook::Over;
        }
    }

    fn cancelled(&mut self, key: &StepKey) {
        match key {
            StepKey::RunHook(id, HookKind::PreStop) => self.kill_may_go_on(id),
            StepKey::StopContainer(id) => {
                if let Some(kill) = self.kills.get_mut(id) {
                    kill.told = None;
                }
            }
            StepKey::RunHook(id, HookKind::PostStart) => {
                for container in self.containers.values_mut().filter(|c| c.awaits_hook(id)) {
                    container.launch = None;
                }
            }
            StepKey::EnsureCgroup
            | StepKey::PrepareDirs
            | StepKey::Mount(_)
            | StepKey::Expand(_)
            | StepKey::PrepareClaims(_)
            | StepKey::ReleaseClaims
            | StepKey::CreateSandbox(_)
            | StepKey::EnsureImage(_)
            | StepKey::CreateContainer(..)
            | StepKey::StartContainer(_)
            | StepKey::Probe(..)
            | StepKey::RemoveContainer(_)
            | StepKey::StopSandbox(_)
            | StepKey::RemoveSandbox(_)
            | StepKey::ResizePod(..)
            | StepKey::ResizeContainer(..)
            | StepKey::Unmount
            | StepKey::RemoveCgroup
            | StepKey::RemoveDirs => {}
        }
    }

    fn failed(&mut self, key: &StepKey, failure: StepFailure, now: Now) {
        let text = failure.message.clone();
        match key {
            StepKey::EnsureCgroup => {
                let message = format!("unable to ensure pod container exists: {text}");
                self.events.push(PodEvent::warning("", "FailedCreatePodContainer", message));
            }
            StepKey::PrepareDirs => {
                let message = format!("error making pod data directories: {text}");
                self.events.push(PodEvent::warning("", "Failed", message));
            }
            StepKey::Mount(_) if failure.reason == NO_ROOM => {
                self.ordered(Order::Reject { reason: failure.reason, message: text }, now);
            }
            StepKey::Mount(_) => {
                let reason = if failure.reason.is_empty() { "FailedMount" } else { &failure.reason };
                self.events.push(PodEvent::warning("", reason, text));
            }
            StepKey::Expand(_) => self.events.push(PodEvent::warning("", "VolumeResizeFailed", text)),
            StepKey::PrepareClaims(_) => {
                // kubelet 1.36: the words.
                let message = format!("Failed to prepare dynamic resources: prepare dynamic resources: {text}");
                self.events.push(PodEvent::warning("", "FailedPrepareDynamicResources", message));
            }
            StepKey::CreateSandbox(_) => {
                let message = format!("Failed to create pod sandbox: {text}");
                self.events.push(PodEvent::warning("", "FailedCreatePodSandBox", message));
            }
            StepKey::EnsureImage(name) => self.image_failed(name, failure, now),
            StepKey::CreateContainer(name, _) => {
                self.not_created(name);
                let reason = if failure.reason.is_empty() { "CreateContainerError" } else { &failure.reason };
                let retry_at = Some(now.mono + CREATE_AGAIN);
                let failure = Failure { reason: reason.to_owned(), message: text, retry_at };
                self.launch_failed(name, failure);
            }
            StepKey::StartContainer(id) => {
                let is_it = |l: &Option<Launch>| matches!(l, Some(Launch::Start { id: of, .. }) if of == id);
                let Some(name) = self.containers.iter().find(|(_, c)| is_it(&c.launch)).map(|(n, _)| n.clone()) else {
                    return;
                };
                let reason = if failure.reason.is_empty() { "RunContainerError" } else { &failure.reason };
                self.launch_failed(&name, Failure { reason: reason.to_owned(), message: text, retry_at: None });
                self.containers.entry(name).or_default().start_failed = Some((id.clone(), now.wall));
            }
            StepKey::RunHook(id, HookKind::PostStart) => self.post_start_failed(id, &text, now),
            StepKey::RunHook(id, HookKind::PreStop) => {
                let Some(kill) = self.kills.get(id) else { return };
                let path = self.field_path(&kill.name.clone());
                self.events.push(PodEvent::warning(path, kill::HOOK_FAILED, kill::HOOK_FAILED_MESSAGE));
                self.kill_may_go_on(id);
            }
            StepKey::StopContainer(_) | StepKey::StopSandbox(_) => {
                self.events.push(PodEvent::warning("", "FailedKillPod", format!("error killing pod: {text}")));
            }
            StepKey::ResizePod(..) | StepKey::ResizeContainer(..) => self.resize_failed(&text, now),
            StepKey::Probe(id, kind) => {
                self.probe_answered(id, *kind, &super::fact::ProbeAnswer::Unknown(text), now);
            }
            StepKey::ReleaseClaims
            | StepKey::RemoveContainer(_)
            | StepKey::RemoveSandbox(_)
            | StepKey::Unmount
            | StepKey::RemoveCgroup
            | StepKey::RemoveDirs => {}
        }
    }

    fn launch_failed(&mut self, name: &ContainerName, failure: Failure) {
        let path = self.field_path(name);
        self.events.push(PodEvent::warning(path, "Failed", format!("Error: {}", failure.message)));
        let container = self.containers.entry(name.clone()).or_default();
        container.launch = None;
        container.failure = Some(failure);
    }

    /// kubelet 1.36: failed pulls back off; what can be said without asking a registry is tried again with the pod.
    fn image_failed(&mut self, name: &ContainerName, failure: StepFailure, now: Now) {
        let Some(wanted) = spec::find_any(&self.pod, &self.guests, name.as_str()) else { return };
        let (path, image) = (wanted.field_path(), wanted.spec.image.clone().unwrap_or_default());
        let reason = if failure.reason.is_empty() { "ErrImagePull".to_owned() } else { failure.reason };
        let error = |reason: &str| PodEvent::warning(path.clone(), "Failed", format!("Error: {reason}"));
        let mut message = failure.message;
        let container = self.containers.entry(name.clone()).or_default();
        container.launch = None;
        let (shown_reason, retry_at) = match reason.as_str() {
            "ErrImageNeverPull" => {
                self.events.push(PodEvent::warning(path.clone(), "ErrImageNeverPull", message.clone()));
                self.events.push(error(&reason));
                (reason, now.mono + CREATE_AGAIN)
            }
            "InvalidImageName" | "ImageInspectError" => {
                self.events.push(PodEvent::warning(path.clone(), "InspectFailed", message.clone()));
                self.events.push(error(&reason));
                (reason, now.mono + CREATE_AGAIN)
            }
            _ => {
                let text = format!("Failed to pull image \"{image}\": {message}");
                let back_off = PullBackOff::next(container.pull_back_off.as_ref(), now.mono);
                let until = back_off.until();
                container.pull_back_off = Some(back_off);
                let waiting = format!("Back-off pulling image \"{image}\"");
                self.events.push(PodEvent::warning(path.clone(), "Failed", text));
                self.events.push(error(&reason));
                self.events.push(PodEvent::normal(path.clone(), "BackOff", waiting.clone()));
                self.events.push(error("ImagePullBackOff"));
                message = format!("{waiting}: {reason}: {message}");
                ("ImagePullBackOff".to_owned(), until)
            }
        };
        let container = self.containers.entry(name.clone()).or_default();
        container.failure = Some(Failure { reason: shown_reason, message, retry_at: Some(retry_at) });
    }

    fn post_start_failed(&mut self, id: &ContainerId, text: &str, now: Now) {
        let Some(name) = self.containers.iter().find(|(_, c)| c.awaits_hook(id)).map(|(n, _)| n.clone()) else {
            return;
        };
        let path = self.field_path(&name);
        self.events.push(PodEvent::warning(path, "FailedPostStartHook", "PostStartHook failed"));
        let container = self.containers.entry(name.clone()).or_default();
        container.launch = None;
        container.failure =
            Some(Failure { reason: "PostStartHookError".to_owned(), message: text.to_owned(), retry_at: None });
        let why = Why {
            cause: KillCause::PostStart,
            grace_secs: spec::grace_secs(&self.pod),
            message: Some("FailedPostStartHook".to_owned()),
        };
        self.kill(id, &name, why, now);
    }
}
