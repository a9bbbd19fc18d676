//! The container statuses of a pod.

use std::collections::BTreeSet;

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;

use super::phase::{last_terminated, running, terminated, waiting};
use super::{LOST, LOST_REASON, RESTARTING, Statuses, View, mounts, resources, time};
use crate::now::Wall;
use crate::pod::container::{ContainerRecord, Launch, exit_code};
use crate::pod::observed::{ContainerState, ObservedContainer};
use crate::pod::record::PodRecord;
use crate::pod::restart::{AfterExit, after_exit, is_restarted};
use crate::pod::spec::{self, Role, Wanted};
use crate::pod::step::StepKey;

const LOST_ENDING: &str = "The container could not be located when the pod was terminated";
const LOST_RUNNING: &str =
    "The container could not be located when the pod was deleted.  The container used to be Running";
const INIT_FORGOTTEN: &str = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
const RESTARTING_MESSAGE: &str = "The container is removed because RestartAllContainers in place";
const CRASHED: &str = "CrashLoopBackOff";

/// One container of the specification, ephemeral or not.
struct Shown<'a> {
    name: &'a str,
    image: &'a str,
    mounts: &'a [v1::VolumeMount],
    resources: Option<&'a v1::ResourceRequirements>,
    /// `None` of an ephemeral one.
    wanted: Option<Wanted<'a>>,
    old: Option<&'a v1::ContainerStatus>,
}

