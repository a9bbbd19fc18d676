//! Which CPUs of those that are free are taken: whole sockets, nodes and cores first.

use std::fmt;

use super::CpuSet;
use super::topology::{Level, Topology};

mod distributed;

#[cfg(test)]
mod tests;

pub use distributed::take_distributed;

/// In which order single CPUs are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// A core's CPUs one after the other.
    #[default]
    Packed,
    /// As they are numbered, and no core as a whole. kubelet 1.36: the option `distribute-cpus-across-cores`.
    Spread,
}

/// Why CPUs could not be taken. kubelet 1.36: the words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeError {
    TooFew {
        requested: usize,
        available: usize,
    },
    Failed,
    /// Nodes that were to give CPUs did not.
    Missing {
        remaining: usize,
    },
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { requested, available } => {
                write!(f, "not enough cpus available to satisfy request: requested={requested}, available={available}")
            }
            Self::Failed => f.write_str("failed to allocate cpus"),
            Self::Missing { remaining } => {
                write!(f, "accounting error, not enough CPUs allocated, remaining: {remaining}")
            }
        }
    }
}

/// What has been taken so far, and what is left.
struct Taking<'a> {
    topology: &'a Topology,
    order: Order,
    free: CpuSet,
    taken: CpuSet,
    needed: usize,
}

/// Takes CPUs from as few sockets, nodes and cores as may be.
///
/// kubelet 1.36: whole nodes and sockets, the greater of both first; with the option `prefer-align-cpus-by-uncorecache` whole caches,
/// then what fits into one; whole cores; single CPUs. Of groups that could serve, the one with the fewest free CPUs.
///
/// # Errors
/// There are too few.
pub fn take_packed(
    topology: &Topology,
    available: &CpuSet,
    count: usize,
    order: Order,
    prefers_uncore: bool,
) -> Result<CpuSet, TakeError> {
    let mut taking = Taking::of(topology, available, count, order)?;
    let (first, second) =
        if taking.has_nodes_above_sockets() { (Level::Node, Level::Socket) } else { (Level::Socket, Level::Node) };
    taking.take_full(first);
    taking.take_full(second);
    if prefers_uncore {
        taking.take_uncores();
    }
    if order == Order::Packed {
        taking.take_full(Level::Core);
    }
    taking.take_singles();
    if taking.needed == 0 { Ok(taking.taken) } else { Err(TakeError::Failed) }
}

impl<'a> Taking<'a> {
    fn of(topology: &'a Topology, available: &CpuSet, count: usize, order: Order) -> Result<Self, TakeError> {
        let free = available.intersection(topology.cpus());
        if count > free.len() {
            return Err(TakeError::TooFew { requested: count, available: available.len() });
        }
        Ok(Self { topology, order, free, taken: CpuSet::new(), needed: count })
    }

    /// kubelet 1.36: where there are no fewer sockets than nodes.
    fn has_nodes_above_sockets(&self) -> bool {
        self.topology.count(Level::Socket) >= self.topology.count(Level::Node)
    }

    fn free_in(&self, level: Level, group: usize) -> CpuSet {
        self.topology.within(level, group, &self.free)
    }

    /// Groups that free CPUs of the set are in, those with the fewest free CPUs first, then by number.
    fn sorted(&self, level: Level, among: &CpuSet) -> Vec<usize> {
        let mut groups = self.topology.groups(level, among);
        groups.sort_by_cached_key(|&group| (self.free_in(level, group).len(), group));
        groups
    }

    /// A group that is in several of the outer ones comes once.
    fn sorted_within(&self, outer: Level, groups: &[usize], level: Level) -> Vec<usize> {
        let mut all = Vec::new();
        for &group in groups {
            for one in self.sorted(level, &self.free_in(outer, group)) {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }

    fn sorted_nodes(&self) -> Vec<usize> {
        if self.has_nodes_above_sockets() {
            self.sorted(Level::Node, &self.free)
        } else {
            self.sorted_within(Level::Socket, &self.sorted_sockets(), Level::Node)
        }
    }

    fn sorted_sockets(&self) -> Vec<usize> {
        if self.has_nodes_above_sockets() {
            self.sorted_within(Level::Node, &self.sorted_nodes(), Level::Socket)
        } else {
            self.sorted(Level::Socket, &self.free)
        }
    }

    fn sorted_cores(&self) -> Vec<usize> {
        if self.has_nodes_above_sockets() {
            self.sorted_within(Level::Socket, &self.sorted_sockets(), Level::Core)
        } else {
            self.sorted_within(Level::Node, &self.sorted_nodes(), Level::Core)
        }
    }

    fn groups(&self, level: Level) -> Vec<usize> {
        match level {
            Level::Node => self.sorted_nodes(),
            Level::Socket => self.sorted_sockets(),
            Level::Core => self.sorted_cores(),
            Level::Uncore => self.sorted_within(Level::Node, &self.sorted_nodes(), Level::Uncore),
        }
    }

    fn sorted_cpus(&self) -> Vec<usize> {
        let (level, groups) = match self.order {
            Order::Packed => (Level::Core, self.sorted_cores()),
            Order::Spread => (Level::Socket, self.sorted_sockets()),
        };
        groups.iter().flat_map(|&group| self.free_in(level, group).numbers().collect::<Vec<_>>()).collect()
    }

    /// Whether all of a group's CPUs are free. kubelet 1.36: of sockets and cores also, whether they are as many as in the mean.
    fn is_free(&self, level: Level, group: usize) -> bool {
        let free = self.free_in(level, group).len();
        let is_usual = match level {
            Level::Node | Level::Uncore => true,
            Level::Socket | Level::Core => free == self.topology.cpus_per(level),
        };
        is_usual && free == self.topology.all_in(level, group).len()
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.union(cpus);
        self.free = self.free.difference(cpus);
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    /// Whole groups that are no more than needed.
    fn take_full(&mut self, level: Level) {
        if self.needed == 0 {
            return;
        }
        let mut free = self.groups(level);
        free.retain(|&group| self.is_free(level, group));
        for group in free {
            let cpus = self.topology.all_in(level, group);
            if self.needed >= cpus.len() {
                self.take(&cpus);
            }
        }
    }

    fn take_uncores(&mut self) {
        if self.needed == 0 {
            return;
        }
        for uncore in self.groups(Level::Uncore) {
            if self.needed >= self.topology.cpus_per(Level::Uncore) {
                self.take_full(Level::Uncore);
            }
            if self.needed > 0 {
                self.take_part_of_uncore(uncore);
            }
            if self.needed == 0 {
                return;
            }
        }
    }

    /// What is still needed, if one cache has it. kubelet 1.36: the first cores of the cache that have a free CPU; of an odd number of
    /// CPUs the last core gives one.
    fn take_part_of_uncore(&mut self, uncore: usize) {
        let per_core = self.topology.cpus_per(Level::Core).max(1);
        let cores = self.needed.div_ceil(per_core);
        let mut cpus = CpuSet::new();
        for core in self.topology.groups(Level::Core, &self.free_in(Level::Uncore, uncore)).into_iter().take(cores) {
            cpus = cpus.union(&self.free_in(Level::Core, core));
        }
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            let but_last = cpus.len() - 1;
            cpus = cpus.numbers().take(but_last).collect();
        }
        if cpus.len() == self.needed {
            self.take(&cpus);
        }
    }

    fn take_singles(&mut self) {
        let mut cpus = self.sorted_cpus();
        cpus.truncate(self.needed);
        self.take(&cpus.into_iter().collect());
    }
}
