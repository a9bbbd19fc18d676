//! Devices and NUMA nodes: which nodes could serve a container, and which devices are near those it gets.

use std::collections::BTreeSet;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use super::{Devices, Reusable};
use crate::resources::numa::{Hint, Hints, Nodes};
use crate::resources::sum::Sum;

/// Devices by how near they are.
pub(super) struct Split {
    pub(super) aligned: Vec<String>,
    /// First those that are near other nodes, then those that are near none.
    pub(super) others: Vec<String>,
}

impl Devices {
    /// Which nodes could give a container what it wants.
    #[must_use]
    pub fn hints(
        &self,
        pod: &PodUid,
        container: &str,
        wanted: &[(String, usize)],
        reusable: &Reusable,
        machine: Nodes,
    ) -> Hints {
        let held = |resource: &str| -> BTreeSet<String> {
            let grant = self.of(pod, container).and_then(|grants| grants.get(resource));
            grant.map(|grant| grant.devices.keys().cloned().collect()).unwrap_or_default()
        };
        let hint = |(resource, count): &(String, usize)| {
            let reusable = reusable.get(resource).cloned().unwrap_or_default();
            (resource.clone(), self.hints_of((resource, *count), held(resource), reusable, machine))
        };
        wanted.iter().map(hint).into_map()
    }

    /// Which nodes could give a whole pod what its containers want at most at a time.
    #[must_use]
    pub fn pod_hints(&self, uid: &PodUid, pod: &v1::Pod, machine: Nodes) -> Hints {
        let limits = Sum::limits(false).without_overhead().of(pod).into_iter();
        let known = limits.filter(|(resource, _)| self.is_known(resource));
        let wanted = known.filter_map(|(resource, amount)| Some((resource, usize::try_from(amount.units()).ok()?)));
        let held = |resource: &str| -> BTreeSet<String> {
            let grants = self.held.get(uid).into_iter().flat_map(|of| of.values()).filter_map(|of| of.get(resource));
            grants.flat_map(|grant| grant.devices.keys().cloned()).collect()
        };
        let hint = |(resource, count): (String, usize)| {
            let hints = self.hints_of((&resource, count), held(&resource), BTreeSet::new(), machine);
            (resource, hints)
        };
        wanted.map(hint).into_map()
    }

    fn hints_of(
        &self,
        (resource, count): (&str, usize),
        held: BTreeSet<String>,
        reusable: BTreeSet<String>,
        machine: Nodes,
    ) -> Option<Vec<Hint>> {
        if !self.is_aligned(resource) {
            return None;
        }
        if !held.is_empty() {
            let is_whole = held.len() == count;
            return Some(if is_whole {
                self.of_masks(resource, count, &held, &BTreeSet::new(), machine)
            } else {
                Vec::new()
            });
        }
        let used: BTreeSet<&String> = self.in_use(resource).collect();
        let healthy = self.resources.get(resource).map(|known| &known.healthy);
        let available: BTreeSet<String> =
            healthy.into_iter().flatten().filter(|id| !used.contains(id)).cloned().collect();
        let is_enough = available.union(&reusable).count() >= count;
        Some(if is_enough { self.of_masks(resource, count, &available, &reusable, machine) } else { Vec::new() })
    }

    /// kubelet 1.36: preferred are as few nodes as the resource could be served from if all its devices were free.
    fn of_masks(
        &self,
        resource: &str,
        count: usize,
        available: &BTreeSet<String>,
        reusable: &BTreeSet<String>,
        machine: Nodes,
    ) -> Vec<Hint> {
        let told = self.told.get(resource);
        let all = || told.into_iter().flat_map(|told| told.keys());
        let own = all().fold(Nodes::default(), |nodes, id| nodes.or(self.nodes_of(resource, id))).and(machine);
        let own = if own.is_empty() { machine } else { own };
        let is_in = |id: &String, nodes: Nodes| !self.nodes_of(resource, id).and(nodes).is_empty();
        let (mut least, mut fitting) = (own.count(), Vec::new());
        for nodes in own.choices() {
            if nodes.count() < least && all().filter(|id| is_in(id, nodes)).count() >= count {
                least = nodes.count();
            }
            // What an init container had is taken first: it has to be there.
            let mut placed = reusable.iter().filter(|id| !self.nodes_of(resource, id).is_empty());
            if placed.clone().any(|id| !is_in(id, nodes)) {
                continue;
            }
            let matching = placed.by_ref().count() + available.iter().filter(|id| is_in(id, nodes)).count();
            if matching >= count {
                fitting.push(nodes);
            }
        }
        fitting.into_iter().map(|nodes| Hint { nodes: Some(nodes), is_preferred: nodes.count() == least }).collect()
    }

    /// Whether any device of the resource is near some node.
    fn is_aligned(&self, resource: &str) -> bool {
        self.told.get(resource).is_some_and(|told| told.keys().any(|id| !self.nodes_of(resource, id).is_empty()))
    }

    fn nodes_of(&self, resource: &str, id: &str) -> Nodes {
        let topology = self.told.get(resource).and_then(|told| told.get(id)?.topology.as_ref());
        Nodes::of(topology.into_iter().flat_map(|t| &t.nodes).filter_map(|node| usize::try_from(node.id).ok()))
    }

    /// Free devices, those near these nodes apart. Where nobody says which nodes, or the resource has none, none is.
    pub(super) fn split(&self, resource: &str, free: Vec<String>, near: Option<Nodes>) -> Split {
        let Some(near) = near.filter(|_| self.is_aligned(resource)) else {
            return Split { aligned: Vec::new(), others: free };
        };
        let (aligned, others): (Vec<String>, Vec<String>) =
            free.into_iter().partition(|id| !self.nodes_of(resource, id).and(near).is_empty());
        let (elsewhere, nowhere): (Vec<String>, Vec<String>) =
            others.into_iter().partition(|id| !self.nodes_of(resource, id).is_empty());
        Split { aligned, others: elsewhere.into_iter().chain(nowhere).collect() }
    }
}
