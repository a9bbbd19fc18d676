//! Where a pod is in its life: Queued → Active → Stopping → Cleaning → Gone, never back.

use crate::now::Now;

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
    Failed { reason: String, message: String },
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
            Self::Failed { reason, message } => Some((reason, message)),
            Self::ShutDown => Some(("Terminated", "Pod was terminated in response to imminent node shutdown.")),
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
