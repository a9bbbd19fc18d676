//! What the node, its pods and their containers use, read from the kernel when somebody asks. Nobody asks, nothing is read.
//!
//! Which pods there are comes from the picture, where their containers are follows from their cgroups; the runtime is asked
//! only for what it alone knows: sandboxes and writable layers. Readings of disks are kept for a short while.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::stats::Time;
use rubelet_core::node::NodeFacts;
use rubelet_host::cgroup::Tree;
use tokio::sync::watch;

use crate::hands::Hands;
use crate::picture::Picture;

mod disks;
mod drivers;
pub mod figures;
pub(crate) mod ground;
mod pods;
mod rates;
mod summary;
#[cfg(test)]
mod tests;

pub use figures::Figures;
pub use summary::Summary;
pub(crate) use summary::is_told;

use disks::Disks;
use drivers::Said;
use ground::{Ground, Sandboxes};
use rates::Rates;

/// Parts of the system whose cgroups are told of, by their names below the hierarchies' mounts; empty: not known.
#[derive(Clone, Debug, Default)]
pub struct SystemCgroups {
    /// `kubeletCgroups`, or where this process is.
    pub kubelet: String,
    /// `--runtime-cgroups`.
    pub runtime: String,
    /// `systemCgroups`.
    pub misc: String,
}

impl SystemCgroups {
    /// Those that have a name, with the name that the summary gives them.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("kubelet", &self.kubelet), ("runtime", &self.runtime), ("misc", &self.misc)];
        all.into_iter().map(|(name, cgroup)| (name, cgroup.trim_matches('/'))).filter(|(_, cgroup)| !cgroup.is_empty())
    }
}

/// What statistics are told.
#[derive(Clone, Debug, Default)]
pub struct StatsSettings {
    pub cgroups: SystemCgroups,
    /// `volumeStatsAggPeriod`: how old the use of a volume may be; `None`: volumes are not told of.
    pub volumes_age_max: Option<Duration>,
}

/// Reads statistics. Clones share what is kept.
#[derive(Clone)]
pub struct Stats {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) hands: Arc<Hands>,
    pub(crate) node: watch::Receiver<Arc<NodeFacts>>,
    pub(crate) picture: Picture,
    pub(crate) settings: StatsSettings,
    /// The machine's cgroups from the very top; `None` when there are none.
    pub(crate) top: Option<Tree>,
    kept: Mutex<Kept>,
}

/// What is remembered from one question to the next.
#[derive(Default)]
struct Kept {
    rates: Rates,
    disks: Disks,
    sandboxes: Sandboxes,
    drivers: Said,
}

impl Stats {
    /// Statistics of what these hands hold.
    pub fn new(
        hands: Arc<Hands>,
        node: watch::Receiver<Arc<NodeFacts>>,
        picture: Picture,
        settings: StatsSettings,
    ) -> Self {
        let top = hands.cgroups.as_ref().map(Tree::top);
        Self { inner: Arc::new(Inner { hands, node, picture, settings, top, kept: Mutex::default() }) }
    }

    /// The summary, ready to be written: what only the runtime knows has been asked. Writing it blocks on the kernel.
    pub async fn summary(&self, is_cpu_and_memory_only: bool) -> Summary {
        let ground = Ground::survey(&self.inner, !is_cpu_and_memory_only, !is_cpu_and_memory_only).await;
        Summary { stats: self.clone(), ground, is_cpu_and_memory_only }
    }
}

impl Inner {
    pub(crate) fn node_name(&self) -> String {
        self.node.borrow().name.clone()
    }

    pub(crate) fn root_dir(&self) -> PathBuf {
        self.hands.root_dir.clone()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What is kept is only ever replaced whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, as the API writes it.
pub(crate) fn now() -> Time {
    Time(Timestamp::now())
}
