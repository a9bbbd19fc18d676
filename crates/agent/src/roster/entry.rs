//! One pod of the roster.

use std::sync::Arc;

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_core::pod::Source;

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
    /// Wanted again while it was being stopped: started anew when it is gone.
    pub(super) again: Option<DesiredPod>,
}

impl Entry {
    pub(super) fn new(key: PodKey, source: Source, desired: DesiredPod, worker: WorkerHandle) -> Self {
        Self { key, source, pod: desired.pod, digest: desired.digest, worker, is_withdrawn: false, again: None }
    }

    /// Whether admission counts it: everything but what only the runtime knows.
    pub(super) fn holds_resources(&self) -> bool {
        self.source != Source::Runtime
    }
}
