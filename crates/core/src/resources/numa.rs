//! NUMA nodes, and which of them a container's resources should come from. kubelet 1.36: "topology manager".
//!
//! Whoever gives out resources of nodes says with hints which nodes could serve a container. A policy makes one of them all.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

pub(crate) mod settings;
#[cfg(test)]
mod tests;

/// Some NUMA nodes, by their numbers (below 64). In order: those that come first with fewer and lower numbers are narrower.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Nodes(u64);

impl Nodes {
    /// kubelet 1.36: higher numbers cannot be named.
    pub const NUMBERS: usize = 64;

    /// Of these numbers; those that cannot be named are left out.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        Self(numbers.into_iter().filter(|&n| n < Self::NUMBERS).fold(0, |bits, n| bits | 1 << n))
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn has(self, number: usize) -> bool {
        number < Self::NUMBERS && self.0 & (1 << number) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Their numbers, from below.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..Self::NUMBERS).filter(move |&n| self.has(n))
    }

    /// Every choice of at least one of them, smaller choices first, then by their numbers. kubelet 1.36: the order in which hints are
    /// made.
    #[must_use]
    pub fn choices(self) -> Vec<Self> {
        let numbers: Vec<usize> = self.numbers().collect();
        let mut all = Vec::new();
        for count in 1..=numbers.len() {
            each_combination(&numbers, count, &mut Vec::new(), &mut |chosen| {
                all.push(Self::of(chosen.iter().copied()));
                true
            });
        }
        all
    }
}

impl Ord for Nodes {
    /// The narrower one first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.count().cmp(&other.count()).then(self.0.cmp(&other.0))
    }
}

impl PartialOrd for Nodes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Visits all ways to take so many, in their order, while it is wanted; whether it still is.
///
/// kubelet 1.36, where it distributes CPUs, keeps a choice of four and more in memory that its later ones are written to, and so takes
/// another than it has chosen; we take the one that was chosen.
pub(crate) fn each_combination(
    of: &[usize],
    many: usize,
    chosen: &mut Vec<usize>,
    visit: &mut dyn FnMut(&[usize]) -> bool,
) -> bool {
    if many == 0 {
        return visit(chosen);
    }
    for (at, &one) in of.iter().enumerate() {
        if of.len() - at < many {
            break;
        }
        chosen.push(one);
        let goes_on = each_combination(&of[at + 1..], many - 1, chosen, visit);
        chosen.pop();
        if !goes_on {
            return false;
        }
    }
    true
}

/// kubelet 1.36: as bits, in its widths.
impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shift = (1..32).rev().map(|half| half * 2).find(|&shift| self.0 > 1 << shift).unwrap_or(0);
        let digits = shift + 2;
        write!(f, "{:0digits$b}", self.0)
    }
}

/// Nodes that could serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// `None`: any.
    pub nodes: Option<Nodes>,
    /// Whether no fewer nodes could serve if they were free.
    pub is_preferred: bool,
}

/// What one giver says of one container (or pod), by resource. `None`: any nodes do; no hint at all: none can serve.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// What becomes of hints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Nobody is asked.
    #[default]
    None,
    /// The best nodes are taken, whatever they are.
    BestEffort,
    /// Without preferred nodes a pod is refused.
    Restricted,
    /// Without a single preferred node a pod is refused.
    SingleNumaNode,
}

/// What resources are aligned for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    #[default]
    Container,
    /// All containers of a pod have the same nodes.
    Pod,
}

/// kubelet 1.36: more nodes than that are refused, unless the option says so.
pub const NODES_MAX: usize = 8;

/// The machine's nodes, and how far they are from each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// By number: distances to nodes 0, 1, …, as the kernel tells them.
    pub distances: BTreeMap<usize, Vec<u64>>,
}

impl Machine {
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        Nodes::of(self.distances.keys().copied())
    }

    /// How far nodes are from each other, in the mean, themselves among them.
    fn distance(&self, nodes: Nodes) -> f64 {
        let distance = |a: usize, b: usize| self.distances.get(&a).and_then(|of| of.get(b)).copied().unwrap_or(0);
        let pairs = nodes.numbers().flat_map(|a| nodes.numbers().map(move |b| (a, b)));
        let (sum, count) = pairs.fold((0, 0_u64), |(sum, count), (a, b)| (sum + distance(a, b), count + 1));
        if count == 0 { 0.0 } else { sum as f64 / count as f64 }
    }

    fn closer(&self, one: Nodes, other: Nodes) -> Nodes {
        let is_one = match self.distance(one).total_cmp(&self.distance(other)) {
            Ordering::Less | Ordering::Greater if one.count() != other.count() => one < other,
            Ordering::Equal => one < other,
            order => order.is_lt(),
        };
        if is_one { one } else { other }
    }
}

