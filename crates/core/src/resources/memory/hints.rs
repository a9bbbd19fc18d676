//! Which nodes can serve, and which do.

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use super::super::numa::{Hint, Hints, Nodes};
use super::super::qos::{QosClass, qos_class};
use super::super::sum::has_pod_level;
use super::wanted::{self, Wanted};
use super::{Block, State, Static};
use crate::render::uid_of;

impl Static {
    /// Which nodes could serve a container. None at all: any do, or it is said later why none does (kubelet 1.36).
    #[must_use]
    pub fn hints(&self, pod: &v1::Pod, container: &v1::Container) -> Hints {
        if qos_class(pod) != QosClass::Guaranteed || has_pod_level(pod) {
            return Hints::new();
        }
        let Ok(wanted) = wanted::by_container(container) else { return Hints::new() };
        let uid = uid_of(pod);
        match self.of(&uid, &container.name) {
            Some(blocks) => again(blocks, &wanted),
            None => self.spread(&uid, &wanted),
        }
    }

    /// Which nodes could serve all containers of a pod. kubelet 1.36: of containers that have theirs already, the first counts alone.
    #[must_use]
    pub fn pod_hints(&self, pod: &v1::Pod) -> Hints {
        if qos_class(pod) != QosClass::Guaranteed || has_pod_level(pod) {
            return Hints::new();
        }
        let Ok(wanted) = wanted::by_pod(pod) else { return Hints::new() };
        if wanted.is_empty() {
            return Hints::new();
        }
        let uid = uid_of(pod);
        let containers = super::init_containers(pod).chain(pod.spec.iter().flat_map(|spec| &spec.containers));
        match containers.filter_map(|container| self.of(&uid, &container.name)).next() {
            Some(blocks) => again(blocks, &wanted),
            None => self.spread(&uid, &wanted),
        }
    }

    /// The same hints for each resource; kubelet 1.36: no resource where there is no hint.
    fn spread(&self, pod: &PodUid, wanted: &Wanted) -> Hints {
        let choices = self.choices(pod, wanted);
        let names = wanted.keys().filter(|_| !choices.is_empty());
        names.map(|name| (name.clone(), Some(choices.clone()))).into_map()
    }

    /// Nodes that have what is wanted, the fewest first.
    fn choices(&self, pod: &PodUid, wanted: &Wanted) -> Vec<Hint> {
        let state = &self.state;
        let all = Nodes::of(state.nodes.keys().copied());
        let (mut least, mut choices) = (all.count(), Vec::new());
        for nodes in all.choices() {
            let has = |name: &str| sum(nodes, |number| state.table(number, name).allocatable);
            if wanted.iter().any(|(name, bytes)| has(name) < *bytes) {
                continue;
            }
            least = least.min(nodes.count());
            let free = |name: &str| {
                sum(nodes, |number| state.table(number, name).free)
                    .saturating_add(self.reusable.bytes(pod, nodes, name))
            };
            if !is_taken_otherwise(state, nodes) && wanted.iter().all(|(name, bytes)| free(name) >= *bytes) {
                choices.push(nodes);
            }
        }
        let hint = |nodes: Nodes| Hint { nodes: Some(nodes), is_preferred: nodes.count() == least };
        choices.into_iter().map(hint).collect()
    }

    /// The nodes that a container's memory comes from.
    pub(super) fn nodes_for(&self, pod: &PodUid, wanted: &Wanted, affinity: Hint) -> Result<Nodes, String> {
        let (nodes, is_preferred) = match affinity.nodes {
            Some(nodes) => (nodes, affinity.is_preferred),
            None => {
                let words = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
                let best = best(&self.choices(pod, wanted)).ok_or(words)?;
                if affinity.is_preferred && !best.1 {
                    return Err("[memorymanager] failed to find the default preferred hint".to_owned());
                }
                best
            }
        };
        let nodes = self.extended(pod, wanted, nodes, is_preferred)?;
        if nodes.count() > 1 && is_taken(&self.state, nodes) {
            return Err("[memorymanager] preferred hint violates NUMA node allocation".to_owned());
        }
        Ok(nodes)
    }

    /// Nodes that have what is wanted, these among them. kubelet 1.36: hints that are made one may leave fewer nodes than are needed.
    fn extended(&self, pod: &PodUid, wanted: &Wanted, nodes: Nodes, is_preferred: bool) -> Result<Nodes, String> {
        let free = |name: &str| sum(nodes, |number| self.state.table(number, name).free);
        if wanted.iter().all(|(name, bytes)| free(name) >= *bytes) {
            return Ok(nodes);
        }
        let mut choices = self.choices(pod, wanted);
        choices.retain(|hint| hint.nodes.is_some_and(|wider| wider.and(nodes) == nodes));
        let words = "[memorymanager] failed to find NUMA nodes to extend the current topology hint";
        let (wider, is_best) = best(&choices).ok_or(words)?;
        if is_preferred && !is_best {
            return Err("[memorymanager] failed to find the extended preferred hint".to_owned());
        }
        Ok(wider)
    }
}

fn sum(nodes: Nodes, of: impl Fn(usize) -> u64) -> u64 {
    nodes.numbers().map(of).fold(0, u64::saturating_add)
}

/// Whether one of several nodes serves alone, or with others.
fn is_taken(state: &State, nodes: Nodes) -> bool {
    let there = nodes.numbers().filter_map(|number| state.nodes.get(&number));
    there.filter(|node| node.assignments != 0).any(|node| node.group != nodes)
}

/// Whether nodes serve otherwise than they would have to.
fn is_taken_otherwise(state: &State, nodes: Nodes) -> bool {
    if nodes.count() > 1 {
        return is_taken(state, nodes);
    }
    nodes.numbers().filter_map(|number| state.nodes.get(&number)).any(|node| node.group.count() > 1)
}

/// kubelet 1.36: a preferred one, of those the narrowest; with whether it is preferred.
fn best(choices: &[Hint]) -> Option<(Nodes, bool)> {
    let named = choices.iter().filter_map(|hint| Some((hint.nodes?, hint.is_preferred)));
    named.min_by_key(|(nodes, is_preferred)| (!is_preferred, *nodes))
}

/// The hints of what a container has already; none when it wants something else now.
fn again(blocks: &[Block], wanted: &Wanted) -> Hints {
    if blocks.len() != wanted.len() || blocks.iter().any(|block| wanted.get(&block.resource) != Some(&block.bytes)) {
        return Hints::new();
    }
    let hint = |nodes| Hint { nodes: Some(nodes), is_preferred: true };
    blocks.iter().map(|block| (block.resource.clone(), Some(vec![hint(block.nodes)]))).into_map()
}
