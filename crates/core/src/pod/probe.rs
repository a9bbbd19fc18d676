//! When containers are probed and what the answers mean.

use std::time::Duration;

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;

use super::container::ContainerRecord;
use super::decide::Planner;
use super::event::PodEvent;
use super::fact::ProbeAnswer;
use super::observed::{ContainerState, ObservedContainer};
use super::record::{PodRecord, pod_statuses};
use super::spec;
use super::step::{ProbeKind, ProbeStep, Step, StepKey};
use crate::now::{Mono, Now, Wall};
use crate::render;

/// kubelet 1.36: containers that ran this long before the agent keep what was known of them until the first answer.
const ADOPTED: Duration = Duration::from_secs(10);
/// kubelet 1.36: a probe that could not be made is repeated at once, up to this many attempts in all.
const ATTEMPTS: u8 = 3;
/// The first startup or liveness probe comes this long after the start, or one period if that is shorter.
const FIRST: Duration = Duration::from_secs(1);

/// The probes of one running instance.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Probes {
    pub(super) id: ContainerId,
    pub(super) startup: Option<Probing>,
    pub(super) liveness: Option<Probing>,
    pub(super) readiness: Option<Probing>,
}

/// One probe of one instance.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Probing {
    pub(super) next_at: Mono,
    /// The last answer, and how many times in a row it came.
    last: Option<(bool, i32)>,
    /// What the answers amount to.
    pub(super) verdict: Option<bool>,
    /// Attempts in a row that could not be made.
    errors: u8,
}

impl Probes {
    /// Whether the instance counts as started.
    pub(super) fn is_started(&self) -> bool {
        self.startup.as_ref().is_none_or(|p| p.verdict == Some(true))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_started() && self.readiness.as_ref().is_none_or(|p| p.verdict == Some(true))
    }

    /// The probe that demands the instance's end.
    pub(super) fn failed(&self) -> Option<ProbeKind> {
        let is_bad = |p: &Option<Probing>| p.as_ref().is_some_and(|p| p.verdict == Some(false));
        if is_bad(&self.startup) {
            Some(ProbeKind::Startup)
        } else if is_bad(&self.liveness) {
            Some(ProbeKind::Liveness)
        } else {
            None
        }
    }

    fn of_kind(&mut self, kind: ProbeKind) -> &mut Option<Probing> {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }

    fn get(&self, kind: ProbeKind) -> Option<&Probing> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }
}

/// The probe of that kind in the specification.
pub(super) fn spec_of(container: &v1::Container, kind: ProbeKind) -> Option<&v1::Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// How the API calls it.
pub(super) fn shown(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}

fn secs(value: Option<i32>, default: i32, least: i32) -> Duration {
    Duration::from_secs(u64::try_from(value.unwrap_or(default).max(least)).unwrap_or(0))
}

fn period(probe: &v1::Probe) -> Duration {
    match probe.period_seconds {
        None | Some(0) => Duration::from_secs(10),
        Some(secs) => Duration::from_secs(u64::try_from(secs.max(1)).unwrap_or(1)),
    }
}

impl PodRecord {
    /// After a look: each running instance has the probes that its container wants; those of others are forgotten.
    pub(super) fn begin_probes(&mut self, now: Now) {
        let mut fresh = Vec::new();
        for wanted in spec::wanted(&self.pod).filter(|w| w.role != spec::Role::Init) {
            let running = self.newest(wanted.name()).and_then(|c| match c.state {
                ContainerState::Running { started_at } => Some((c, started_at)),
                ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Unknown => None,
            });
            let known = self.container(wanted.name()).and_then(|c| c.probes.as_ref());
            match running {
                Some((instance, _)) if known.is_some_and(|p| p.id == instance.id) => {}
                Some((instance, started_at)) => {
                    let probes = self.first_probes(wanted.spec, instance, started_at, now);
                    fresh.push((instance.name.clone(), Some(probes)));
                }
                None => fresh.push((ContainerName::new(wanted.name()), None)),
            }
        }
        for (name, probes) in fresh {
            self.containers.entry(name).or_default().probes = probes;
        }
    }

