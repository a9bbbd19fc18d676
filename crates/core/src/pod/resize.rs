//! Changing the size of a pod that runs: what is wanted, what was granted, and what the kernel was told.
//!
//! The record's pod has the granted sizes; what a source wants beyond that waits here for admission ([`Fact::Resize`](super::Fact)).

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;

pub(super) mod decide;
mod sizes;

pub(super) use sizes::{PodSizes, Sizes};

use super::container::ContainerRecord;
use super::event::PodEvent;
use super::kill::{KillCause, Why};
use super::record::PodRecord;
use super::spec::{self, Wanted};
use super::step::{Measure, PodPart, StepKey};
use crate::now::{Now, Wall};
use crate::render::json;

/// Whether a pod may have the sizes that it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResizeVerdict {
    Granted,
    /// Not now: `reason` is admission's, the condition says `Deferred`.
    Deferred {
        reason: String,
        message: String,
    },
    /// Never on this node.
    Infeasible {
        /// The metrics' word for it.
        detail: &'static str,
        message: String,
    },
}

const INFEASIBLE: &str = "Infeasible";
const DEFERRED: &str = "Deferred";

/// What is known of a pod's sizes beyond those that were granted.
#[derive(Clone, Debug, Default)]
pub(super) struct Resize {
    /// The pod as its source wants it, when that is more or less than was granted.
    desired: Option<std::sync::Arc<v1::Pod>>,
    /// Why it does not get that.
    pub(super) pending: Option<Condition>,
    /// What was granted is being told to the kernel.
    pub(super) progress: Option<Condition>,
    /// The pod as it was granted before that: what it still has in sum.
    before: Option<std::sync::Arc<v1::Pod>>,
    /// What the pod's cgroup was told; `None`: what the pod has, or nothing at all.
    pub(super) cgroup: Option<PodSizes>,
}

/// One of the two conditions while it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    pub(super) reason: Option<&'static str>,
    pub(super) message: Option<String>,
    pub(super) generation: i64,
    pub(super) since: Wall,
    pub(super) checked: Wall,
}

impl Condition {
    fn new(
        before: Option<&Self>,
        reason: Option<&'static str>,
        message: Option<String>,
        generation: i64,
        now: Now,
    ) -> Self {
        let since = before.filter(|b| b.reason == reason).map_or(now.wall, |b| b.since);
        Self { reason, message, generation, since, checked: now.wall }
    }
}

/// What one instance was told of its size, and what it is being told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) of: Option<(ContainerId, Sizes)>,
    creating: Option<Sizes>,
}

/// A pod that runs, with the sizes that it was granted, when its status says that those it wants now were not: after a start of the
/// agent nothing else tells.
pub fn granted(pod: &v1::Pod) -> Option<v1::Pod> {
    let status = pod.status.as_ref()?;
    let is_pending = |c: &v1::PodCondition| c.type_ == "PodResizePending" && c.status == "True";
    status.conditions.iter().flatten().find(|c| is_pending(c))?;
    let mut granted = pod.clone();
    let spec = granted.spec.as_mut()?;
    let shown = || super::record::pod_statuses(Some(status));
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let Some(has) = shown().find(|s| s.name == container.name) else { continue };
        let Some(requests) = &has.allocated_resources else { continue };
        let sizes = container.resources.get_or_insert_default();
        sizes.requests = Some(requests.clone());
        sizes.limits = has.resources.as_ref().and_then(|r| r.limits.clone());
    }
    sizes::differ(&granted, pod).then_some(granted)
}

impl PodRecord {
    /// The pod as it acts: with the sizes that were granted. Sizes that changed wait for admission. kubelet 1.36: static pods are
    /// never resized, they are replaced.
    pub(super) fn hold_sizes(&mut self, mut pod: std::sync::Arc<v1::Pod>) -> std::sync::Arc<v1::Pod> {
        self.resize.desired = None;
        if self.source.is_static() {
            return pod;
        }
        if !sizes::differ(&pod, &self.pod) {
            self.resize.pending = None;
            return pod;
        }
        self.resize.desired = Some(pod.clone());
        sizes::put(std::sync::Arc::make_mut(&mut pod), &self.pod);
        pod
    }

