//! One pod of the roster.

use std::sync::Arc;

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_core::pod::{Order, Source};
use tokio::time::Instant;

use crate::sources::DesiredPod;
use crate::worker::WorkerHandle;

/// A pod with a worker.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: PodKey,
    pub(super) source: Source,
    pub(super) pod: Arc<v1::Pod>,
    /// Digest of the manifest it came from.
    pub(super) digest: String,
    /// How often the manifest's file was deleted so far.
    pub(super) removals: u32,
    pub(super) worker: WorkerHandle,
    pub(super) is_withdrawn: bool,
    /// What admission said when it said no.
    pub(super) rejected: Option<Order>,
    /// While the sizes that it wants now were not granted.
    pub(super) waiting: Option<Waiting>,
    /// It ends for another pod.
    pub(super) is_preempted: bool,
    /// Wanted again while it was being stopped: started anew when it is gone.
    pub(super) again: Option<Again>,
}

/// A pod that starts over when the one of its UID is gone.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) source: Source,
    pub(super) desired: DesiredPod,
    /// What was shown last of the one before.
    pub(super) before: Option<Arc<v1::PodStatus>>,
}

/// A pod that wants other sizes than it has.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The pod with the sizes that it has.
    pub(super) granted: Arc<v1::Pod>,
    pub(super) since: Instant,
    pub(super) answer: Answer,
}

/// What admission said last of the sizes that a pod wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Open,
    Deferred,
    Infeasible,
}

impl Entry {
    /// The pod with the sizes that it has.
    pub(super) fn granted(&self) -> &Arc<v1::Pod> {
        self.waiting.as_ref().map_or(&self.pod, |waiting| &waiting.granted)
    }

    /// Whether admission counts it, as long as it has not ended. kubelet 1.36: what is withdrawn does not count any more.
    pub(super) fn holds_resources(&self) -> bool {
        !self.is_withdrawn && !self.is_preempted && self.rejected.is_none()
    }
}
