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
    pub(super) worker: WorkerHandle,
    pub(super) is_withdrawn: bool,
    /// What admission said when it said no.
    pub(super) rejected: Option<Order>,
    /// The pod with the sizes that it has, while those that it wants now were not granted; and since when.
    pub(super) waiting: Option<(Arc<v1::Pod>, Instant)>,
    /// It ends for another pod.
    pub(super) is_preempted: bool,
    /// Wanted again while it was being stopped: started anew when it is gone.
    pub(super) again: Option<(Source, DesiredPod)>,
}

impl Entry {
    /// The pod with the sizes that it has.
    pub(super) fn granted(&self) -> &Arc<v1::Pod> {
        self.waiting.as_ref().map_or(&self.pod, |(granted, _)| granted)
    }

    /// Whether admission counts it, as long as it has not ended. kubelet 1.36: what is withdrawn does not count any more.
    pub(super) fn holds_resources(&self) -> bool {
        !self.is_withdrawn && !self.is_preempted && self.rejected.is_none()
    }
}
