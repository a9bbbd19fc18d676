//! The task that looks at what is left of the node, frees what is of no use, and ends pods when that is not enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_core::evict::{Candidate, Eviction, PodUse, Pressures, Reclaim, Rules, Shortage, Watch, local};
use rubelet_core::pod::{EvictOrder, Order};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::collector::Demand;
use crate::hands::Hands;
use crate::picture::{Picture, Shown};
use crate::roster::RosterNote;

mod gauge;
mod kernel;

use gauge::{Depth, Gauge};
pub use gauge::{Figures, Told};

/// kubelet 1.36: how often the node is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// kubelet 1.36: how long an evicted pod may take until the node is looked at again, and how often that is checked.
const CLEANUP_MAX: Duration = Duration::from_secs(30);
const CLEANUP_POLL: Duration = Duration::from_secs(1);

/// What the task is given.
pub(crate) struct Pressure {
    pub(crate) rules: Rules,
    pub(crate) figures: Figures,
    /// `kernelMemcgNotification`.
    pub(crate) kernel_tells: bool,
    pub(crate) node_name: String,
    pub(crate) hands: Arc<Hands>,
    pub(crate) picture: Picture,
    pub(crate) clock: Clock,
    pub(crate) roster: mpsc::Sender<RosterNote>,
    pub(crate) collector: mpsc::Sender<Demand>,
    pub(crate) pressures: watch::Sender<Pressures>,
}