impl<'a> View<'a> {
    /// Init containers in their order, the others by name.
    pub(super) fn statuses(&self) -> Statuses {
        let pod = &self.record.pod;
        let old = |list: fn(&v1::PodStatus) -> &Option<Vec<v1::ContainerStatus>>, name: &str| {
            self.old.and_then(|o| list(o).as_ref()?.iter().find(|s| s.name == name))
        };
        let plain = |wanted: Wanted<'a>, old| Shown {
            name: wanted.name(),
            image: wanted.spec.image.as_deref().unwrap_or_default(),
            mounts: wanted.spec.volume_mounts.as_deref().unwrap_or_default(),
            resources: wanted.spec.resources.as_ref(),
            wanted: Some(wanted),
            old,
        };
        let guest = |e: &'a v1::EphemeralContainer| Shown {
            name: &e.name,
            image: e.image.as_deref().unwrap_or_default(),
            mounts: e.volume_mounts.as_deref().unwrap_or_default(),
            resources: e.resources.as_ref(),
            wanted: None,
            old: old(|s| &s.ephemeral_container_statuses, &e.name),
        };
        let guests = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        let inits = spec::inits(pod).map(|w| plain(w, old(|s| &s.init_container_statuses, w.name())));
        let regulars = spec::regulars(pod).map(|w| plain(w, old(|s| &s.container_statuses, w.name())));
        Statuses {
            init: inits.map(|s| self.container(&s)).collect(),
            regular: sorted(regulars.map(|s| self.container(&s)).collect()),
            ephemeral: sorted(guests.map(|e| self.container(&guest(e))).collect()),
        }
    }

    fn container(&self, shown: &Shown<'_>) -> v1::ContainerStatus {
        let instances = self.instances(shown);
        let mut status = match instances.as_slice() {
            [] => self.without_instance(shown),
            [newest, before @ ..] => {
                let mut status = self.of_instance(shown, newest);
                if let Some(before) = before.first().and_then(|b| self.ended(b)) {
                    status.last_state = Some(state_ended(before));
                }
                status
            }
        };
        if self.record.stage.stop_cause().is_none() {
            self.wait(shown, instances.first().copied(), &mut status);
        }
        self.readiness(shown, instances.first().copied(), &mut status);
        status
    }

    /// Instances that count, newest first: those of the latest look, then such as ended and were removed since. One that is about to
    /// start is not there yet. kubelet 1.36: nor is one whose postStart hook has not come to its end.
    fn instances(&self, shown: &Shown<'_>) -> Vec<&'a ObservedContainer> {
        let (record, name) = (self.record, shown.name);
        let container = record.containers.get(&ContainerName::new(name));
        let mut list: Vec<&ObservedContainer> =
            record.observed.iter().flat_map(|o| &o.containers).filter(|c| c.name.as_str() == name).collect();
        if let (Some(newest), Some(container)) = (list.first(), container)
            && record.stage.stop_cause().is_none()
            && is_starting(record, container, newest)
        {
            list.remove(0);
        }
        if !self.starts_over(shown) {
            let known: BTreeSet<&ContainerId> = list.iter().map(|c| &c.id).collect();
            let gone = container.into_iter().flat_map(|c| &c.ends).filter(|e| !known.contains(&e.id));
            list.extend(gone.collect::<Vec<_>>());
            list.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        }
        list.truncate(2);
        list
    }

    /// Its instances were removed, or are about to be, so that all containers start over.
    fn starts_over(&self, shown: &Shown<'_>) -> bool {
        let was_told = || shown.old.and_then(waiting).is_some_and(|w| w.reason.as_deref() == Some(RESTARTING));
        self.record.restart_all.is_some() || (self.record.newest(shown.name).is_none() && was_told())
    }

    fn mounts(&self, shown: &Shown<'_>) -> Option<Vec<v1::VolumeMountStatus>> {
        let handler = self.record.inputs.runtime_handler(&self.record.pod).unwrap_or_default();
        mounts::of(shown.mounts, handler, self.node)
    }

    /// The status of a container without any instance.
    fn without_instance(&self, shown: &Shown<'_>) -> v1::ContainerStatus {
        let default = v1::ContainerStatus {
            name: shown.name.to_owned(),
            image: shown.image.to_owned(),
            state: Some(self.default_waiting()),
            last_state: Some(v1::ContainerState::default()),
            volume_mounts: self.mounts(shown),
            ..Default::default()
        };
        let Some(old) = shown.old else { return self.forgotten_init(shown, default) };
        if self.starts_over(shown) {
            return restarting_all(old, default);
        }
        if terminated(old).is_some() {
            return old.clone();
        }
        let mut status = v1::ContainerStatus {
            restart_count: old.restart_count,
            last_state: old.last_state.clone().or(default.last_state.clone()),
            ..default
        };
        if self.is_lost(shown, old) && last_terminated(&status).is_none() {
            status.last_state = Some(state_ended(lost(LOST_RUNNING)));
            if self.record.pod.metadata.deletion_timestamp.is_none() {
                status.restart_count = status.restart_count.saturating_add(1);
            }
        }
        self.forgotten_init(shown, status)
    }

    /// It was shown or seen running, and is not there any more.
    fn is_lost(&self, shown: &Shown<'_>, old: &v1::ContainerStatus) -> bool {
        let record = self.record.container(shown.name);
        running(old).is_some()
            || record.is_some_and(|c| c.is_lost && c.last_seen.as_ref().is_some_and(|l| l.state.is_running()))
    }

    /// kubelet 1.36: when regular containers exist, the init containers before them must have done their work.
    fn forgotten_init(&self, shown: &Shown<'_>, status: v1::ContainerStatus) -> v1::ContainerStatus {
        let is_init = shown.wanted.is_some_and(|w| w.role == Role::Init);
        let is_initialized = spec::regulars(&self.record.pod).any(|w| self.record.newest(w.name()).is_some());
        if !is_init || !is_initialized || waiting(&status).is_none() {
            return status;
        }
        let ended = v1::ContainerStateTerminated {
            reason: Some("Completed".to_owned()),
            message: Some(INIT_FORGOTTEN.to_owned()),
            ..Default::default()
        };
        v1::ContainerStatus { state: Some(state_ended(ended)), ..status }
    }

    fn default_waiting(&self) -> v1::ContainerState {
        let has_inits = spec::inits(&self.record.pod).next().is_some();
        state_waiting(if has_inits { "PodInitializing" } else { "ContainerCreating" }, None)
    }

    fn of_instance(&self, shown: &Shown<'_>, instance: &ObservedContainer) -> v1::ContainerStatus {
        let id = self.container_id(instance);
        let mut restart_count = i32::try_from(instance.restart_count).unwrap_or(i32::MAX);
        let state = match &instance.state {
            ContainerState::Running { started_at } => v1::ContainerState {
                running: Some(v1::ContainerStateRunning { started_at: Some(time(*started_at)) }),
                ..Default::default()
            },
            ContainerState::Exited { .. } => state_ended(self.ended(instance).unwrap_or_default()),
            ContainerState::Created => self.default_waiting(),
            ContainerState::Unknown => match shown.old {
                Some(old) if running(old).is_some() => {
                    restart_count = old.restart_count.saturating_add(1);
                    let ended = lost(LOST_ENDING);
                    let reason = self.record.restart_all.as_ref().map_or(LOST_REASON, |_| RESTARTING);
                    state_ended(v1::ContainerStateTerminated { reason: Some(reason.to_owned()), ..ended })
                }
                Some(old) if old.container_id.as_ref() == Some(&id) && terminated(old).is_some() => {
                    restart_count = old.restart_count;
                    old.state.clone().unwrap_or_default()
                }
                Some(_) | None => self.default_waiting(),
            },
        };
        let reports_signal = self.node.settings.gates.container_stop_signals;
        v1::ContainerStatus {
            name: shown.name.to_owned(),
            image: instance.image.clone(),
            image_id: instance.image_ref.clone(),
            container_id: Some(id),
            restart_count,
            state: Some(state),
            last_state: Some(v1::ContainerState::default()),
            resources: Some(resources::of_container(shown.resources, instance)),
            allocated_resources: resources::allocated(shown.resources),
            user: instance.user.clone(),
            stop_signal: instance.stop_signal.clone().filter(|_| reports_signal),
            volume_mounts: self.mounts(shown),
            ..Default::default()
        }
    }

    /// How an instance ended, if it did. kubelet 1.36: one that never started shows the beginning of time.
    fn ended(&self, instance: &ObservedContainer) -> Option<v1::ContainerStateTerminated> {
        let ContainerState::Exited { started_at, finished_at, code, reason, message } = &instance.state else {
            return None;
        };
        Some(v1::ContainerStateTerminated {
            container_id: Some(self.container_id(instance)),
            exit_code: *code,
            reason: Some(reason.clone()).filter(|r| !r.is_empty()),
            message: Some(message.clone()).filter(|m| !m.is_empty()),
            signal: None,
            started_at: Some(time(started_at.unwrap_or(Wall::UNIX_EPOCH))),
            finished_at: Some(time(*finished_at)),
        })
    }

    fn container_id(&self, instance: &ObservedContainer) -> String {
        format!("{}://{}", self.node.runtime.name, instance.id)
    }

    /// A container that starts soon, or shall start and cannot, waits; what it came to before is its last state.
    fn wait(&self, shown: &Shown<'_>, newest: Option<&ObservedContainer>, status: &mut v1::ContainerStatus) {
        let Some(container) = self.record.container(shown.name) else { return };
        if running(status).is_some() || self.record.restart_all.is_some() || !self.starts_again(shown, newest) {
            return;
        }
        let pod = &self.record.pod.metadata;
        let of_pod = |text: &Option<String>| text.clone().unwrap_or_default();
        let back_off = shown.wanted.and_then(|w| self.record.crash_wait(&w, self.node, self.now));
        let state = if let Some((_, delay)) = back_off {
            let (name, namespace, uid) = (of_pod(&pod.name), &self.record.key.namespace, self.record.uid.as_str());
            let delay = crate::pod::event::shown(delay);
            let container = shown.name;
            let message =
                format!("back-off {delay} restarting failed container={container} pod={name}_{namespace}({uid})");
            state_waiting(CRASHED, Some(message))
        } else if let Some(old) = shown.old.filter(|o| is_between(o, status) && !has_newer_failure(container, newest)) {
            // The wait is over, and nothing else is known yet.
            old.state.clone().unwrap_or_default()
        } else if let Some(failure) = &container.failure {
            state_waiting(&failure.reason, Some(failure.message.clone()))
        } else if newest.and_then(|n| exit_code(&n.state)).is_some_and(|code| self.is_against_policy(shown, code)) {
            // The API server lets no container begin again that was told to have ended so. kubelet 1.36 does not tell of it at all.
            self.default_waiting()
        } else {
            return;
        };
        if let Some(ended) = terminated(status).cloned() {
            status.last_state = Some(state_ended(ended));
        }
        status.state = Some(state);
    }

    fn starts_again(&self, shown: &Shown<'_>, newest: Option<&ObservedContainer>) -> bool {
        let ended = newest.and_then(|n| Some((n, exit_code(&n.state)?)));
        match (ended, shown.wanted, self.record.container(shown.name)) {
            (Some((instance, code)), Some(wanted), Some(container)) => {
                is_restarted(&self.record.pod, &wanted, container, instance.id.as_str(), code)
            }
            (Some(_), _, _) => false,
            (None, _, _) => true,
        }
    }

    /// Whether the policy alone would start nothing after that end.
    fn is_against_policy(&self, shown: &Shown<'_>, code: i32) -> bool {
        shown.wanted.is_some_and(|wanted| after_exit(&self.record.pod, &wanted, code) == AfterExit::Stay)
    }

    /// `started` and `ready`. kubelet 1.36: plain init containers are ready when they have done their work; ephemeral ones never are.
    fn readiness(&self, shown: &Shown<'_>, newest: Option<&ObservedContainer>, status: &mut v1::ContainerStatus) {
        status.ready = false;
        let Some(wanted) = shown.wanted else { return };
        let is_running = running(status).is_some();
        if wanted.role == Role::Init {
            status.started = Some(is_running);
            status.ready = terminated(status).is_some_and(|t| t.exit_code == 0);
            return;
        }
        let probes = self.record.container(shown.name).and_then(|c| c.probes.as_ref());
        let probes = probes.filter(|p| newest.is_some_and(|n| n.id == p.id));
        status.started = Some(is_running && probes.is_none_or(|p| p.is_started()));
        status.ready = is_running && probes.is_none_or(|p| p.is_ready());
    }
}

