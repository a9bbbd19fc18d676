//! A pod's record over a runtime in memory, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;
use rubelet_proto::cri;
use serde_json::{Value, json};

use crate::node::NodeFacts;
use crate::now::{Mono, Now, Wall};
use crate::pod::fact::{Done, Growth, ImageFound, ProbeAnswer, VolumeImage, VolumeNews};
use crate::pod::observed::ObservedResources;
use crate::pod::step::{CreateContainer, ImageWish, ResizeContainer, ResizePod, StepKey, VolumeKind, VolumePlan};
use crate::pod::{
    ContainerState, Fact, Observed, ObservedContainer, ObservedSandbox, PodRecord, Source, Step, StepFailure,
};

/// How a container behaves once started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    Forever,
    /// Ends by itself after so many seconds.
    For(u64, i32),
    /// Takes its whole grace when it is stopped.
    Stubborn,
}

pub(super) struct World {
    pub(super) record: PodRecord,
    pub(super) node: NodeFacts,
    pub(super) at: Duration,
    pub(super) runtime: Observed,
    /// What happened: `<seconds> <words>`.
    pub(super) log: Vec<String>,
    pub(super) events: Vec<String>,
    pub(super) status: v1::PodStatus,
    /// Every status that differed from the one before, and when.
    pub(super) shown: Vec<(Duration, v1::PodStatus)>,
    /// Lives of the instances of a container, in their order; the last one repeats.
    pub(super) lives: BTreeMap<&'static str, Vec<Life>>,
    /// Steps that fail, by the beginning of their debug text, with a message.
    pub(super) failing: Vec<(&'static str, &'static str)>,
    /// Answer of each probe, by container and kind.
    pub(super) probes: BTreeMap<String, ProbeAnswer>,
    /// Seconds that hooks take.
    pub(super) hook_secs: u64,
    /// Exit code of containers that are stopped.
    pub(super) end_code: i32,
    pending: Vec<(Duration, Fact)>,
    deaths: Vec<(Duration, ContainerId, i32)>,
    made: usize,
    pub(super) is_withdrawn: bool,
    /// What the runtime was told of each container that was created.
    pub(super) created: Vec<CreateContainer>,
    /// What running containers were told.
    pub(super) resized: Vec<ResizeContainer>,
    /// What the runtime was told of the pod.
    pub(super) pod_resized: Vec<ResizePod>,
    /// Volumes that were mounted or written again.
    pub(super) mounted: Vec<VolumePlan>,
    /// Memory in use, by container; the pod's under the empty name.
    generation: i64,
    pub(super) usage: BTreeMap<&'static str, i64>,
}

/// All images are there.
fn found(wish: ImageWish) -> ImageFound {
    let volumes = wish.volumes.into_iter().map(|of| {
        let image_ref = format!("sha256:{}", of.image);
        (of.volume, VolumeImage { image: of.image, image_ref, pulled: None })
    });
    ImageFound { image_ref: "sha256:1".into(), volumes: volumes.collect(), ..ImageFound::default() }
}

pub(super) fn pod(spec: Value) -> v1::Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1"},
        "spec": spec,
    });
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            container["image"] = json!("busybox");
        }
    }
    serde_json::from_value(pod).expect("a pod")
}

fn observed(resources: &cri::LinuxContainerResources) -> ObservedResources {
    ObservedResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_bytes: resources.memory_limit_in_bytes,
    }
}

impl World {
    pub(super) fn new(spec: Value) -> Self {
        Self::over(Observed { has_cgroup: Some(false), ..Observed::default() }, spec)
    }

    /// The same pod of an API server.
    pub(super) fn attached(spec: Value) -> Self {
        Self::of(Source::Api, Observed { has_cgroup: Some(false), ..Observed::default() }, spec)
    }

    /// An agent that starts on what runs already.
    pub(super) fn over(runtime: Observed, spec: Value) -> Self {
        Self::of(Source::File, runtime, spec)
    }

