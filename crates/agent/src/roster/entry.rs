//! One pod of the roster.

use std::sync::Arc;

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_core::pod::{Order, Source};

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
    /// Wanted again while it was being stopped: started anew when it is gone.
    pub(super) again: Option<(Source, DesiredPod)>,
}

impl Entry {
    /// Whether admission counts it, as long as it has not ended. kubelet 1.36: what is withdrawn does not count any more.
    pub(super) fn holds_resources(&self) -> bool {
        !self.is_withdrawn && self.rejected.is_none()
    }
}
