//! Where a pod is in its life: Queued → Active → Stopping → Cleaning → Gone, never back.

use std::time::Duration;

use super::review::DEADLINE;
use crate::now::{Mono, Now};

pub(super) mod active;
pub(super) mod cleaning;
pub(super) mod stopping;

/// Where a pod is in its life, with what is only known there.
#[derive(Clone, PartialEq, Debug)]
pub enum Stage {
    /// It waits for the first look, or for an older pod of the same name to be gone.
    Queued { is_behind: bool },
    /// It runs, or shall run.
    Active,
    /// Its containers are being stopped, then its sandboxes.
    Stopping(Stopping),
    /// Nothing lives in it; what it used is given back. One that ended by itself stays here until it is withdrawn.
    Cleaning(Cleaning),
    /// Nothing is left.
    Gone,
}

/// A pod that is being stopped.
#[derive(Clone, PartialEq, Debug)]
pub struct Stopping {
    pub cause: StopCause,
    /// `None` until the first fact.
    pub began: Option<Now>,
    pub grace_secs: i64,
    /// No source wants it any more: afterwards nothing is kept.
    pub is_withdrawn: bool,
    /// It was told that it takes too long.
    pub is_overdue: bool,
}

/// kubelet 1.36: how long a pod that the node ends may take at least.
const OVERDUE_SECS_MIN: i64 = 10;

impl Stopping {
    /// kubelet 1.36: when it is told that a pod which the node ends takes too long, half as much again as its grace.
    pub(super) fn overdue_at(&self) -> Option<Mono> {
        let is_by_node = match &self.cause {
            StopCause::ShutDown => true,
            StopCause::Failed { reason, .. } => reason != DEADLINE,
            StopCause::Withdrawn | StopCause::Completed { .. } | StopCause::Rejected { .. } => false,
        };
        let began = self.began.filter(|_| is_by_node && !self.is_overdue)?;
        let secs = self.grace_secs.saturating_add(self.grace_secs / 2).max(OVERDUE_SECS_MIN);
        Some(began.mono + Duration::from_secs(secs.unsigned_abs()))
    }
}

/// A pod in which nothing lives.
#[derive(Clone, PartialEq, Debug)]
pub struct Cleaning {
    pub cause: StopCause,
    pub is_withdrawn: bool,
    pub is_unmounted: bool,
    pub has_no_cgroup: bool,
    pub has_no_dirs: bool,
}

/// Why a pod does not go on.
#[derive(Clone, PartialEq, Debug)]
pub enum StopCause {
    /// Its source wants it no more.
    Withdrawn,
    /// All its containers ended and none is restarted.
    Completed { has_failed: bool },
    /// It was ended from outside: deadline, eviction.
    Failed {
        reason: String,
        message: String,
        /// Message of the condition `DisruptionTarget`.
        disruption: Option<String>,
    },
    /// The node goes down, and with it the pod, which may go on after the next start.
    ShutDown,
    /// It was never let in.
    Rejected { reason: String, message: String },
}

/// How far a pod is from being no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its source wants it.
    Wanted,
    /// It is wanted no more, and something of it is still in use.
    Leaving,
    /// It is wanted no more, and uses nothing: no process, no volume, no cgroup.
    Reclaimed,
}

impl StopCause {
    /// kubelet 1.36: reason and message of a pod that was ended from outside.
    pub fn told(&self) -> Option<(&str, &str)> {
        match self {
            Self::Failed { reason, message, .. } => Some((reason, message)),
            Self::ShutDown => Some(("Terminated", "Pod was terminated in response to imminent node shutdown.")),
            Self::Withdrawn | Self::Completed { .. } | Self::Rejected { .. } => None,
        }
    }
}

impl StopCause {
    /// Message of the condition `DisruptionTarget`: it ends for the node's sake.
    pub fn disruption(&self) -> Option<&str> {
        match self {
            Self::Failed { disruption, .. } => disruption.as_deref(),
            Self::ShutDown => self.told().map(|(_, message)| message),
            Self::Withdrawn | Self::Completed { .. } | Self::Rejected { .. } => None,
        }
    }
}

impl Stage {
    /// Whether containers may be started in this stage.
    pub fn may_start_containers(&self) -> bool {
        match self {
            Self::Active => true,
            Self::Queued { .. } | Self::Stopping(_) | Self::Cleaning(_) | Self::Gone => false,
        }
    }

    /// How far the pod is from being no more.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Gone => Standing::Reclaimed,
            Self::Cleaning(c) if c.is_withdrawn && c.is_unmounted && c.has_no_cgroup => Standing::Reclaimed,
            Self::Cleaning(Cleaning { is_withdrawn, .. }) | Self::Stopping(Stopping { is_withdrawn, .. }) => {
                if *is_withdrawn {
                    Standing::Leaving
                } else {
                    Standing::Wanted
                }
            }
            Self::Queued { .. } | Self::Active => Standing::Wanted,
        }
    }

    /// For people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "Queued",
            Self::Active => "Active",
            Self::Stopping(_) => "Stopping",
            Self::Cleaning(_) => "Cleaning",
            Self::Gone => "Gone",
        }
    }

    /// Why it does not go on, if so.
    pub fn stop_cause(&self) -> Option<&StopCause> {
        match self {
            Self::Stopping(s) => Some(&s.cause),
            Self::Cleaning(c) => Some(&c.cause),
            Self::Queued { .. } | Self::Active | Self::Gone => None,
        }
    }
}