    pub(super) fn of(source: Source, runtime: Observed, spec: Value) -> Self {
        let mut world = Self {
            record: PodRecord::new(source, Arc::new(pod(spec))),
            node: crate::sample::node(),
            at: Duration::from_secs(1),
            runtime,
            log: Vec::new(),
            events: Vec::new(),
            status: v1::PodStatus::default(),
            shown: Vec::new(),
            lives: BTreeMap::new(),
            failing: Vec::new(),
            probes: BTreeMap::new(),
            hook_secs: 0,
            end_code: 143,
            pending: Vec::new(),
            deaths: Vec::new(),
            made: 100,
            is_withdrawn: false,
            created: Vec::new(),
            resized: Vec::new(),
            pod_resized: Vec::new(),
            mounted: Vec::new(),
            generation: 1,
            usage: BTreeMap::new(),
        };
        world.look();
        world
    }

    pub(super) fn now(&self) -> Now {
        let base: Wall = "2026-01-01T00:00:00Z".parse().expect("a time");
        Now { mono: Mono(self.at), wall: base.saturating_add(self.at).expect("in range") }
    }

    pub(super) fn tell(&mut self, fact: Fact) {
        self.record.absorb(fact, self.now());
    }

    /// The same pod with another specification.
    pub(super) fn want(&mut self, spec: Value) {
        let mut pod = pod(spec);
        self.generation += 1;
        pod.metadata.generation = Some(self.generation);
        self.tell(Fact::Desired(Arc::new(pod)));
    }

    pub(super) fn withdraw(&mut self) {
        self.is_withdrawn = true;
        self.tell(Fact::Withdrawn);
    }

