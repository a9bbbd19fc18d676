//! The phase that follows from the container statuses.

use rubelet_api::ids::ContainerId;
use rubelet_api::v1;

use super::{RESTARTING, Statuses, View};
use crate::pod::restart::{AfterExit, after_exit, is_restarted};
use crate::pod::spec::{self, Role, Wanted};

/// The API's `status.phase`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed].into_iter().find(|p| p.as_str() == text)
    }

    /// The phase of a status that says that the pod has ended.
    pub(super) fn ended(status: &v1::PodStatus) -> Option<Self> {
        status.phase.as_deref().and_then(Self::parse).filter(|p| p.is_end())
    }

    /// Nothing follows.
    pub(super) fn is_end(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed => true,
            Self::Pending | Self::Running => false,
        }
    }
}

/// What the containers of one kind add up to.
#[derive(Default)]
struct Count {
    /// Plain init containers that have not done their work.
    pending_inits: usize,
    /// Sidecars that never started.
    pending_sidecars: usize,
    /// An init container failed for good.
    has_failed_init: bool,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
    /// A stopped container starts again.
    has_restart: bool,
}

/// The phase. kubelet 1.36: pending until all plain init containers have ended and no container waits for its first start; running
/// while a container runs or starts again; else ended, by the exit codes of the regular containers.
///
/// `is_over`: no container ever starts again; for static pods that alone ends nothing.
pub(super) fn of(view: &View<'_>, statuses: &Statuses, is_over: bool) -> Phase {
    let pod = &view.record.pod;
    let mut count = Count::default();
    for wanted in spec::inits(pod) {
        let status = statuses.init.iter().find(|s| s.name == wanted.name());
        match wanted.role {
            Role::Sidecar => count.sidecar(status),
            Role::Init | Role::Regular | Role::Ephemeral => count.init(view, &wanted, status),
        }
    }
    for wanted in spec::regulars(pod) {
        count.regular(view, &wanted, statuses.regular.iter().find(|s| s.name == wanted.name()));
    }
    let was_initialized = has_regular_started(&statuses.regular);
    if count.has_failed_init {
        Phase::Failed
    } else if count.pending_inits > 0 || (count.pending_sidecars > 0 && !was_initialized) || count.waiting > 0 {
        Phase::Pending
    } else if count.running > 0 && count.unknown == 0 {
        Phase::Running
    } else if count.stopped > 0 && count.unknown == 0 {
        let ends = if is_over && !view.record.source.is_static() { true } else { !count.has_restart };
        match ends {
            true if count.stopped == count.succeeded => Phase::Succeeded,
            true => Phase::Failed,
            false => Phase::Running,
        }
    } else {
        Phase::Pending
    }
}

/// Whether a regular container has ever started.
pub(super) fn has_regular_started(statuses: &[v1::ContainerStatus]) -> bool {
    statuses.iter().any(|s| running(s).is_some() || terminated(s).is_some() || last_terminated(s).is_some())
}

impl Count {
    fn sidecar(&mut self, status: Option<&v1::ContainerStatus>) {
        match status {
            Some(s) if running(s).is_some() => {
                self.running += 1;
                if s.started != Some(true) {
                    self.pending_sidecars += 1;
                }
            }
            // One that ended starts again: the phase does not heed it.
            Some(s) if terminated(s).is_some() || last_terminated(s).is_some() => {}
            Some(_) => {
                self.pending_sidecars += 1;
                self.waiting += 1;
            }
            None => self.unknown += 1,
        }
    }

    fn init(&mut self, view: &View<'_>, wanted: &Wanted<'_>, status: Option<&v1::ContainerStatus>) {
        let ended = status.and_then(|s| terminated(s).or_else(|| last_terminated(s)));
        match (status, ended) {
            (Some(s), Some(ended)) if running(s).is_none() => {
                self.has_failed_init |= ended.exit_code != 0 && !is_restartable(view, wanted, s);
            }
            (Some(_) | None, _) => self.pending_inits += 1,
        }
    }

    fn regular(&mut self, view: &View<'_>, wanted: &Wanted<'_>, status: Option<&v1::ContainerStatus>) {
        match status {
            Some(s) if running(s).is_some() => self.running += 1,
            Some(s) if terminated(s).is_some() => {
                self.stopped += 1;
                self.succeeded += usize::from(terminated(s).is_some_and(|t| t.exit_code == 0));
                self.has_restart |= is_restartable(view, wanted, s);
            }
            Some(s) if last_terminated(s).is_some() => {
                self.stopped += 1;
                self.has_restart |= is_restartable(view, wanted, s);
            }
            Some(_) => self.waiting += 1,
            None => self.unknown += 1,
        }
    }
}

/// Whether a container that ended starts again.
fn is_restartable(view: &View<'_>, wanted: &Wanted<'_>, status: &v1::ContainerStatus) -> bool {
    let record = view.record;
    if record.restart_all.is_some() {
        return true;
    }
    let Some(ended) = terminated(status).or_else(|| last_terminated(status)) else { return true };
    if ended.reason.as_deref() == Some(RESTARTING) {
        return true;
    }
    let id = ended.container_id.as_deref().and_then(|id| id.rsplit_once("://")).map(|(_, id)| ContainerId::new(id));
    match (id, record.container(wanted.name())) {
        (Some(id), Some(container)) => is_restarted(&record.pod, wanted, container, id.as_str(), ended.exit_code),
        _ => after_exit(&record.pod, wanted, ended.exit_code) != AfterExit::Stay,
    }
}

pub(super) fn running(status: &v1::ContainerStatus) -> Option<&v1::ContainerStateRunning> {
    status.state.as_ref()?.running.as_ref()
}

pub(super) fn waiting(status: &v1::ContainerStatus) -> Option<&v1::ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

pub(super) fn terminated(status: &v1::ContainerStatus) -> Option<&v1::ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

pub(super) fn last_terminated(status: &v1::ContainerStatus) -> Option<&v1::ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}
