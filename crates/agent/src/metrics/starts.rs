//! How fast pods start, and how fast it is decided about them.

use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::v1;
use tokio::time::Instant;

use super::Metrics;
use crate::picture::Lifecycle;

/// A pod on its way.
pub(crate) struct Starting {
    /// When it was seen first.
    pub(crate) since: Instant,
    /// What pulls of its images took.
    pub(crate) pulled: Duration,
}

impl Starting {
    pub(crate) fn now() -> Self {
        Self { since: Instant::now(), pulled: Duration::ZERO }
    }
}

impl Metrics {
    /// A pod runs for the first time.
    pub(crate) fn runs(&self, starting: &Starting, pod: &v1::Pod, is_static: bool) {
        let took = starting.since.elapsed();
        self.pods.start.took(took);
        if is_static {
            return;
        }
        // kubelet 1.36: what users wait for begins with the creation; the API server's times are whole seconds.
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let total = created.and_then(|at| Duration::try_from(Timestamp::now().duration_since(at)).ok()).unwrap_or(took);
        let sli = total.saturating_sub(starting.pulled);
        self.pods.start_total.of(&[]).took(total);
        self.pods.start_sli.of(&[]).took(sli);
        let has_network = pod.spec.as_ref().and_then(|spec| spec.host_network) != Some(true);
        if has_network && self.pods.first_start.get() == 0.0 {
            self.pods.first_start.set(sli.as_secs_f64());
        }
    }

    /// It was decided about a pod.
    pub(crate) fn decided(&self, lifecycle: Lifecycle, is_first: bool, took: Duration) {
        let operation = match lifecycle {
            Lifecycle::Sync if is_first => "create",
            Lifecycle::Sync => "sync",
            Lifecycle::Terminating => "terminating",
            Lifecycle::Terminated => "terminated",
        };
        self.pods.decisions.of(&[operation]).took(took);
    }
}
