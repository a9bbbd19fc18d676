//! Memory and huge pages of NUMA nodes: which container has which. kubelet 1.36: "memory manager", policy `Static`.
//!
//! Guaranteed containers get their memory from as few nodes as can serve them. A node serves either containers by itself, or together with
//! always the same others.

use std::collections::BTreeMap;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_proto::podresources;

use super::numa::{Hint, Nodes};
use super::qos::{QosClass, qos_class};
use super::sum::{has_pod_level, is_sidecar};
use crate::render::uid_of;

pub mod file;
mod hints;
pub mod reserved;
mod start;
mod wanted;

pub use reserved::{MachineNode, Reservations, reservations};
pub use start::Invalid;

#[cfg(test)]
mod tests;

/// The resource's name of what is not in huge pages.
pub const MEMORY: &str = "memory";

/// What is done with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// Guaranteed containers have theirs from certain nodes.
    Static,
}

impl Policy {
    /// That of `memoryManagerPolicy`.
    ///
    /// # Errors
    /// kubelet 1.36: it is unknown, or there is none of that name on Linux.
    pub fn of(name: &str) -> Result<Self, String> {
        match name {
            "None" => Ok(Self::None),
            "Static" => Ok(Self::Static),
            "BestEffort" => Err(r#"policy "BestEffort" is not available for platform "linux""#.to_owned()),
            other => Err(format!("unknown policy: {other:?}")),
        }
    }

    /// As the configuration and the state file call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Static => "Static",
        }
    }
}

/// Bytes of one resource on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table {
    pub total: u64,
    /// Kept for the system.
    pub system_reserved: u64,
    /// What containers may have.
    pub allocatable: u64,
    /// What they have.
    pub reserved: u64,
    pub free: u64,
}

/// What there is on one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// How many blocks it has a part in: a container with huge pages has two or more.
    pub assignments: i64,
    /// By resource.
    pub tables: BTreeMap<String, Table>,
    /// The node and those it serves with.
    pub group: Nodes,
}

/// What a container has of one resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Block {
    /// From all of these together.
    pub nodes: Nodes,
    pub resource: String,
    pub bytes: u64,
}

/// Whose memory it is: by pod and container.
pub type Holdings = BTreeMap<PodUid, BTreeMap<String, Vec<Block>>>;

/// What is written down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// By number.
    pub nodes: BTreeMap<usize, Node>,
    pub held: Holdings,
}

/// What came of asking memory for a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocated {
    /// None is given to such pods. kubelet 1.36: `memory_manager_pinning_requests_total` does not count it; it does all others, refused ones
    /// too.
    Never,
    /// It had it before.
    Before,
    Now,
}

/// Memory of init containers that have ended, which later containers of the pod may have. Of one pod only: one is admitted at a time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Reusable {
    pod: Option<PodUid>,
    blocks: Vec<Block>,
}

impl Reusable {
    fn bytes(&self, pod: &PodUid, nodes: Nodes, resource: &str) -> u64 {
        let is_it = |block: &&Block| block.nodes == nodes && block.resource == resource;
        let mut of_pod = self.blocks.iter().filter(|_| self.pod.as_ref() == Some(pod));
        of_pod.find(is_it).map_or(0, |block| block.bytes)
    }

    /// A container has these blocks: later ones may have an init container's, and what they have is used up.
    fn update(&mut self, pod: &PodUid, ends: bool, blocks: &[Block]) {
        if self.pod.as_ref() != Some(pod) {
            *self = Self { pod: Some(pod.clone()), blocks: Vec::new() };
        }
        for block in blocks {
            let is_it = |own: &&mut Block| own.nodes == block.nodes && own.resource == block.resource;
            match self.blocks.iter_mut().find(is_it) {
                Some(own) if ends => own.bytes = own.bytes.max(block.bytes),
                Some(own) => own.bytes = own.bytes.saturating_sub(block.bytes),
                None if ends => self.blocks.push(block.clone()),
                None => {}
            }
        }
    }
}

/// The policy `Static`: all that it knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Static {
    state: State,
    reusable: Reusable,
}

impl Static {
    /// What is to be written down.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What a container has.
    #[must_use]
    pub fn of(&self, pod: &PodUid, container: &str) -> Option<&[Block]> {
        self.state.held.get(pod)?.get(container).map(Vec::as_slice)
    }

    /// The nodes that a container's memory is to come from.
    #[must_use]
    pub fn nodes_of(&self, pod: &PodUid, container: &str) -> Option<Nodes> {
        let blocks = self.of(pod, container)?;
        let nodes = blocks.iter().fold(Nodes::default(), |nodes, block| nodes.or(block.nodes));
        (!nodes.is_empty()).then_some(nodes)
    }

    /// Gives a container its memory: from the nodes of `affinity`, or of the best hint where that names none.
    ///
    /// # Errors
    /// It can have none, in upstream's words; nothing has changed. kubelet 1.36: `memory_manager_pinning_errors_total` counts it.
    pub fn allocate(&mut self, pod: &v1::Pod, container: &v1::Container, affinity: Hint) -> Result<Allocated, String> {
        // kubelet 1.36: with resources of its own a pod is left out without the gate PodLevelResourceManagers.
        if qos_class(pod) != QosClass::Guaranteed || has_pod_level(pod) {
            return Ok(Allocated::Never);
        }
        let uid = uid_of(pod);
        let ends = ends(pod, container);
        if let Some(blocks) = self.state.held.get(&uid).and_then(|pod| pod.get(&container.name)) {
            self.reusable.update(&uid, ends, blocks);
            return Ok(Allocated::Before);
        }
        let wanted = wanted::by_container(container)?;
        let nodes = self.nodes_for(&uid, &wanted, affinity)?;
        let mut blocks = Vec::new();
        for (resource, bytes) in wanted {
            let anew = bytes.saturating_sub(self.reusable.bytes(&uid, nodes, &resource));
            let block = Block { nodes, resource, bytes };
            self.state.take(&Block { bytes: anew, ..block.clone() });
            blocks.push(block);
        }
        self.reusable.update(&uid, ends, &blocks);
        self.use_up(&uid, pod, container, &blocks);
        self.state.held.entry(uid).or_default().insert(container.name.clone(), blocks);
        Ok(Allocated::Now)
    }