    fn first_probes(&self, spec: &v1::Container, instance: &ObservedContainer, started: Wall, now: Now) -> Probes {
        let seed = seed(self.uid.as_str(), &spec.name);
        let adopted = self.adopted(instance, started, now);
        let ran = Duration::try_from(now.wall.duration_since(started)).unwrap_or_default();
        let begin = |kind: ProbeKind, seed: u64| {
            let probe = spec_of(spec, kind)?;
            let period = period(probe);
            let first = match kind {
                ProbeKind::Readiness => Duration::ZERO,
                ProbeKind::Startup | ProbeKind::Liveness => period.min(FIRST).saturating_sub(ran),
            };
            // kubelet 1.36: the first run is spread only while the agent is younger than a period.
            let is_spread = kind == ProbeKind::Liveness && now.mono.0 < period;
            let spread = if is_spread { period.mul_f64(fraction(seed)) } else { Duration::ZERO };
            let delay = secs(probe.initial_delay_seconds, 0, 0).saturating_sub(ran);
            let verdict = adopted.and_then(|(is_started, is_ready)| match kind {
                ProbeKind::Startup => is_started.then_some(true),
                ProbeKind::Readiness => Some(is_ready),
                ProbeKind::Liveness => None,
            });
            Some(Probing { next_at: now.mono + delay.max(first.max(spread)), last: None, verdict, errors: 0 })
        };
        Probes {
            id: instance.id.clone(),
            startup: begin(ProbeKind::Startup, seed),
            liveness: begin(ProbeKind::Liveness, seed.rotate_left(17)),
            readiness: begin(ProbeKind::Readiness, seed.rotate_left(34)),
        }
    }

    /// What is kept of an instance that ran before the agent: (started, ready). kubelet 1.36: what its status said; where no status
    /// outlived the agent, it counts as started and ready until its first answer, which is asked for at once.
    fn adopted(&self, instance: &ObservedContainer, started: Wall, now: Now) -> Option<(bool, bool)> {
        let agent_started = now.wall.saturating_sub(now.mono.0).unwrap_or(now.wall);
        if started > agent_started.saturating_sub(ADOPTED).unwrap_or(agent_started) {
            return None;
        }
        let is_it = |s: &&v1::ContainerStatus| {
            s.container_id
                .as_deref()
                .and_then(|id| id.rsplit_once("://"))
                .is_some_and(|(_, id)| id == instance.id.as_str())
        };
        let shown = pod_statuses(self.published.as_deref()).chain(pod_statuses(self.pod.status.as_ref())).find(is_it);
        Some(shown.map_or((true, true), |s| (s.started.unwrap_or(false), s.ready)))
    }

    pub(super) fn probe_started(&mut self, id: &ContainerId, kind: ProbeKind, now: Now) {
        let Some((wanted_period, probing)) = self.probing(id, kind) else { return };
        let next = probing.next_at + wanted_period;
        probing.next_at = if next <= now.mono { now.mono + wanted_period } else { next };
    }

    /// Takes in an answer. kubelet 1.36: a result counts when it came as often in a row as its threshold says.
    pub(super) fn probe_answered(&mut self, id: &ContainerId, kind: ProbeKind, answer: &ProbeAnswer, now: Now) {
        let Some(name) = self.containers.iter().find(|(_, c)| c.probes.as_ref().is_some_and(|p| p.id == *id)) else {
            return;
        };
        let name = name.0.clone();
        let Some(wanted) = spec::find(&self.pod, name.as_str()) else { return };
        let Some(probe) = spec_of(wanted.spec, kind) else { return };
        let (path, failures, successes) = (
            wanted.field_path(),
            probe.failure_threshold.filter(|n| *n > 0).unwrap_or(3),
            probe.success_threshold.filter(|n| *n > 0).unwrap_or(1),
        );
        // That a container on its way out cannot be asked is no news.
        let is_ending = self.kills.contains_key(id);
        let Some((_, probing)) = self.probing(id, kind) else { return };
        let word = shown(kind);
        let (is_success, event) = match answer {
            ProbeAnswer::Success => (true, None),
            ProbeAnswer::Warning(text) => {
                (true, Some(PodEvent::warning(path, "ProbeWarning", format!("{word} probe warning: {text}"))))
            }
            ProbeAnswer::Failure(text) => {
                (false, Some(PodEvent::warning(path, "Unhealthy", format!("{word} probe failed: {text}"))))
            }
            ProbeAnswer::Unknown(text) => {
                probing.errors += 1;
                if probing.errors < ATTEMPTS {
                    probing.next_at = now.mono;
                } else {
                    probing.errors = 0;
                    if !is_ending {
                        let message = format!("{word} probe errored and resulted in unknown state: {text}");
                        self.events.push(PodEvent::warning(path, "Unhealthy", message));
                    }
                }
                return;
            }
        };
        probing.errors = 0;
        let times = probing.last.filter(|(last, _)| *last == is_success).map_or(0, |(_, n)| n).saturating_add(1);
        probing.last = Some((is_success, times));
        if times >= if is_success { successes } else { failures } {
            probing.verdict = Some(is_success);
        }
        let is_up = kind == ProbeKind::Startup && probing.verdict == Some(true);
        self.events.extend(event);
        if is_up {
            self.startup_done(&name, now);
        }
    }

