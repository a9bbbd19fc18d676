//! The kernel says at once when memory falls below a threshold, where it can.

use std::os::fd::OwnedFd;

use rubelet_core::evict::Signal;
use rubelet_core::evict::threshold::Threshold;
use rubelet_host::cgroup::{LEVELS, Tree};
use rubelet_host::{cgroup, chain, ready};
use tokio::time::{Duration, Instant};

use super::gauge::{Gauge, Memory};

/// kubelet 1.36: how often the kernel is told anew how much is too much, as what counts against it changes.
const REFRESH: Duration = Duration::from_secs(10);

/// What the kernel was asked to tell.
pub(super) struct Notices {
    /// The cgroups of the node and of all pods; `None` where nothing is asked.
    tree: Option<Tree>,
    armed: Vec<OwnedFd>,
    again_at: Option<Instant>,
}

impl Notices {
    /// kubelet 1.36: on cgroup v2 nothing is asked.
    pub(super) fn new(is_wanted: bool, tree: Option<&Tree>) -> Self {
        let tree = tree.filter(|tree| is_wanted && tree.version() == cgroup::Version::V1).cloned();
        Self { tree, armed: Vec::new(), again_at: None }
    }

    /// Tells the kernel how much memory is too much now.
    pub(super) fn arm(&mut self, gauge: &Gauge, thresholds: &[Threshold]) {
        let Some(tree) = &self.tree else { return };
        if self.again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.again_at = Some(Instant::now() + REFRESH);
        self.armed.clear();
        let [node, pods] = gauge.memory;
        for threshold in thresholds {
            let (tree, path, memory) = match threshold.signal {
                Signal::MemoryAvailable => (tree.top(), "", node),
                Signal::AllocatableMemoryAvailable => (tree.clone(), LEVELS[0], pods),
                _ => continue,
            };
            let Some(memory) = memory else { continue };
            match tree.notify_memory(path, limit(threshold, memory)) {
                Ok(fd) => self.armed.push(fd),
                Err(e) => tracing::info!(err = %chain(&e), "the kernel does not tell of memory running out"),
            }
        }
    }

    /// Completes when memory was crossed; never where the kernel does not tell.
    pub(super) async fn crossed(&mut self) {
        let waits: Vec<_> = self.armed.iter().map(|fd| Box::pin(ready::readable(fd))).collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let (outcome, ..) = futures_util::future::select_all(waits).await;
        // Asked anew at the next look.
        self.again_at = None;
        if outcome.is_err() {
            self.tree = None;
            std::future::pending().await
        }
    }
}

/// kubelet 1.36: use is too much when the working set leaves less than the threshold; files that were not used lately come on top.
fn limit(threshold: &Threshold, memory: Memory) -> u64 {
    let bytes = threshold.bytes_of(memory.capacity);
    u64::try_from(memory.capacity - bytes + (memory.used - memory.working_set)).unwrap_or(0)
}