/// Nothing lives in the pod any more: what was started must have ended. kubelet 1.36: how, nobody knows, so it failed; that holds for
/// all regular containers once the pod was initialized, and for init containers up to the last that began.
pub(super) fn finish(record: &PodRecord, statuses: &mut Statuses) {
    let is_initialized = is_initialized(record, statuses);
    let began = |s: &v1::ContainerStatus| waiting(s).is_none() || last_terminated(s).is_some();
    let inits = statuses.init.iter().rposition(began).map_or(1, |at| at + 1);
    let regulars = statuses.regular.iter_mut().filter(|_| is_initialized);
    for status in regulars.chain(statuses.init.iter_mut().take(inits)) {
        if terminated(status).is_none() {
            status.state = Some(state_ended(lost(LOST_ENDING)));
            status.started = Some(false);
            status.ready = false;
        }
    }
}

/// Whether all init containers have done their work at some time.
fn is_initialized(record: &PodRecord, statuses: &Statuses) -> bool {
    let Some(last) = spec::inits(&record.pod).next_back() else { return true };
    let has_begun = |s: &v1::ContainerStatus| last_terminated(s).is_some() || waiting(s).is_none();
    let is_last_done = statuses.init.iter().rfind(|s| s.name == last.name()).is_some_and(|s| match last.role {
        Role::Sidecar => running(s).is_some() && s.started == Some(true),
        Role::Init | Role::Regular | Role::Ephemeral => {
            [terminated(s), last_terminated(s)].into_iter().flatten().any(|t| t.exit_code == 0)
        }
    });
    statuses.regular.iter().any(has_begun) || is_last_done
}

