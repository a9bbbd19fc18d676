//! How fast pods and the node start, and how fast it is decided about pods.

use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::v1;
use rubelet_host::proc;
use tokio::time::Instant;

use super::{Metrics, NodeCounts};
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

/// The node on its way into the cluster. kubelet 1.36: one that the API server knew before is not on its way.
#[derive(Default)]
pub(crate) struct NodeStarting {
    /// When it was tried first to register it.
    attempted: Option<Instant>,
    /// When it was made, until it is ready.
    registered: Option<Instant>,
}

impl NodeStarting {
    /// It is tried to register the node.
    pub(crate) fn attempts(&mut self) {
        self.attempted.get_or_insert_with(Instant::now);
    }

    /// The API server has it, and had none before.
    pub(crate) fn is_made(&mut self, counts: &NodeCounts) {
        let now = Instant::now();
        let Some(attempted) = self.attempted.filter(|_| counts.registration.get() == 0.0) else { return };
        let registration = now - attempted;
        let so_far = proc::own().map_or(0.0, |own| wall_secs() - own.started_at_secs);
        counts.before_registration.set((so_far - registration.as_secs_f64()).max(0.0));
        counts.registration.set(registration.as_secs_f64());
        self.registered = Some(now);
    }

    /// The API server knows that it is ready.
    pub(crate) fn is_ready(&mut self, counts: &NodeCounts) {
        let Some(registered) = self.registered.take() else { return };
        counts.after_registration.set(registered.elapsed().as_secs_f64());
        if let Some(boot) = proc::boot_secs() {
            counts.startup.set((wall_secs() - boot as f64).max(0.0));
        }
    }
}

fn wall_secs() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_new_tells_how_long_it_took() {
        let (counts, mut node) = (NodeCounts::default(), NodeStarting::default());
        node.attempts();
        tokio::time::advance(Duration::from_secs(2)).await;
        node.attempts();
        node.is_made(&counts);
        tokio::time::advance(Duration::from_secs(3)).await;
        node.is_ready(&counts);
        tokio::time::advance(Duration::from_secs(4)).await;
        node.is_ready(&counts);
        assert_eq!((counts.registration.get(), counts.after_registration.get()), (2.0, 3.0));
        assert!(counts.startup.get() > 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_known_tells_nothing() {
        let (counts, mut node) = (NodeCounts::default(), NodeStarting::default());
        node.attempts();
        tokio::time::advance(Duration::from_secs(2)).await;
        node.is_ready(&counts);
        assert_eq!((counts.registration.get(), counts.startup.get()), (0.0, 0.0));
    }
}
