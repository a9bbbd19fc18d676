//! All that we know of one pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, ContainerName, PodKey, PodUid, SandboxId};
use rubelet_api::v1;

use super::container::{ContainerRecord, is_alive};
use super::event::PodEvent;
use super::fact::Source;
use super::kill::Kill;
use super::needs::Inputs;
use super::observed::{Observed, ObservedContainer, ObservedSandbox};
use super::resize::Resize;
use super::restart_all::RestartAll;
use super::spec;
use super::stage::{Stage, StopCause, Stopping};
use super::step::StepKey;
use super::steps::Steps;
use crate::now::{Mono, Now, Wall};
use crate::resources::claims::wishes;

/// All that we know of one pod. Changed by facts only ([`PodRecord::absorb`]); what follows is asked of [`PodRecord::decide`].
#[derive(Clone, Debug)]
pub struct PodRecord {
    pub(super) source: Source,
    pub(super) pod: Arc<v1::Pod>,
    /// Its ephemeral containers, as containers.
    pub(super) guests: Vec<v1::Container>,
    pub(super) uid: PodUid,
    pub(super) key: PodKey,
    pub(super) stage: Stage,
    /// The latest complete look; `None` before the first, and nothing is done before it.
    pub(super) observed: Option<Observed>,
    pub(super) steps: Steps,
    pub(super) containers: BTreeMap<ContainerName, ContainerRecord>,
    /// Instances that must end.
    pub(super) kills: BTreeMap<ContainerId, Kill>,
    pub(super) sandbox: SandboxRecord,
    pub(super) ground: Ground,
    /// Not told yet.
    pub(super) events: Vec<PodEvent>,
    pub(super) published: Option<Arc<v1::PodStatus>>,
    /// `status.startTime`.
    pub(super) started_at: Option<Wall>,
    /// The trouble that keeps the sandbox from being made was told.
    pub(super) is_trouble_told: bool,
    pub(super) resize: Resize,
    /// All containers are being replaced.
    pub(super) restart_all: Option<RestartAll>,
    /// What was fetched of the objects that the pod refers to.
    pub(super) inputs: Inputs,
    /// How the devices of each container are.
    pub(super) devices: BTreeMap<String, Vec<v1::ResourceStatus>>,
    pub(super) claims: ClaimStage,
}

/// What was done about the pod's resource claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ClaimStage {
    /// Nothing in this life.
    #[default]
    Untouched,
    /// Drivers have prepared them for this attempt at a sandbox.
    Prepared { attempt: u32 },
    /// Drivers have taken back what only this pod used.
    Released,
}

/// Memory of the pod's sandboxes.
#[derive(Clone, Debug, Default)]
pub(super) struct SandboxRecord {
    /// Made by us and not seen yet.
    pub(super) awaited: Option<(SandboxId, Mono)>,
    /// The highest attempt seen or made.
    pub(super) attempt_max: Option<u32>,
    /// Addresses of the newest sandbox that had any.
    pub(super) ips: Vec<IpAddr>,
    /// Seen ready, and not stopped by us since.
    pub(super) to_stop: BTreeSet<SandboxId>,
    /// The pod's cgroup vanished under it.
    pub(super) is_cgroup_lost: bool,
    /// The change of sandbox that was told last.
    pub(super) announced: Option<u32>,
}

/// What must be there before the first sandbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Ground {
    pub(super) has_cgroup: bool,
    pub(super) has_dirs: bool,
    pub(super) volumes: Volumes,
}

/// What is mounted, and of which content.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes {
    /// Counts changes of what written volumes show.
    pub(super) revision: u64,
    /// What each mounted volume shows, by its name in the pod.
    pub(super) mounted: BTreeMap<String, Shown>,
    /// The same of those being mounted.
    pub(super) mounting: BTreeMap<String, u64>,
    /// Bytes that a volume was grown to, or was found not to grow to.
    pub(super) grown: BTreeMap<String, i64>,
}

/// Which revision a volume shows, and since when.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Shown {
    pub(super) revision: u64,
    pub(super) at: Mono,
}

impl Volumes {
    pub(super) fn begin(&mut self, volume: &str) {
        self.mounting.insert(volume.to_owned(), self.revision);
    }

