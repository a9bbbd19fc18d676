//! What we know of one container of the pod beyond what the runtime shows.

use rubelet_api::ids::ContainerId;

use super::backoff::{BackOff, PullBackOff};
use super::fact::ImageFound;
use super::kill::KillCause;
use super::observed::{ContainerState, ObservedContainer};
use super::probe::Probes;
use super::resize::Told;
use crate::now::{Mono, Wall};

/// Memory of one container, whatever its instances.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerRecord {
    /// The newest instance when it was last seen.
    pub(super) last_seen: Option<ObservedContainer>,
    /// It vanished, and not by us.
    pub(super) is_lost: bool,
    /// The last instances that ended, newest first; at most two.
    pub(super) ends: Vec<ObservedContainer>,
    /// The highest restart count of any instance.
    pub(super) count_max: Option<u32>,
    /// How far the start of an instance has come.
    pub(super) launch: Option<Launch>,
    /// Why the last attempt to start failed.
    pub(super) failure: Option<Failure>,
    pub(super) back_off: Option<BackOff>,
    pub(super) pull_back_off: Option<PullBackOff>,
    pub(super) ended_by_us: Option<EndedByUs>,
    /// The dead instance whose back-off was told.
    pub(super) back_off_told: Option<ContainerId>,
    /// An instance that was created and could not be started, and when.
    pub(super) start_failed: Option<(ContainerId, Wall)>,
    pub(super) probes: Option<Probes>,
    pub(super) told: Told,
}

/// How far the start of an instance has come.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Launch {
    /// The image is there.
    Create { image: Box<ImageFound> },
    /// It is created.
    Start { id: ContainerId, count: u32 },
    /// It runs, and its postStart hook is due or running.
    Hook { id: ContainerId },
    /// It runs, as far as we know, and was not observed yet.
    Await { id: ContainerId, since: Mono },
}

/// Why a container does not start, in the API's words.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) message: String,
    /// No attempt is made before.
    pub(super) retry_at: Option<Mono>,
}

/// A dead instance that we stopped.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct EndedByUs {
    pub(super) id: ContainerId,
    pub(super) cause: KillCause,
    /// When it was decided.
    pub(super) decided: Wall,
    /// The end of the instance before it.
    pub(super) earlier_end: Option<Wall>,
}

impl EndedByUs {
    pub(super) fn cause(&self) -> KillCause {
        self.cause
    }
}

impl ContainerRecord {
    /// Remembers an instance that ended.
    pub(super) fn remember_end(&mut self, instance: &ObservedContainer) {
        match self.ends.iter_mut().find(|e| e.id == instance.id) {
            Some(known) => known.clone_from(instance),
            None => {
                let at = self.ends.iter().position(|e| e.created_at < instance.created_at).unwrap_or(self.ends.len());
                self.ends.insert(at, instance.clone());
                self.ends.truncate(2);
            }
        }
    }

    /// The restart count of the next instance.
    pub(super) fn next_count(&self) -> u32 {
        self.count_max.map_or(0, |n| n.saturating_add(1))
    }

    pub(super) fn saw_count(&mut self, count: u32) {
        self.count_max = self.count_max.max(Some(count));
    }

    /// Whether an attempt to start is between its steps. One that is only waiting to be seen holds up nobody.
    pub(super) fn is_launching(&self) -> bool {
        match &self.launch {
            Some(Launch::Create { .. } | Launch::Start { .. } | Launch::Hook { .. }) => true,
            Some(Launch::Await { .. }) | None => false,
        }
    }

    /// Whether the postStart hook of this instance is still to be waited for.
    pub(super) fn awaits_hook(&self, id: &ContainerId) -> bool {
        matches!(&self.launch, Some(Launch::Hook { id: of }) if of == id)
    }
}

/// When a dead instance ended.
pub(super) fn ended_at(state: &ContainerState) -> Option<Wall> {
    match state {
        ContainerState::Exited { finished_at, .. } => Some(*finished_at),
        ContainerState::Created | ContainerState::Running { .. } | ContainerState::Unknown => None,
    }
}

/// The exit code of a dead instance.
pub(super) fn exit_code(state: &ContainerState) -> Option<i32> {
    match state {
        ContainerState::Exited { code, .. } => Some(*code),
        ContainerState::Created | ContainerState::Running { .. } | ContainerState::Unknown => None,
    }
}

/// Whether a process may live in it.
pub(super) fn is_alive(state: &ContainerState) -> bool {
    match state {
        ContainerState::Running { .. } | ContainerState::Unknown => true,
        ContainerState::Created | ContainerState::Exited { .. } => false,
    }
}