    /// The other probes of a container begin when its startup probe succeeded.
    fn startup_done(&mut self, name: &ContainerName, now: Now) {
        let Some(probes) = self.containers.get_mut(name).and_then(|c| c.probes.as_mut()) else { return };
        for probing in [&mut probes.liveness, &mut probes.readiness].into_iter().flatten() {
            probing.next_at = probing.next_at.max(now.mono);
        }
    }

    fn probing(&mut self, id: &ContainerId, kind: ProbeKind) -> Option<(Duration, &mut Probing)> {
        let of = |c: &ContainerRecord| c.probes.as_ref().is_some_and(|p| p.id == *id);
        let (name, container) = self.containers.iter_mut().find(|(_, c)| of(c))?;
        let wanted = spec::find(&self.pod, name.as_str())?;
        let period = period(spec_of(wanted.spec, kind)?);
        Some((period, container.probes.as_mut()?.of_kind(kind).as_mut()?))
    }
}

/// All probes that are due. A pod that is being stopped is asked for its readiness only.
pub(super) fn decide(p: &mut Planner<'_>) {
    let record = p.record;
    let is_active = record.stage.may_start_containers();
    for wanted in spec::wanted(&record.pod) {
        let Some(instance) = record.newest(wanted.name()).filter(|c| c.state.is_running()) else { continue };
        let Some(probes) = record.container(wanted.name()).and_then(|c| c.probes.as_ref()) else { continue };
        if probes.id != instance.id {
            continue;
        }
        let is_left_alone = !is_active || record.kills.contains_key(&instance.id);
        if !probes.is_started() {
            // A decided startup probe rests until there is another instance.
            if !is_left_alone && probes.startup.as_ref().is_some_and(|s| s.verdict.is_none()) {
                probe(p, wanted.spec, probes, ProbeKind::Startup);
            }
            continue;
        }
        if !is_left_alone && probes.liveness.as_ref().is_some_and(|l| l.verdict != Some(false)) {
            probe(p, wanted.spec, probes, ProbeKind::Liveness);
        }
        probe(p, wanted.spec, probes, ProbeKind::Readiness);
    }
}

fn probe(p: &mut Planner<'_>, container: &v1::Container, probes: &Probes, kind: ProbeKind) {
    let (Some(probing), Some(spec)) = (probes.get(kind), spec_of(container, kind)) else { return };
    if p.record.steps.is_under_way(&StepKey::Probe(probes.id.clone(), kind)) {
        return;
    }
    if probing.next_at > p.now.mono {
        p.wake(probing.next_at);
        return;
    }
    let ips = render::effective_ips(&p.record.pod, p.node, &p.record.sandbox.ips);
    p.issue(Step::Probe(Box::new(ProbeStep {
        container: ContainerName::new(&container.name),
        id: probes.id.clone(),
        kind,
        how: render::probe_how(&p.record.pod, container, spec, kind, ips),
        timeout: secs(spec.timeout_seconds, 1, 1),
    })));
}

/// 64-bit FNV-1a: the same spread for the same container each time.
fn seed(uid: &str, container: &str) -> u64 {
    uid.bytes()
        .chain(container.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn fraction(seed: u64) -> f64 {
    f64::from(u32::try_from(seed >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}