    pub(super) fn done(&mut self, volume: &str, at: Mono) {
        let revision = self.mounting.remove(volume).unwrap_or_default();
        self.mounted.insert(volume.to_owned(), Shown { revision, at });
    }
}

/// What to do about the sandbox.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum SandboxNeed<'a> {
    Keep(&'a ObservedSandbox),
    /// A new one, after everything in the old ones has ended.
    Make {
        attempt: u32,
    },
    /// One was made and must be seen first.
    Await,
}

impl PodRecord {
    /// The record of a pod that a source wants. A pod whose status says that it ended stays ended.
    pub fn new(source: Source, pod: Arc<v1::Pod>) -> Self {
        let status = pod.status.clone().filter(|_| !source.is_static() || is_ended(&pod));
        let mut record = Self {
            source,
            uid: PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default()),
            key: PodKey::new(
                pod.metadata.namespace.as_deref().unwrap_or("default"),
                pod.metadata.name.as_deref().unwrap_or_default(),
            ),
            stage: Stage::Queued { is_behind: false },
            observed: None,
            steps: Steps::default(),
            containers: BTreeMap::new(),
            kills: BTreeMap::new(),
            sandbox: SandboxRecord::default(),
            ground: Ground::default(),
            events: Vec::new(),
            published: None,
            started_at: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            is_trouble_told: false,
            resize: Resize::default(),
            restart_all: None,
            inputs: Inputs::of(source),
            devices: BTreeMap::new(),
            claims: ClaimStage::default(),
            guests: Vec::new(),
            pod: pod.clone(),
        };
        record.know_containers();
        if let Some(told) = pod.status.as_ref() {
            record.follow(told);
        }
        record.published = status.map(Arc::new);
        record
    }

    /// Restarts count on from what is told of the pod, or of the one of its UID that it follows. kubelet 1.36: a static pod that
    /// comes back finds its dead containers.
    pub fn follow(&mut self, told: &v1::PodStatus) {
        let guests = told.ephemeral_container_statuses.iter().flatten();
        for shown in pod_statuses(Some(told)).chain(guests) {
            if let Some(container) = self.containers.get_mut(&ContainerName::new(&shown.name))
                && (shown.container_id.is_some() || shown.restart_count > 0)
            {
                container.saw_count(u32::try_from(shown.restart_count).unwrap_or(0));
            }
        }
    }

    /// The record of a pod that runs and that nobody wants: it is stopped within its grace and cleaned up.
    ///
    /// `pod` is what labels and annotations still tell of it; `observed` is where it was found.
    pub fn orphan(pod: Arc<v1::Pod>, observed: &Observed) -> Self {
        let mut record = Self::new(Source::Runtime, pod);
        for container in &observed.containers {
            record.containers.entry(container.name.clone()).or_default();
        }
        record.stage = Stage::Stopping(Stopping {
            cause: StopCause::Withdrawn,
            began: None,
            grace_secs: spec::grace_secs(&record.pod),
            is_withdrawn: true,
            is_overdue: false,
        });
        record
    }

    /// Who wants it.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its identity.
    pub fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// Namespace and name.
    pub fn key(&self) -> &PodKey {
        &self.key
    }

    /// The pod as it was last desired.
    pub fn pod(&self) -> &Arc<v1::Pod> {
        &self.pod
    }

    /// Where it is in its life.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Nothing of it is left: the record can be forgotten.
    pub fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    /// Whether it never starts a container again: it is being stopped, or has ended.
    pub fn has_ended(&self) -> bool {
        !self.stage.may_start_containers() && !matches!(self.stage, Stage::Queued { .. })
    }

    /// A container's memory exists for each that the specification names.
    pub(super) fn know_containers(&mut self) {
        self.guests = crate::render::ephemeral(&self.pod);
        let all = spec::wanted(&self.pod).chain(spec::guests(&self.guests));
        let names: Vec<ContainerName> = all.map(|w| ContainerName::new(w.name())).collect();
        for name in names {
            self.containers.entry(name).or_default();
        }
    }

    /// Instances of a container, newest first.
    pub(super) fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.observed.iter().flat_map(|o| &o.containers).filter(move |c| c.name.as_str() == name)
    }

    pub(super) fn newest<'a>(&'a self, name: &'a str) -> Option<&'a ObservedContainer> {
        self.instances(name).next()
    }

    pub(super) fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.get(&ContainerName::new(name))
    }

    /// The newest sandbox of the latest look.
    pub(super) fn newest_sandbox(&self) -> Option<&ObservedSandbox> {
        self.observed.as_ref().and_then(|o| o.sandboxes.first())
    }

    /// All instances in which a process may live.
    pub(super) fn alive(&self) -> impl Iterator<Item = &ObservedContainer> {
        let stopped = |c: &ObservedContainer| self.kills.get(&c.id).is_some_and(|k| k.is_over(&c.state));
        self.observed.iter().flat_map(|o| &o.containers).filter(move |c| is_alive(&c.state) && !stopped(c))
    }

    /// Whether something that makes a sandbox or a container live is under way.
    pub(super) fn is_making_something(&self) -> bool {
        self.steps.under_way().any(|key| {
            matches!(key, StepKey::CreateSandbox(_) | StepKey::CreateContainer(..) | StepKey::StartContainer(_))
        })
    }

    /// Whether drivers may have prepared something for it that they have not taken back.
    pub(super) fn holds_claims(&self) -> bool {
        let is_named = wishes::has_any(&self.pod);
        is_named && !self.source.is_static() && self.claims != ClaimStage::Released
    }

    /// Whether the ground is being laid: what is made there now would outlive its removal.
    pub(super) fn is_laying_ground(&self) -> bool {
        self.steps.under_way().any(|key| {
            matches!(key, StepKey::EnsureCgroup | StepKey::PrepareDirs | StepKey::Mount(_) | StepKey::PrepareClaims(_))
        })
    }

    /// What to do about the sandbox. kubelet 1.36: a new one when there is none, more than one is ready, the newest is not ready, its
    /// network mode differs, or it has no address.
    pub(super) fn sandbox_need(&self) -> SandboxNeed<'_> {
        let Some(observed) = &self.observed else { return SandboxNeed::Await };
        if self.steps.under_way().any(|key| matches!(key, StepKey::CreateSandbox(_))) || self.sandbox.awaited.is_some()
        {
            return SandboxNeed::Await;
        }
        let next = || self.sandbox.attempt_max.map_or(0, |n| n.saturating_add(1));
        let Some(newest) = observed.sandboxes.first() else { return SandboxNeed::Make { attempt: next() } };
        let is_host_network = crate::render::is_host_network(&self.pod);
        let is_good = newest.is_ready
            && observed.sandboxes.iter().filter(|s| s.is_ready).count() == 1
            && newest.is_host_network == is_host_network
            && (is_host_network || !newest.ips.is_empty())
            && !self.sandbox.is_cgroup_lost;
        if is_good { SandboxNeed::Keep(newest) } else { SandboxNeed::Make { attempt: next() } }
    }

    /// Enters [`Stage::Stopping`]; a pod that is being stopped already keeps its cause, and its grace gets no longer.
    pub(super) fn stop(&mut self, cause: StopCause, grace_secs: i64, is_withdrawn: bool, now: Now) {
        let grace_secs = grace_secs.max(1);
        match &mut self.stage {
            Stage::Queued { .. } | Stage::Active => {
                self.stage =
                    Stage::Stopping(Stopping { cause, began: Some(now), grace_secs, is_withdrawn, is_overdue: false });
            }
            Stage::Stopping(stopping) => {
                stopping.is_withdrawn |= is_withdrawn;
                let spent = stopping.began.map_or(0, |b| whole_secs(now.mono.since(b.mono)));
                if spent.saturating_add(grace_secs) < stopping.grace_secs {
                    stopping.grace_secs = spent.saturating_add(grace_secs);
                }
                let grace = stopping.grace_secs;
                self.shorten_kills(grace, now);
            }
            Stage::Cleaning(cleaning) => cleaning.is_withdrawn |= is_withdrawn,
            Stage::Gone => {}
        }
    }
}

/// Whole seconds of a duration.
pub(super) fn whole_secs(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn is_ended(pod: &v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// The container statuses of a status, init containers' too.
pub(super) fn pod_statuses(status: Option<&v1::PodStatus>) -> impl Iterator<Item = &v1::ContainerStatus> {
    status
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
}