    /// Goes on where another agent was: what lives in the runtime lives on.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.deaths.clone_from(&before.deaths);
        self.made = before.made;
        self.failing.clone_from(&before.failing);
        self.log.clone_from(&before.log);
        self.log.push(format!("{:.1} agent restarts", self.at.as_secs_f64()));
    }

    pub(super) fn look(&mut self) {
        let observed = self.runtime.clone();
        self.tell(Fact::Observed(observed));
    }

    /// Lives on until that second.
    pub(super) fn run_until(&mut self, second: u64) {
        let end = Duration::from_secs(second);
        for _ in 0..100_000 {
            let wake = self.settle();
            let next = wake
                .into_iter()
                .chain(self.pending.iter().map(|(at, _)| *at))
                .chain(self.deaths.iter().map(|(at, ..)| *at))
                .min()
                .filter(|at| *at <= end);
            let Some(next) = next else {
                self.at = end;
                return;
            };
            self.at = self.at.max(next);
            self.pass();
        }
        panic!("it never comes to rest: {:#?}", self.log);
    }

    /// Takes in what is due by now.
    fn pass(&mut self) {
        let due: Vec<_> = self.deaths.extract_if(.., |(at, ..)| *at <= self.at).collect();
        for (_, id, code) in due {
            self.die(&id, code);
            self.look();
        }
        let due: Vec<_> = self.pending.extract_if(.., |(at, _)| *at <= self.at).collect();
        for (_, fact) in due {
            self.tell(fact);
        }
        self.tell(Fact::Tick);
    }

    /// Takes plans until nothing is left to do at this time.
    fn settle(&mut self) -> Option<Duration> {
        for _ in 0..1000 {
            let now = self.now();
            let plan = self.record.decide(&self.node, now);
            self.events.extend(plan.events.iter().map(|e| {
                let path = e.field_path.rsplit_once('{').map_or("", |(_, name)| name.trim_end_matches('}'));
                format!("{:.1} {} {path}: {}", self.at.as_secs_f64(), e.reason, e.message)
            }));
            if self.status != plan.status {
                self.shown.push((self.at, plan.status.clone()));
            }
            self.status = plan.status.clone();
            self.tell(Fact::Published { status: Arc::new(plan.status), events: plan.events.len() });
            let is_quiet = plan.steps.is_empty() && plan.refused.is_empty();
            for (key, failure) in plan.refused {
                self.tell(Fact::StepStarted(key.clone()));
                self.tell(Fact::StepDone { key, outcome: Err(failure) });
            }
            let mut steps: VecDeque<Step> = plan.steps.into();
            while let Some(step) = steps.pop_front() {
                self.take(step);
            }
            if is_quiet {
                return plan.wake_at.map(|at| at.0);
            }
        }
        panic!("it never stops planning: {:#?}", self.log);
    }

    fn note(&mut self, words: String) {
        self.log.push(format!("{:.1} {words}", self.at.as_secs_f64()));
    }

    fn take(&mut self, step: Step) {
        let key = step.key();
        if let Step::Cancel(key) = step {
            if matches!(key, StepKey::RunHook(..)) {
                self.note("cancel RunHook".to_owned());
            }
            self.pending.retain(|(_, f)| !matches!(f, Fact::StepDone { key: of, .. } if *of == key));
            let failure = StepFailure { reason: crate::pod::CANCELLED.to_owned(), message: String::new() };
            return self.tell(Fact::StepDone { key, outcome: Err(failure) });
        }
        self.tell(Fact::StepStarted(key.clone()));
        let shown = format!("{key:?}");
        if let Some((_, message)) = self.failing.iter().find(|(what, _)| shown.starts_with(what)) {
            let failure = StepFailure { reason: String::new(), message: (*message).to_owned() };
            self.log.push(format!("{:.1} failed {shown}", self.at.as_secs_f64()));
            return self.tell(Fact::StepDone { key, outcome: Err(failure) });
        }
        if let Some(message) = self.refusal(&step) {
            self.log.push(format!("{:.1} refused", self.at.as_secs_f64()));
            return self.tell(Fact::StepDone { key, outcome: Err(StepFailure { reason: String::new(), message }) });
        }
        let (after, done) = self.perform(step);
        let fact = Fact::StepDone { key, outcome: Ok(done) };
        if after.is_zero() {
            self.tell(fact);
            self.look();
        } else {
            self.pending.push((self.at + after, fact));
        }
    }

    /// Less memory than is in use cannot be had.
    fn refusal(&self, step: &Step) -> Option<String> {
        if let Step::Mount(plan) = step
            && let VolumeKind::Refused { message } = &plan.kind
        {
            return Some(format!("MountVolume.SetUp failed for volume \"{}\" : {message}", plan.name));
        }
        let (name, most) = match step {
            Step::ResizePod(resize) => ("", resize.usage_below?),
            Step::ResizeContainer(resize) => (resize.container.as_str(), resize.usage_below?),
            _ => return None,
        };
        (*self.usage.get(name)? >= most).then(|| format!("below current usage of {name:?}"))
    }

    fn perform(&mut self, step: Step) -> (Duration, Done) {
        let at_once = Duration::ZERO;
        match step {
            Step::EnsureCgroup(_) => self.runtime.has_cgroup = Some(true),
            Step::CreateSandbox { attempt, .. } => {
                self.note(format!("sandbox {attempt}"));
                let id = SandboxId::new(format!("s{attempt}"));
                let created_at = self.now().wall;
                let ips = vec!["10.88.0.5".parse().expect("an address")];
                let sandbox = ObservedSandbox {
                    id: id.clone(),
                    attempt,
                    is_ready: true,
                    created_at,
                    ips,
                    is_host_network: false,
                };
                self.runtime.sandboxes.push(sandbox);
                return (at_once, Done::Sandbox(id));
            }
            Step::EnsureImage { wish, .. } => return (at_once, Done::Image(found(wish))),
            Step::CreateContainer(create) => return (at_once, self.create(*create)),
            Step::StartContainer { container, id, .. } => self.start(&container, &id),
            Step::RunHook { container, kind, .. } => {
                self.note(format!("{kind:?} {container}"));
                return (Duration::from_secs(self.hook_secs), Done::Plain);
            }
            Step::Probe(probe) => {
                let answer = self.probes.get(&format!("{} {:?}", probe.container, probe.kind)).cloned();
                return (Duration::from_millis(1), Done::Probe(answer.unwrap_or(ProbeAnswer::Success)));
            }
            Step::StopContainer { container, id, grace_secs } => {
                self.note(format!("stop {container} {grace_secs}"));
                let life = self.life(&container, &id);
                if matches!(life, Life::Stubborn) {
                    let after = Duration::from_secs(grace_secs.unsigned_abs());
                    self.deaths.push((self.at + after, id, 137));
                    return (after, Done::Plain);
                }
                self.die(&id, self.end_code);
            }
            Step::RemoveContainer { container, id, .. } => {
                self.note(format!("remove {container}"));
                self.runtime.containers.retain(|c| c.id != id);
            }
            Step::StopSandbox { id } => {
                self.note(format!("stop sandbox {id}"));
                for sandbox in self.runtime.sandboxes.iter_mut().filter(|s| s.id == id) {
                    sandbox.is_ready = false;
                }
            }
            Step::RemoveSandbox { id } => self.runtime.sandboxes.retain(|s| s.id != id),
            Step::RemoveCgroup => self.runtime.has_cgroup = Some(false),
            Step::Mount(plan) => {
                self.mounted.push(*plan);
                return (at_once, Done::Mounted);
            }
            Step::ResizePod(resize) => {
                self.note(format!("resize pod {:?} {}", resize.part, resize.to));
                self.pod_resized.push(*resize);
            }
            Step::ResizeContainer(resize) => {
                let (request, limit) = (resize.request, resize.limit);
                self.note(format!("resize {} {:?} {request}..{limit}", resize.container, resize.measure));
                for container in self.runtime.containers.iter_mut().filter(|c| c.id == resize.id) {
                    container.resources = Some(observed(&resize.resources));
                }
                self.resized.push(*resize);
            }
            Step::Expand(plan) => return (at_once, self.grow(&plan)),
            Step::PrepareClaims { wishes, .. } => {
                let names: Vec<&str> = wishes.iter().map(|wish| wish.claim.name.as_str()).collect();
                self.note(format!("prepare {}", names.join(" ")));
            }
            Step::ReleaseClaims => self.note("release claims".to_owned()),
            Step::PrepareDirs | Step::Unmount | Step::RemoveDirs | Step::Cancel(_) => {}
        }
        (at_once, Done::Plain)
    }

    fn grow(&mut self, plan: &VolumePlan) -> Done {
        let VolumeKind::Csi(volume) = &plan.kind else { return Done::Plain };
        let Some(expansion) = &volume.expansion else { return Done::Plain };
        self.note(format!("expand {} to {}", plan.volume, expansion.size));
        Done::Volume(VolumeNews { growth: Some(Growth::Done(expansion.bytes)), ..VolumeNews::default() })
    }

    fn create(&mut self, create: CreateContainer) -> Done {
        self.created.push(create.clone());
        self.made += 1;
        let id = ContainerId::new(format!("{}-{}", create.container, self.made));
        self.runtime.containers.push(ObservedContainer {
            id: id.clone(),
            name: create.container.clone(),
            sandbox: create.sandbox,
            restart_count: create.restart_count,
            hash: Some(crate::render::container_hash("busybox", create.container.as_str())),
            created_at: self.now().wall + Duration::from_nanos(self.made as u64),
            state: ContainerState::Created,
            image: "busybox".into(),
            image_ref: "sha256:1".into(),
            user: None,
            resources: create.config.linux.and_then(|l| l.resources).as_ref().map(observed),
            stop_signal: None,
            recursive_read_only: Vec::new(),
        });
        Done::Container(id)
    }

    fn life(&self, name: &ContainerName, id: &ContainerId) -> Life {
        let lives = self.lives.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let count = self.runtime.containers.iter().find(|c| c.id == *id).map_or(0, |c| c.restart_count);
        lives.get(count as usize).or(lives.last()).copied().unwrap_or(Life::Forever)
    }

    fn start(&mut self, name: &ContainerName, id: &ContainerId) {
        let count = self.runtime.containers.iter().find(|c| c.id == *id).map_or(0, |c| c.restart_count);
        self.note(format!("start {name} {count}"));
        let twin = self.runtime.containers.iter().find(|c| c.name == *name && c.state.is_running());
        assert!(twin.is_none(), "a second {name} is started: {:#?}", self.log);
        let started_at = self.now().wall;
        for container in self.runtime.containers.iter_mut().filter(|c| c.id == *id) {
            container.state = ContainerState::Running { started_at };
        }
        if let Life::For(secs, code) = self.life(name, id) {
            self.deaths.push((self.at + Duration::from_secs(secs), id.clone(), code));
        }
    }

    pub(super) fn die(&mut self, id: &ContainerId, code: i32) {
        let finished_at = self.now().wall;
        let Some(container) = self.runtime.containers.iter_mut().find(|c| c.id == *id && c.state.is_running()) else {
            return;
        };
        let ContainerState::Running { started_at } = container.state else { return };
        let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let message = String::new();
        container.state = ContainerState::Exited { started_at: Some(started_at), finished_at, code, reason, message };
        let name = container.name.clone();
        self.deaths.retain(|(_, of, _)| of != id);
        self.note(format!("end {name} {code}"));
    }

    /// Two live instances of one container, ever, are a defect.
    pub(super) fn running(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.runtime.containers.iter().filter(|c| c.state.is_running()).map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        names
    }
}