/// Makes one hint of many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merging {
    pub policy: Policy,
    pub scope: Scope,
    /// Of as many nodes, those nearer to each other.
    pub prefers_closest: bool,
    pub machine: Machine,
}

impl Merging {
    /// The best hint, and whether the policy lets a pod in with it.
    #[must_use]
    pub fn merge(&self, givers: &[Hints]) -> (Hint, bool) {
        let mut all = flat(givers);
        let is_single = self.policy == Policy::SingleNumaNode;
        if is_single {
            let is_fit = |hint: &Hint| hint.is_preferred && hint.nodes.is_none_or(|nodes| nodes.count() == 1);
            all.iter_mut().for_each(|hints| hints.retain(is_fit));
        }
        let everything = self.machine.nodes();
        let mut best = self.best(&all);
        if is_single && best.nodes == Some(everything) {
            best.nodes = None;
        }
        let is_in = match self.policy {
            Policy::None | Policy::BestEffort => true,
            Policy::Restricted | Policy::SingleNumaNode => best.is_preferred,
        };
        (best, is_in)
    }

    fn best(&self, all: &[Vec<Hint>]) -> Hint {
        let everything = self.machine.nodes();
        // Of hints that are not preferred: how many nodes they should have, because some resource needs so many.
        let needed = all.iter().filter_map(|hints| narrowest(hints)).map(Nodes::count).max().unwrap_or(0);
        let mut best: Option<(Nodes, bool)> = None;
        let mut visit = |chosen: &[Hint]| {
            let named: Vec<Nodes> = chosen.iter().filter_map(|hint| hint.nodes).collect();
            let is_preferred = chosen.iter().all(|hint| hint.is_preferred) && named.iter().all(|n| *n == named[0]);
            let nodes = named.iter().fold(everything, |all, nodes| all.and(*nodes));
            if !nodes.is_empty() {
                best = Some(match best {
                    None => (nodes, is_preferred),
                    Some(current) => self.better(current, (nodes, is_preferred), needed),
                });
            }
        };
        each_choice(all, &mut Vec::new(), &mut visit);
        let (nodes, is_preferred) = best.unwrap_or((everything, false));
        Hint { nodes: Some(nodes), is_preferred }
    }

    fn better(&self, current: (Nodes, bool), other: (Nodes, bool), needed: usize) -> (Nodes, bool) {
        let takes_other = match (current.1, other.1) {
            (false, true) => true,
            (true, false) => false,
            (true, true) => self.fits_better(current.0, other.0),
            // As near as may be to what is needed, rather from below.
            (false, false) => {
                let (now, then) = (current.0.count(), other.0.count());
                match (now.cmp(&needed), then.cmp(&needed)) {
                    (Ordering::Greater, _) | (Ordering::Equal, Ordering::Equal) => self.fits_better(current.0, other.0),
                    (Ordering::Equal, _) | (Ordering::Less, Ordering::Greater) => false,
                    (Ordering::Less, Ordering::Equal) => true,
                    (Ordering::Less, Ordering::Less) if now == then => self.fits_better(current.0, other.0),
                    (Ordering::Less, Ordering::Less) => then > now,
                }
            }
        };
        if takes_other { other } else { current }
    }

    /// Whether the other one is narrower, or closer where that counts.
    fn fits_better(&self, current: Nodes, other: Nodes) -> bool {
        if other == current {
            return false;
        }
        if self.prefers_closest && self.policy != Policy::SingleNumaNode {
            self.machine.closer(current, other) == other
        } else {
            other < current
        }
    }
}

/// All hints, each resource's for itself.
fn flat(givers: &[Hints]) -> Vec<Vec<Hint>> {
    let any = |is_preferred| vec![Hint { nodes: None, is_preferred }];
    let mut all = Vec::new();
    for giver in givers {
        if giver.is_empty() {
            all.push(any(true));
        }
        all.extend(giver.values().map(|hints| match hints {
            None => any(true),
            Some(hints) if hints.is_empty() => any(false),
            Some(hints) => hints.clone(),
        }));
    }
    all
}

fn narrowest(hints: &[Hint]) -> Option<Nodes> {
    hints.iter().filter_map(|hint| hint.nodes).min()
}

fn each_choice(all: &[Vec<Hint>], chosen: &mut Vec<Hint>, visit: &mut impl FnMut(&[Hint])) {
    let Some((first, rest)) = all.split_first() else { return visit(chosen) };
    for hint in first {
        chosen.push(*hint);
        each_choice(rest, chosen, visit);
        chosen.pop();
    }
}
