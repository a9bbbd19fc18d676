//! Which NUMA nodes could give a container its CPUs.

use std::collections::BTreeMap;

use rubelet_api::v1;

use super::topology::Level;
use super::{CpuSet, RESOURCE, Static, wanted};
use crate::render::{containers, uid_of};
use crate::resources::numa::{Hint, Hints, Nodes};

#[cfg(test)]
mod tests;

impl Static {
    /// For one container. kubelet 1.36: nothing if it wants none; no hint if it has another number of CPUs than it wants.
    #[must_use]
    pub fn hints(&self, pod: &v1::Pod, container: &v1::Container) -> Hints {
        let count = wanted::by_container(pod, container);
        if count == 0 || wanted::is_exempt(pod) {
            return Hints::new();
        }
        let uid = uid_of(pod);
        of_cpu(match self.exclusive_of(&uid, &container.name) {
            Some(has) if has.len() != count => Vec::new(),
            Some(has) => self.choices(has, &CpuSet::new(), count),
            None => self.choices(&self.available(), &self.reusable(&uid), count),
        })
    }

    /// For all containers of a pod together.
    #[must_use]
    pub fn pod_hints(&self, pod: &v1::Pod) -> Hints {
        let count = wanted::by_pod(pod);
        if count == 0 || wanted::is_exempt(pod) {
            return Hints::new();
        }
        let uid = uid_of(pod);
        let mut have = CpuSet::new();
        for container in containers(pod) {
            if let Some(has) = self.exclusive_of(&uid, &container.name) {
                if has.len() != wanted::by_container(pod, container) {
                    return of_cpu(Vec::new());
                }
                have = have.union(has);
            }
        }
        of_cpu(if have.len() == count {
            self.choices(&have, &CpuSet::new(), count)
        } else {
            self.choices(&self.available(), &self.reusable(&uid).union(&have), count)
        })
    }

    /// Nodes that have so many of the available CPUs and of those that are to be used again, all of which must be among them.
    ///
    /// kubelet 1.36: preferred are as few nodes as could give so many if all their CPUs were free; with `align-by-socket` those in as
    /// few sockets as such nodes need.
    fn choices(&self, available: &CpuSet, again: &CpuSet, count: usize) -> Vec<Hint> {
        let all = self.topology.count_by_node(self.topology.cpus());
        let (available, must) = (self.topology.count_by_node(available), self.topology.count_by_node(again));
        let nodes = Nodes::of(all.keys().copied());
        let mut fewest = all.len();
        let mut fitting = Vec::new();
        for choice in nodes.choices() {
            if choice.count() < fewest && within(choice, &all) >= count {
                fewest = choice.count();
            }
            let has = within(choice, &must);
            if has == again.len() && has + within(choice, &available) >= count {
                fitting.push(choice);
            }
        }
        let is_preferred =
            |nodes: Nodes| nodes.count() == fewest || self.options.by_socket && self.is_socket_aligned(nodes, fewest);
        fitting.into_iter().map(|nodes| Hint { nodes: Some(nodes), is_preferred: is_preferred(nodes) }).collect()
    }

    fn is_socket_aligned(&self, nodes: Nodes, fewest: usize) -> bool {
        let per_socket = self.topology.count(Level::Node).checked_div(self.topology.count(Level::Socket)).unwrap_or(0);
        per_socket > 0 && self.topology.sockets_of(nodes).len() == fewest.div_ceil(per_socket)
    }
}

fn within(nodes: Nodes, counts: &BTreeMap<usize, usize>) -> usize {
    counts.iter().filter(|(node, _)| nodes.has(**node)).map(|(_, count)| count).sum()
}

fn of_cpu(hints: Vec<Hint>) -> Hints {
    Hints::from([(RESOURCE.to_owned(), Some(hints))])
}
