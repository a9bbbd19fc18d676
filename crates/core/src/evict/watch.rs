//! Since when there is too little of what, and what follows.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::gather::Gather;

use super::observe::{Candidate, Observations};
use super::rank::{Reclaim, rank, reclaims};
use super::threshold::{Layout, Resource, Rules, Signal, Threshold};
use super::{Eviction, GRACE_SECS, Pressures, Trigger, local, message};
use crate::now::Mono;
use crate::resources::qos::is_critical;

/// Which of the three conditions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Memory,
    Disk,
    Pids,
}

/// What is remembered from look to look.
#[derive(Clone, Debug)]
pub struct Watch {
    rules: Rules,
    layout: Layout,
    /// Thresholds by place that were met for their grace and are not over.
    met: BTreeSet<usize>,
    /// When each threshold that is met was first seen to be.
    since: BTreeMap<usize, Mono>,
    /// When a condition's cause was last seen.
    pressed: BTreeMap<Kind, Mono>,
}

/// What a look brought.
#[derive(Clone, PartialEq, Debug)]
pub struct Look {
    /// What the node's status says.
    pub pressures: Pressures,
    /// What pods have to go for.
    pub shortage: Option<Shortage>,
}

/// Something of which there was too little for too long.
#[derive(Clone, PartialEq, Debug)]
pub struct Shortage {
    /// The thresholds that are met, the one that pods go for first.
    met: Vec<Threshold>,
}

impl Shortage {
    /// The signal that pods go for.
    pub fn signal(&self) -> Signal {
        self.met[0].signal
    }

    /// What runs out.
    pub fn resource(&self) -> Resource {
        self.signal().resource()
    }
}

impl Watch {
    /// Nothing was seen yet.
    pub fn new(rules: Rules, layout: Layout) -> Self {
        Self { rules: rules.on(layout), layout, met: BTreeSet::new(), since: BTreeMap::new(), pressed: BTreeMap::new() }
    }

    /// Whether nothing has to be looked at, ever.
    pub fn is_idle(&self) -> bool {
        self.rules.thresholds.is_empty() && !self.rules.local_storage
    }

    /// The thresholds that hold, those of writable layers included.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.rules.thresholds
    }

    /// Learns what there is.
    pub fn look(&mut self, seen: &Observations, now: Mono) -> Look {
        let is_met = |nth: usize, t: &Threshold| {
            let reclaim = t.reclaim.filter(|_| self.met.contains(&nth));
            seen.get(&t.signal).is_some_and(|o| o.is_below(t.level, None) || o.is_below(t.level, reclaim))
        };
        let thresholds = self.rules.thresholds.iter().enumerate();
        let met: BTreeSet<usize> = thresholds.filter(|(nth, t)| is_met(*nth, t)).map(|(nth, _)| nth).collect();
        let since: BTreeMap<usize, Mono> =
            met.iter().map(|nth| (*nth, self.since.get(nth).copied().unwrap_or(now))).into_map();
        for nth in &met {
            let pressure = self.rules.thresholds[*nth].signal.pressure();
            for (kind, is_on) in
                [(Kind::Memory, pressure.memory), (Kind::Disk, pressure.disk), (Kind::Pids, pressure.pids)]
            {
                if is_on {
                    self.pressed.insert(kind, now);
                }
            }
        }
        let has_stood = |nth: &usize| now.since(since[nth]) >= self.rules.thresholds[*nth].grace;
        let stood: BTreeSet<usize> = met.iter().copied().filter(has_stood).collect();
        (self.met, self.since) = (stood, since);
        let mut met: Vec<Threshold> = self.met.iter().map(|nth| self.rules.thresholds[*nth]).collect();
        met.sort_by_key(|t| t.signal);
        Look { pressures: self.pressures(now), shortage: (!met.is_empty()).then_some(Shortage { met }) }
    }

    /// kubelet 1.36: a condition holds for a while after its cause.
    fn pressures(&self, now: Mono) -> Pressures {
        let is_on = |kind: Kind| self.pressed.get(&kind).is_some_and(|at| now.since(*at) < self.rules.transition);
        Pressures { memory: is_on(Kind::Memory), disk: is_on(Kind::Disk), pids: is_on(Kind::Pids) }
    }

    /// What of the node may relieve the shortage, in this order.
    pub fn reclaims(&self, shortage: &Shortage) -> &'static [Reclaim] {
        reclaims(self.layout, shortage.signal())
    }

    /// Whether there is enough of everything, with what must be reclaimed on top.
    pub fn is_relieved(&self, seen: &Observations) -> bool {
        let is_below = |t: &Threshold| seen.get(&t.signal).is_some_and(|o| o.is_below(t.level, t.reclaim));
        !self.rules.thresholds.iter().any(is_below)
    }

    /// Pods that go because they exceed a limit of their own.
    pub fn over_limits(&self, candidates: &[Candidate<'_>]) -> Vec<Eviction> {
        if !self.rules.local_storage {
            return Vec::new();
        }
        local::evictions(candidates, self.layout, self.rules.pod_level)
    }

    /// Whether pods' use of the disk is asked for to end the shortage.
    pub fn measures_disk(shortage: &Shortage) -> bool {
        matches!(shortage.resource(), Resource::EphemeralStorage | Resource::Inodes)
    }

    /// The pod that goes for the shortage. kubelet 1.36: one at a time; critical ones stay.
    pub fn choose(
        &self,
        shortage: &Shortage,
        candidates: &mut [Candidate<'_>],
        seen: &Observations,
    ) -> Option<Eviction> {
        rank(candidates, self.layout, shortage.signal(), self.rules.pod_level);
        let chosen = candidates.iter().find(|c| !is_critical(c.pod))?;
        let said = message::of(chosen, shortage.resource(), &shortage.met, seen, self.rules.pod_level);
        Some(Eviction {
            uid: chosen.uid.clone(),
            grace_secs: self.grace_secs(&shortage.met[0], chosen),
            message: said.message,
            trigger: Trigger::Node(shortage.signal()),
            annotations: said.annotations,
            is_disruption: true,
        })
    }

    fn grace_secs(&self, threshold: &Threshold, chosen: &Candidate<'_>) -> i64 {
        if threshold.is_hard() {
            return GRACE_SECS;
        }
        let own = chosen.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        let most = self.rules.grace_secs_max;
        match own {
            Some(own) if most < 0 => own,
            Some(own) => own.min(most),
            None => most,
        }
        .max(GRACE_SECS)
    }
}
