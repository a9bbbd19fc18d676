//! Waiting longer and longer before a container is started, or an image pulled, again.

use std::time::Duration;

use crate::node::NodeFacts;
use crate::now::{Mono, Wall};

/// kubelet 1.36: a container that ran this long after its last restart starts over with the first delay.
const FORGET: Duration = Duration::from_secs(600);
/// kubelet 1.36: delays of image pulls.
const PULL_FIRST: Duration = Duration::from_secs(10);
const PULL_MOST: Duration = Duration::from_secs(300);

/// First and longest delay of restarts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    first: Duration,
    most: Duration,
}

impl Limits {
    /// kubelet 1.36: 10 s doubling to `crashLoopBackOff.maxContainerRestartPeriod`; 1 s doubling to 60 s with the gate
    /// `ReduceDefaultCrashLoopBackOffDecay`.
    pub(super) fn of(node: &NodeFacts) -> Self {
        let max = Duration::from_secs(node.settings.crash_loop_secs_max.max(1));
        let (first, most) = if node.settings.gates.reduce_default_crash_loop_back_off_decay {
            (Duration::from_secs(1), max.min(Duration::from_secs(60)))
        } else {
            (Duration::from_secs(10), max)
        };
        Self { first: first.min(most), most }
    }
}

/// A container's restarts that followed each other too fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BackOff {
    /// Restarts that count; at least 1.
    restarts: u32,
    /// The last of them.
    updated: Wall,
}

impl BackOff {
    /// One more restart, of a container that ended at `ended`.
    pub(super) fn next(before: Option<Self>, ended: Wall, now: Wall) -> Self {
        let restarts = before.filter(|b| !b.is_over(ended)).map_or(0, |b| b.restarts).saturating_add(1);
        Self { restarts, updated: now }
    }

    /// Until when a container that ended at `ended` stays down, and the delay that is shown. `None`: it may start.
    pub(super) fn until(&self, ended: Wall, limits: Limits) -> Option<(Wall, Duration)> {
        if self.is_over(ended) {
            return None;
        }
        let delay = doubled(limits.first, self.restarts).min(limits.most);
        Some((ended.saturating_add(delay).unwrap_or(ended), delay))
    }

    fn is_over(&self, ended: Wall) -> bool {
        ended.duration_since(self.updated) > jiff::SignedDuration::try_from(FORGET).unwrap_or(jiff::SignedDuration::MAX)
    }
}

/// Failed pulls of one container's image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PullBackOff {
    failures: u32,
    updated: Mono,
}

impl PullBackOff {
    /// One more failure. kubelet 1.36: forgotten after twice the longest delay.
    pub(super) fn next(before: Option<&Self>, now: Mono) -> Self {
        let failures = before.filter(|b| now.since(b.updated) <= PULL_MOST * 2).map_or(0, |b| b.failures);
        Self { failures: failures.saturating_add(1), updated: now }
    }

    /// When the next pull is due.
    pub(super) fn until(&self) -> Mono {
        self.updated + doubled(PULL_FIRST, self.failures).min(PULL_MOST)
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(20))
}