    /// Admission said whether the wanted sizes can be had.
    pub(super) fn resize_decided(&mut self, verdict: ResizeVerdict, now: Now) {
        let Some(desired) = self.resize.desired.clone() else { return };
        let generation = desired.metadata.generation.unwrap_or(0);
        let (reason, shown, message) = match verdict {
            ResizeVerdict::Granted => return self.grant(desired, generation, now),
            ResizeVerdict::Deferred { reason, message } => (DEFERRED, reason, message),
            ResizeVerdict::Infeasible { message, .. } => (INFEASIBLE, INFEASIBLE.to_owned(), message),
        };
        let before = self.resize.pending.as_ref();
        let is_news = before.is_none_or(|b| b.reason != Some(reason) || b.generation != generation);
        let condition = Condition::new(before, Some(reason), Some(message.clone()), generation, now);
        self.resize.pending = Some(condition);
        if is_news {
            let kind = if reason == INFEASIBLE { "ResizeInfeasible" } else { "ResizeDeferred" };
            let text = told(&format!("Pod resize {shown}"), &desired, generation, Some(&message));
            self.events.push(PodEvent::warning("", kind, text));
        }
    }

    fn grant(&mut self, desired: std::sync::Arc<v1::Pod>, generation: i64, now: Now) {
        for wanted in spec::wanted(&desired) {
            let is_same =
                spec::find(&self.pod, wanted.name()).is_some_and(|b| b.spec.resources == wanted.spec.resources);
            if let Some(container) = self.containers.get_mut(&ContainerName::new(wanted.name())).filter(|_| !is_same) {
                container.back_off = None;
                container.failure = None;
            }
        }
        let before = std::mem::replace(&mut self.pod, desired);
        self.resize.before.get_or_insert(before);
        self.resize.desired = None;
        self.resize.pending = None;
        self.resize.progress = Some(Condition::new(None, None, None, generation, now));
        self.events.push(PodEvent::normal(
            "",
            "ResizeStarted",
            told("Pod resize started", &self.pod, generation, None),
        ));
    }

    /// The pod whose sizes the kernel has in sum.
    pub(super) fn actual(&self) -> &v1::Pod {
        self.resize.before.as_ref().unwrap_or(&self.pod)
    }

    /// What a step that begins is about to tell the kernel.
    pub(super) fn resize_began(&mut self, key: &StepKey) {
        if *key == StepKey::EnsureCgroup {
            self.resize.cgroup = Some(PodSizes::of(&self.pod));
        } else if let StepKey::CreateContainer(name, _) = key {
            let sizes = spec::find(&self.pod, name.as_str()).map(|w| Sizes::of(&self.pod, w.spec));
            if let Some(container) = self.containers.get_mut(name) {
                container.told.creating = sizes;
            }
        }
    }

    /// A container was created with the sizes that it was about to get.
    pub(super) fn created_with_size(&mut self, name: &ContainerName, id: &ContainerId) {
        if let Some(told) = self.containers.get_mut(name).map(|c| &mut c.told)
            && let Some(sizes) = told.creating.take()
        {
            told.of = Some((id.clone(), sizes));
        }
    }

    /// It was not, as far as is known.
    pub(super) fn not_created(&mut self, name: &ContainerName) {
        if let Some(container) = self.containers.get_mut(name) {
            container.told.creating = None;
        }
    }

    /// The pod's cgroup has this part of its size now.
    pub(super) fn pod_resized(&mut self, part: PodPart, to: i64) {
        if let Some(cgroup) = &mut self.resize.cgroup {
            *cgroup = cgroup.with(part, to);
        }
    }

    /// A container has this part of its size now.
    pub(super) fn container_resized(&mut self, id: &ContainerId, measure: Measure, request: i64, limit: i64) {
        for container in self.containers.values_mut() {
            if let Some((_, sizes)) = container.told.of.as_mut().filter(|(of, _)| of == id) {
                *sizes = sizes.with(measure, request, limit);
            }
        }
    }

    /// It could not be told, and is tried again.
    pub(super) fn resize_failed(&mut self, message: &str, now: Now) {
        let generation = self.pod.metadata.generation.unwrap_or(0);
        let before = self.resize.progress.clone();
        let is_news = before.as_ref().is_none_or(|b| b.message.as_deref() != Some(message));
        let generation = before.as_ref().map_or(generation, |b| b.generation);
        let condition = Condition::new(before.as_ref(), Some("Error"), Some(message.to_owned()), generation, now);
        self.resize.progress = Some(condition);
        if is_news {
            let text = told("Pod resize error", &self.pod, generation, Some(message));
            self.events.push(PodEvent::warning("", "ResizeError", text));
        }
    }