impl Pressure {
    /// Looks again and again.
    pub(crate) async fn run(self) {
        if self.rules.thresholds.is_empty() && !self.rules.local_storage {
            return;
        }
        let mut gauge = Gauge::new(self.figures.clone(), self.hands.clone());
        if self.rules.sets_container_fs() {
            tracing::warn!(
                "thresholds of containerfs are not for users to set; those of the file system that has it hold"
            );
        }
        let mut watch = Watch::new(self.rules.clone(), gauge.layout().await);
        let mut kernel = kernel::Notices::new(self.kernel_tells, self.hands.cgroups.as_ref());
        loop {
            let evicted = self.look(&mut gauge, &mut watch).await;
            if evicted.is_empty() {
                kernel.arm(&gauge, watch.thresholds());
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    () = kernel.crossed() => tracing::info!("the kernel says that memory runs out; looking at once"),
                }
            } else {
                self.await_cleanup(&evicted).await;
            }
        }
    }

    /// Looks once; the pods that had to go.
    async fn look(&self, gauge: &mut Gauge, watch: &mut Watch) -> Vec<PodUid> {
        let seen = gauge.observe().await;
        let look = watch.look(&seen, self.clock.now().mono);
        self.tell(look.pressures);
        let active = self.active();
        let limited: Vec<&(PodUid, Shown)> = active.iter().filter(|(_, s)| local::is_limited(&s.pod)).collect();
        if !limited.is_empty() {
            let usage = gauge.measure(limited.iter().map(|(uid, shown)| (uid, shown)), Depth::Disk).await;
            let over = watch.over_limits(&candidates(limited.iter().copied(), &usage));
            if !over.is_empty() {
                return self.evict_all(over).await;
            }
        }
        match look.shortage {
            Some(shortage) => self.relieve(gauge, watch, &shortage, &active).await,
            None => Vec::new(),
        }
    }

    /// Frees what is of no use, then ends a pod if it must be.
    async fn relieve(
        &self,
        gauge: &mut Gauge,
        watch: &Watch,
        shortage: &Shortage,
        active: &[(PodUid, Shown)],
    ) -> Vec<PodUid> {
        let resource = shortage.resource().as_str();
        tracing::info!(resource, signal = shortage.signal().as_str(), "the node runs out of something");
        let message = format!("Attempting to reclaim {resource}");
        self.hands.events.tell_of_node(&self.node_name, "Warning", "EvictionThresholdMet", &message);
        let reclaims = watch.reclaims(shortage);
        for reclaim in reclaims {
            self.reclaim(*reclaim).await;
        }
        let (seen, seen_at) = (gauge.observe().await, Instant::now());
        if !reclaims.is_empty() && watch.is_relieved(&seen) {
            tracing::info!(resource, "freeing what was of no use was enough; no pod has to go");
            return Vec::new();
        }
        if active.is_empty() {
            tracing::error!(resource, "the node runs out of something, but no pods are active to evict");
            return Vec::new();
        }
        let depth = if Watch::measures_disk(shortage) { Depth::Disk } else { Depth::Memory };
        let usage = gauge.measure(active.iter().map(|(uid, shown)| (uid, shown)), depth).await;
        let mut candidates = candidates(active.iter(), &usage);
        match watch.choose(shortage, &mut candidates, &seen) {
            Some(eviction) => {
                let age = self.hands.metrics.pods.figures_age.of(&[eviction.trigger.as_str()]);
                age.took(seen_at.elapsed());
                self.evict_all(vec![eviction]).await
            }
            None => {
                tracing::info!(resource, "no pod may be evicted from the node");
                Vec::new()
            }
        }
    }

    fn tell(&self, pressures: Pressures) {
        let is_new = self.pressures.send_if_modified(|known| {
            let is_new = *known != pressures;
            *known = pressures;
            is_new
        });
        if is_new {
            let names: Vec<&str> = pressures.names().collect();
            tracing::info!(conditions = ?names, "what the node has too little of has changed");
        }
    }

    /// Pods that use something of the node.
    fn active(&self) -> Vec<(PodUid, Shown)> {
        let is_over = |s: &Shown| matches!(s.status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let uid = |s: &Shown| PodUid::new(s.pod.metadata.uid.as_deref().unwrap_or_default());
        self.picture.listed().into_iter().filter(|s| !is_over(s)).map(|s| (uid(&s), s)).collect()
    }

    async fn reclaim(&self, what: Reclaim) {
        let (done, ended) = oneshot::channel();
        // Without a collector nothing is freed.
        if self.collector.send(Demand { what, done }).await.is_ok() && ended.await.is_err() {
            tracing::warn!(?what, "freeing broke off");
        }
    }

    async fn evict_all(&self, evictions: Vec<Eviction>) -> Vec<PodUid> {
        let mut evicted = Vec::new();
        for eviction in evictions {
            let signal = eviction.trigger.as_str();
            self.hands.metrics.pods.evictions.of(&[signal]).add_one();
            tracing::info!(uid = %eviction.uid, signal = eviction.trigger.as_str(), message = eviction.message, "evicting a pod");
            let Eviction { uid, grace_secs, message, annotations, is_disruption, .. } = eviction;
            let order = Order::Evict(EvictOrder {
                grace_secs: Some(grace_secs),
                reason: rubelet_core::evict::REASON.to_owned(),
                disruption: is_disruption.then(|| message.clone()),
                message,
                annotations: annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).into_map(),
            });
            if self.roster.send(RosterNote::Order(uid.clone(), order)).await.is_ok() {
                evicted.push(uid);
            }
        }
        evicted
    }

    /// kubelet 1.36: what pods that go give back must show before the next one goes.
    async fn await_cleanup(&self, evicted: &[PodUid]) {
        let deadline = Instant::now() + CLEANUP_MAX;
        let is_clean = |uid: &PodUid| {
            let is_gone = !self.picture.is_shown(uid);
            is_gone || self.picture.has_ended(uid) && self.hands.has_pod_cgroup(uid) != Some(true)
        };
        loop {
            tokio::time::sleep(CLEANUP_POLL).await;
            if evicted.iter().all(is_clean) {
                return;
            }
            if Instant::now() >= deadline {
                tracing::info!(?evicted, "timed out waiting for evicted pods to be cleaned up");
                return;
            }
        }
    }
}

fn candidates<'p>(
    pods: impl Iterator<Item = &'p (PodUid, Shown)>,
    usage: &'p BTreeMap<PodUid, PodUse>,
) -> Vec<Candidate<'p>> {
    pods.map(|(uid, shown)| Candidate { uid, pod: &shown.pod, usage: usage.get(uid) }).collect()
}