/// Whether the newest instance is still on its way: not started, or its postStart hook is due.
fn is_starting(record: &PodRecord, container: &ContainerRecord, newest: &ObservedContainer) -> bool {
    match newest.state {
        ContainerState::Created => container.start_failed.as_ref().is_none_or(|(id, _)| *id != newest.id),
        ContainerState::Running { .. } => {
            let is_it = |l: &Launch| match l {
                Launch::Start { id, .. } | Launch::Hook { id } => *id == newest.id,
                Launch::Create { .. } | Launch::Await { .. } => false,
            };
            container.launch.as_ref().is_some_and(is_it)
                || record.steps.is_under_way(&StepKey::StartContainer(newest.id.clone()))
        }
        ContainerState::Exited { .. } | ContainerState::Unknown => false,
    }
}

/// Whether the container was shown to back off, and its instance has not changed since.
fn is_between(old: &v1::ContainerStatus, status: &v1::ContainerStatus) -> bool {
    let is_crashed = waiting(old).is_some_and(|w| w.reason.as_deref() == Some(CRASHED));
    is_crashed && old.container_id == status.container_id
}

/// Whether the last failure came after the back-off of that instance: one of the start itself came before.
fn has_newer_failure(container: &ContainerRecord, newest: Option<&ObservedContainer>) -> bool {
    let of_newest = container.start_failed.as_ref().is_some_and(|(id, _)| newest.is_some_and(|n| n.id == *id));
    let is_of_start = |reason: &str| matches!(reason, "RunContainerError" | "PreStartHookError" | "PostStartHookError");
    container.failure.as_ref().is_some_and(|f| !of_newest && !is_of_start(&f.reason))
}

fn restarting_all(old: &v1::ContainerStatus, default: v1::ContainerStatus) -> v1::ContainerStatus {
    if waiting(old).is_some() {
        return v1::ContainerStatus {
            restart_count: old.restart_count,
            last_state: old.last_state.clone(),
            state: old.state.clone(),
            ..default
        };
    }
    let ended = v1::ContainerStateTerminated {
        reason: Some(RESTARTING.to_owned()),
        message: Some(RESTARTING_MESSAGE.to_owned()),
        exit_code: LOST,
        ..Default::default()
    };
    v1::ContainerStatus {
        restart_count: old.restart_count.saturating_add(1),
        state: Some(state_waiting(RESTARTING, Some(RESTARTING_MESSAGE.to_owned()))),
        last_state: Some(state_ended(ended)),
        ..default
    }
}

fn lost(message: &str) -> v1::ContainerStateTerminated {
    v1::ContainerStateTerminated {
        reason: Some(LOST_REASON.to_owned()),
        message: Some(message.to_owned()),
        exit_code: LOST,
        ..Default::default()
    }
}

fn state_ended(ended: v1::ContainerStateTerminated) -> v1::ContainerState {
    v1::ContainerState { terminated: Some(ended), ..Default::default() }
}

fn state_waiting(reason: &str, message: Option<String>) -> v1::ContainerState {
    let message = message.filter(|m| !m.is_empty());
    let waiting = v1::ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    v1::ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn sorted(mut list: Vec<v1::ContainerStatus>) -> Vec<v1::ContainerStatus> {
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}