    /// What a container has is no longer an earlier init container's. kubelet 1.36: so that all of a pod's blocks are what it has in sum.
    fn use_up(&mut self, uid: &PodUid, pod: &v1::Pod, container: &v1::Container, blocks: &[Block]) {
        let Some(held) = self.state.held.get_mut(uid) else { return };
        for block in blocks {
            let mut bytes = block.bytes;
            let before = init_containers(pod).take_while(|init| init.name != container.name);
            for init in before.filter(|init| !is_sidecar(init)) {
                for own in held.get_mut(&init.name).into_iter().flatten() {
                    if own.resource == block.resource && own.nodes == block.nodes {
                        let part = own.bytes.min(bytes);
                        own.bytes -= part;
                        bytes -= part;
                    }
                }
            }
        }
    }

    /// A container is started: its pod's init containers before it have ended and give theirs back. Whether they had any.
    pub fn started(&mut self, pod: &v1::Pod, container: &str) -> bool {
        let uid = uid_of(pod);
        let mut any = false;
        for init in init_containers(pod).take_while(|init| init.name != container) {
            any |= !is_sidecar(init) && self.remove(&uid, &init.name);
        }
        any
    }

    /// A container gives its memory back; whether it had any.
    pub fn remove(&mut self, pod: &PodUid, container: &str) -> bool {
        let Some(containers) = self.state.held.get_mut(pod) else { return false };
        let Some(blocks) = containers.remove(container) else { return false };
        if containers.is_empty() {
            self.state.held.remove(pod);
        }
        for block in &blocks {
            self.state.give_back(block);
        }
        true
    }

    /// Only these containers keep theirs; whether others had some.
    pub fn retain(&mut self, is_there: &dyn Fn(&PodUid, &str) -> bool) -> bool {
        let held = self.state.held.iter().flat_map(|(pod, all)| all.keys().map(move |name| (pod, name)));
        let gone = held.filter(|(pod, name)| !is_there(pod, name)).map(|(pod, name)| (pod.clone(), name.clone()));
        let gone: Vec<(PodUid, String)> = gone.collect();
        gone.iter().fold(false, |any, (pod, name)| self.remove(pod, name) || any)
    }

    /// What monitoring is told of a container.
    #[must_use]
    pub fn shown(&self, pod: &PodUid, container: &str) -> Vec<podresources::ContainerMemory> {
        let blocks = self.of(pod, container).unwrap_or_default();
        blocks.iter().map(|block| shown(&block.resource, block.bytes, block.nodes)).collect()
    }

    /// What monitoring is told of what there is.
    #[must_use]
    pub fn shown_allocatable(&self) -> Vec<podresources::ContainerMemory> {
        let tables = self.state.nodes.iter().flat_map(|(number, node)| node.tables.iter().map(move |of| (number, of)));
        tables
            .filter(|(_, (_, table))| table.allocatable > 0)
            .map(|(number, (resource, table))| shown(resource, table.allocatable, Nodes::of([*number])))
            .collect()
    }
}

impl State {
    fn table(&self, node: usize, resource: &str) -> Table {
        self.nodes.get(&node).and_then(|node| node.tables.get(resource)).copied().unwrap_or_default()
    }

    /// Takes a block from its nodes, the lowest first.
    fn take(&mut self, block: &Block) {
        let mut bytes = block.bytes;
        for number in block.nodes.numbers() {
            let Some(node) = self.nodes.get_mut(&number) else { continue };
            node.assignments += 1;
            node.group = block.nodes;
            let Some(table) = node.tables.get_mut(&block.resource) else { continue };
            let part = table.free.min(bytes);
            table.reserved += part;
            table.free -= part;
            bytes -= part;
        }
    }

    fn give_back(&mut self, block: &Block) {
        let mut bytes = block.bytes;
        for number in block.nodes.numbers() {
            let Some(node) = self.nodes.get_mut(&number) else { continue };
            node.assignments -= 1;
            if node.assignments == 0 {
                node.group = Nodes::of([number]);
            }
            let Some(table) = node.tables.get_mut(&block.resource) else { continue };
            let part = table.reserved.min(bytes);
            table.free += part;
            table.reserved -= part;
            bytes -= part;
        }
    }
}

/// Resources that pods ask for of nodes.
fn is_memory(resource: &str) -> bool {
    resource == MEMORY || resource.starts_with(super::hugepages::PREFIX)
}

fn init_containers(pod: &v1::Pod) -> impl Iterator<Item = &v1::Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten())
}

/// Whether the container ends before the pod's others start.
fn ends(pod: &v1::Pod, container: &v1::Container) -> bool {
    init_containers(pod).find(|init| init.name == container.name).is_some_and(|init| !is_sidecar(init))
}

fn shown(resource: &str, size: u64, nodes: Nodes) -> podresources::ContainerMemory {
    let nodes = nodes.numbers().filter_map(|id| i64::try_from(id).ok());
    let nodes = nodes.map(|id| podresources::NumaNode { id }).collect();
    podresources::ContainerMemory {
        memory_type: resource.to_owned(),
        size,
        topology: Some(podresources::TopologyInfo { nodes }),
    }
}
