//! CPUs evenly of several NUMA nodes. kubelet 1.36: the option `distribute-cpus-across-numa`.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;

use super::{Order, TakeError, Taking, take_packed};
use crate::resources::cpus::CpuSet;
use crate::resources::cpus::topology::{Level, Topology};
use crate::resources::numa::each_combination;

/// How many free CPUs each node has.
type Left = BTreeMap<usize, usize>;

/// How CPUs are shared out among nodes.
#[derive(Clone, PartialEq, Debug)]
struct Share {
    nodes: Vec<usize>,
    /// Those that give what does not divide.
    rest: Vec<usize>,
    /// How unevenly nodes have free CPUs afterwards.
    imbalance: f64,
}

/// Takes CPUs evenly of as few nodes as can give them evenly, in groups of so many.
///
/// kubelet 1.36: of choices of as many nodes, the one that leaves the machine the most even; packed where none can, and where the
/// count is none of whole groups. Caches do not matter.
///
/// # Errors
/// There are too few.
pub fn take_distributed(
    topology: &Topology,
    available: &CpuSet,
    count: usize,
    group: usize,
    order: Order,
) -> Result<CpuSet, TakeError> {
    let group = group.max(1);
    if !count.is_multiple_of(group) {
        return take_packed(topology, available, count, order, false);
    }
    let mut taking = Taking::of(topology, available, count, order)?;
    if count == 0 {
        return Ok(taking.taken);
    }
    let nodes = taking.sorted_nodes();
    let left: Left = nodes.iter().map(|&node| (node, taking.free_in(Level::Node, node).len())).into_map();
    let groups = count / group;
    let groups_per_node =
        topology.cpus().len().div_ceil(group).div_ceil(topology.groups(Level::Node, topology.cpus()).len());
    let fewest = groups.div_ceil(groups_per_node);
    for many in fewest..=groups.min(nodes.len()) {
        if let Some(share) = best_share(&nodes, many, count, group, &left) {
            taking.take_share(&share, count, group);
            return match taking.needed {
                0 => Ok(taking.taken),
                remaining => Err(TakeError::Missing { remaining }),
            };
        }
    }
    take_packed(topology, available, count, order, false)
}

/// How many CPUs each of so many nodes gives at least.
fn even(count: usize, nodes: usize, group: usize) -> usize {
    count / nodes / group * group
}

fn best_share(nodes: &[usize], many: usize, count: usize, group: usize, left: &Left) -> Option<Share> {
    let mut best: Option<Share> = None;
    each_combination(nodes, many, &mut Vec::new(), &mut |chosen| {
        if let Some(share) = share(chosen, count, group, left)
            && best.as_ref().is_none_or(|best| share.imbalance < best.imbalance)
        {
            best = Some(share);
        }
        // More even than even cannot be.
        best.as_ref().is_none_or(|best| best.imbalance > 0.0)
    });
    best
}

/// How these nodes would share; `None`: they cannot.
fn share(nodes: &[usize], count: usize, group: usize, left: &Left) -> Option<Share> {
    let whole: usize = nodes.iter().map(|node| left[node] / group * group).sum();
    let each = even(count, nodes.len(), group);
    if whole < count || nodes.iter().any(|node| left[node] < each) {
        return None;
    }
    let mut after = left.clone();
    for node in nodes {
        *after.entry(*node).or_default() -= each;
    }
    let rest = count - each * nodes.len();
    if rest == 0 {
        return Some(Share { nodes: nodes.to_vec(), rest: Vec::new(), imbalance: deviation(&after) });
    }
    let givers: Vec<usize> = nodes.iter().copied().filter(|node| after[node] >= group).collect();
    let mut best: Option<Share> = None;
    for many in (1..=givers.len()).rev() {
        each_combination(&givers, many, &mut Vec::new(), &mut |chosen| {
            if let Some(imbalance) = imbalance_after(after.clone(), chosen, rest, group)
                && best.as_ref().is_none_or(|best| imbalance < best.imbalance)
            {
                best = Some(Share { nodes: nodes.to_vec(), rest: chosen.to_vec(), imbalance });
            }
            true
        });
    }
    best
}

/// How unevenly nodes have free CPUs once some of them have given the rest, a group each in turn; `None`: they cannot.
fn imbalance_after(mut left: Left, givers: &[usize], mut rest: usize, group: usize) -> Option<f64> {
    while rest > 0 {
        let before = rest;
        for node in givers {
            let of = left.get_mut(node)?;
            if rest > 0 && *of >= group {
                *of -= group;
                rest -= group;
            }
        }
        if rest == before {
            return None;
        }
    }
    Some(deviation(&left))
}

/// The standard deviation. kubelet 1.36: with three places, as is the mean that it is of.
fn deviation(left: &Left) -> f64 {
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    let count = left.len() as f64;
    let mean = rounded(left.values().sum::<usize>() as f64 / count);
    let squares: f64 = left.values().map(|&of| (of as f64 - mean) * (of as f64 - mean)).sum();
    rounded((squares / count).sqrt())
}

impl Taking<'_> {
    fn take_share(&mut self, share: &Share, count: usize, group: usize) {
        let each = even(count, share.nodes.len(), group);
        for &node in &share.nodes {
            self.take_of(node, each);
        }
        let mut rest = count - each * share.nodes.len();
        while rest > 0 {
            let before = rest;
            for &node in &share.rest {
                if rest > 0 && self.free_in(Level::Node, node).len() >= group {
                    self.take_of(node, group);
                    rest -= group;
                }
            }
            if rest == before {
                return;
            }
        }
    }

    fn take_of(&mut self, node: usize, count: usize) {
        if let Ok(cpus) = take_packed(self.topology, &self.free_in(Level::Node, node), count, self.order, false) {
            self.take(&cpus);
        }
    }
}