    /// Ends instances whose new size needs a new start, and says when all is told.
    pub(super) fn review_resize(&mut self, now: Now) {
        self.assume_sizes();
        let grace_secs = spec::grace_secs(&self.pod);
        let mut ends = Vec::new();
        for wanted in spec::wanted(&self.pod) {
            if let Some((id, told, want)) = self.told(&wanted)
                && sizes::needs_restart(wanted.spec, told, want)
                && !self.kills.contains_key(&id)
            {
                ends.push((id, ContainerName::new(wanted.name())));
            }
        }
        for (id, name) in ends {
            let message = Some(format!("Container {name} resize requires restart"));
            self.kill(&id, &name, Why { cause: KillCause::Resize, grace_secs, message }, now);
        }
        let differs = |w: Wanted<'_>| self.told(&w).is_some_and(|(_, told, want)| told != want);
        let is_untold = self.resize.cgroup.is_some_and(|told| told != PodSizes::of(&self.pod).without_removal(told));
        let is_in_progress = is_untold || spec::wanted(&self.pod).any(differs);
        match &self.resize.progress {
            None if is_in_progress => {
                let generation = self.pod.metadata.generation.unwrap_or(0);
                self.resize.progress = Some(Condition::new(None, None, None, generation, now));
            }
            Some(progress) if !is_in_progress => {
                let text = told("Pod resize completed", &self.pod, progress.generation, None);
                self.events.push(PodEvent::normal("", "ResizeCompleted", text));
                self.resize.progress = None;
                self.resize.before = None;
            }
            None | Some(_) => {}
        }
    }

    /// An instance that somebody else created has the sizes of the pod, as far as is known.
    fn assume_sizes(&mut self) {
        let mut fresh = Vec::new();
        for wanted in spec::wanted(&self.pod) {
            let Some(newest) = self.newest(wanted.name()) else { continue };
            let is_known =
                self.container(wanted.name()).and_then(|c| c.told.of.as_ref()).is_some_and(|(id, _)| *id == newest.id);
            if !is_known {
                fresh.push((newest.name.clone(), (newest.id.clone(), Sizes::of(&self.pod, wanted.spec))));
            }
        }
        for (name, of) in fresh {
            if let Some(ContainerRecord { told, .. }) = self.containers.get_mut(&name)
                && told.creating.is_none()
            {
                told.of = Some(of);
            }
        }
    }

    /// Of a running instance: what it was told, and what it shall have.
    pub(super) fn told(&self, wanted: &Wanted<'_>) -> Option<(ContainerId, Sizes, Sizes)> {
        let newest = self.newest(wanted.name()).filter(|c| c.state.is_running())?;
        let (_, told) = self.container(wanted.name())?.told.of.as_ref().filter(|(id, _)| *id == newest.id)?;
        Some((newest.id.clone(), *told, Sizes::of(&self.pod, wanted.spec).without_removal(*told)))
    }
}

/// An event's text, with all sizes of the pod.
fn told(words: &str, pod: &v1::Pod, generation: i64, error: Option<&str>) -> String {
    format!("{words}: {}", json::text(&json::sizes(pod, generation, error)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::granted;

    #[test]
    fn what_was_granted_is_read_from_a_status_that_says_that_more_is_wanted() {
        let amounts = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let status = |conditions: serde_json::Value| {
            json!({"conditions": conditions, "containerStatuses": [{
                "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "1"}, "resources": amounts("1")}]})
        };
        let pod = |conditions| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": amounts("90")}]}, "status": status(conditions)});
            serde_json::from_value(pod).expect("a pod")
        };
        let pending = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        let has = granted(&pod(pending)).expect("it was granted less").spec.expect("it has one");
        let sizes = serde_json::to_value(&has.containers[0].resources).expect("JSON");
        assert_eq!(sizes, amounts("1"));
        assert!(granted(&pod(json!([]))).is_none(), "what it wants is what it has");
    }
}
