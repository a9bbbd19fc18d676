//! The metrics pages: what was counted where plans and outcomes pass, and what is read when somebody asks.
//!
//! [`Metrics`] is made once, goes down by reference to whoever counts, and is never asked for by a name: who has none counts
//! nothing. Counting is an atomic addition; nothing runs in the background.

use std::io;
use std::sync::Arc;

use rubelet_api::metrics::Text;
use rubelet_apiserver::ClientCounts;
use rubelet_cri::RuntimeCounts;
use rubelet_host::proc;

mod allocation;
pub mod cadvisor;
mod certificates;
mod ends;
mod families;
pub mod page;
mod pods;
mod resizes;
pub mod resource;
mod starts;
mod steps;
mod volumes;

pub(crate) use certificates::Entry;
pub(crate) use resizes::Resizing;
pub(crate) use starts::{NodeStarting, Starting};
pub(crate) use steps::Begun;

pub use allocation::AllocationCounts;
pub use certificates::PodCertificates;
pub use families::{ContainerCounts, NodeCounts, PodCounts, ProbeCounts, StorageCounts, Until};

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    pub pods: PodCounts,
    pub containers: ContainerCounts,
    pub storage: StorageCounts,
    pub node: NodeCounts,
    pub allocation: AllocationCounts,
    /// On `/metrics/probes`.
    pub probes: ProbeCounts,
    pub certificates: Arc<PodCertificates>,
    /// Calls to the container runtime.
    pub runtime: Arc<RuntimeCounts>,
    /// Requests to the API server.
    pub client: Arc<ClientCounts>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            pods: PodCounts::default(),
            containers: ContainerCounts::default(),
            storage: StorageCounts::default(),
            node: NodeCounts::default(),
            allocation: AllocationCounts::default(),
            probes: ProbeCounts::default(),
            certificates: Arc::default(),
            runtime: Arc::default(),
            client: Arc::default(),
        };
        // kubelet 1.36: there from the beginning.
        for is_static in ["", "true"] {
            metrics.pods.restarted.of(&[is_static]);
        }
        if let Some((own, boot)) = proc::own().zip(proc::boot_secs()) {
            metrics.node.before_start.set((own.started_at_secs - boot as f64).max(0.0));
        }
        metrics
    }
}

impl Metrics {
    /// Writes what stands on `/metrics`.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        self.pods.tell(text)?;
        self.containers.tell(text)?;
        self.storage.tell(text)?;
        self.node.tell(text)?;
        self.allocation.tell(text)?;
        self.certificates.tell(jiff::Timestamp::now(), text)?;
        self.runtime.tell(text)?;
        self.client.tell(text)
    }
}
