//! Where each CPU is: in which core, socket, NUMA node, and at which cache.

use std::collections::BTreeMap;

use super::CpuSet;
use crate::resources::numa::Nodes;

/// Where a CPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    pub cpu: usize,
    /// kubelet 1.36: the lowest CPU of the core.
    pub core: usize,
    pub socket: usize,
    /// The NUMA node.
    pub node: usize,
    /// The cache that it shares with some of its node's cores. kubelet 1.36: `id` of the core's first cache of level 3 or above that is
    /// not shared by just as many CPUs as the node's cores have; the socket's number where there is none.
    pub uncore: usize,
}

/// A kind of group of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    Core,
    Socket,
    Node,
    Uncore,
}

impl Place {
    /// Which group it is in.
    #[must_use]
    pub fn group(&self, level: Level) -> usize {
        match level {
            Level::Core => self.core,
            Level::Socket => self.socket,
            Level::Node => self.node,
            Level::Uncore => self.uncore,
        }
    }
}

/// The machine's CPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// By CPU, from below.
    places: Vec<Place>,
    cpus: CpuSet,
    cores: usize,
    sockets: usize,
    nodes: usize,
    uncores: usize,
}

impl Topology {
    /// Of CPUs in any order.
    #[must_use]
    pub fn of(mut places: Vec<Place>) -> Self {
        places.sort_unstable_by_key(|place| place.cpu);
        places.dedup_by_key(|place| place.cpu);
        let cpus = places.iter().map(|place| place.cpu).collect();
        let mut topology = Self { places, cpus, ..Self::default() };
        let count = |level| topology.groups(level, topology.cpus()).len();
        (topology.cores, topology.sockets, topology.nodes, topology.uncores) =
            (count(Level::Core), count(Level::Socket), count(Level::Node), count(Level::Uncore));
        topology
    }

    /// All CPUs.
    #[must_use]
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }

    /// Where a CPU is.
    #[must_use]
    pub fn place(&self, cpu: usize) -> Option<&Place> {
        let at = self.places.binary_search_by_key(&cpu, |place| place.cpu).ok()?;
        self.places.get(at)
    }

    /// How many groups there are.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        match level {
            Level::Core => self.cores,
            Level::Socket => self.sockets,
            Level::Node => self.nodes,
            Level::Uncore => self.uncores,
        }
    }

    /// How many CPUs are in a group. kubelet 1.36: the mean, rounded down.
    #[must_use]
    pub fn cpus_per(&self, level: Level) -> usize {
        self.places.len().checked_div(self.count(level)).unwrap_or(0)
    }

    /// The groups that CPUs of a set are in, from below.
    #[must_use]
    pub fn groups(&self, level: Level, of: &CpuSet) -> Vec<usize> {
        let mut groups: Vec<usize> =
            self.places.iter().filter(|place| of.has(place.cpu)).map(|place| place.group(level)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// CPUs of a set that are in one group.
    #[must_use]
    pub fn within(&self, level: Level, group: usize, of: &CpuSet) -> CpuSet {
        self.places.iter().filter(|p| p.group(level) == group && of.has(p.cpu)).map(|place| place.cpu).collect()
    }

    /// All CPUs of one group.
    #[must_use]
    pub fn all_in(&self, level: Level, group: usize) -> CpuSet {
        self.within(level, group, &self.cpus)
    }

    /// How many CPUs of a set each NUMA node has; those that have none are not named.
    #[must_use]
    pub fn count_by_node(&self, of: &CpuSet) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for place in self.places.iter().filter(|place| of.has(place.cpu)) {
            *counts.entry(place.node).or_insert(0) += 1;
        }
        counts
    }

    /// The sockets that CPUs of some nodes are in, from below.
    #[must_use]
    pub fn sockets_of(&self, nodes: Nodes) -> Vec<usize> {
        let cpus = self.places.iter().filter(|place| nodes.has(place.node)).map(|place| place.cpu).collect();
        self.groups(Level::Socket, &cpus)
    }

    /// Whether CPUs share one cache. kubelet 1.36: one CPU and none do.
    #[must_use]
    pub fn is_uncore_aligned(&self, cpus: &CpuSet) -> bool {
        cpus.len() <= 1 || cpus.is_subset(&self.cpus) && self.groups(Level::Uncore, cpus).len() == 1
    }
}
