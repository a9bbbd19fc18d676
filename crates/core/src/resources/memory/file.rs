//! The file in which memory outlives the agent, in upstream's format: whichever kubelet starts next reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rubelet_api::gather::{Gather, TryGather};
use rubelet_api::ids::PodUid;
use serde_json::Value;

use super::super::numa::Nodes;
use super::{Block, Node, Policy, State, Table};
use crate::render::hash::fnv_1a_32;

#[cfg(test)]
mod tests;

/// Its name, in the agent's root directory. kubelet 1.36: it is there with policy `None` too, and names no node then.
pub const NAME: &str = "memory_manager_state";

/// kubelet 1.36: the words with which it does not start when the file at `path` is of no use.
#[must_use]
pub fn unusable(why: &str, path: &str) -> String {
    format!(
        "could not restore state from checkpoint: {why}, please drain this node and delete the memory manager checkpoint file {path:?} before restarting Kubelet"
    )
}

/// What is written down.
#[must_use]
pub fn text(policy: Policy, state: &State) -> String {
    let file = File::of(policy, state);
    let checksum = file.checksum(TYPE);
    file.json(checksum)
}

/// What was written down.
///
/// # Errors
/// It cannot be read, is not what was written, or is another policy's.
pub fn parse(text: &str, policy: Policy) -> Result<State, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let file = File::read(&value)?;
    let checksum = number(&value, "checksum")?.unwrap_or_default();
    // kubelet 1.36: also without one, and under the name that its type has today.
    if checksum != 0 && [TYPE, TYPE_V1].iter().all(|name| u64::from(file.checksum(name)) != checksum) {
        return Err("checkpoint is corrupted".to_owned());
    }
    if file.policy != policy.name() {
        return Err(format!(
            "[memorymanager] configured policy {:?} differs from state checkpoint policy {:?}",
            policy.name(),
            file.policy
        ));
    }
    file.state()
}

/// Go's name of the type of what is in the file stands in its checksum.
const TYPE: &str = "MemoryManagerCheckpoint";
const TYPE_V1: &str = "MemoryManagerCheckpointV1";

/// Go tells nothing from empty.
type Numbers = Option<Vec<u64>>;
type Entries = BTreeMap<String, Option<BTreeMap<String, Option<Vec<FileBlock>>>>>;

struct File {
    policy: String,
    nodes: Option<BTreeMap<u64, FileNode>>,
    entries: Option<Entries>,
}

struct FileNode {
    assignments: i64,
    tables: Option<BTreeMap<String, Table>>,
    cells: Numbers,
}

struct FileBlock {
    nodes: Numbers,
    resource: String,
    bytes: u64,
}

fn listed(nodes: Nodes) -> Numbers {
    Some(nodes.numbers().map(|number| number as u64).collect())
}

impl File {
    fn of(policy: Policy, state: &State) -> Self {
        let node = |node: &Node| FileNode {
            assignments: node.assignments,
            tables: Some(node.tables.clone()),
            cells: listed(node.group),
        };
        let block = |block: &Block| FileBlock {
            nodes: listed(block.nodes),
            resource: block.resource.clone(),
            bytes: block.bytes,
        };
        let blocks = |(name, blocks): (&String, &Vec<Block>)| (name.clone(), Some(blocks.iter().map(block).collect()));
        let pod = |(uid, all): (&PodUid, &BTreeMap<String, Vec<Block>>)| {
            (uid.to_string(), Some(all.iter().map(blocks).into_map()))
        };
        Self {
            policy: policy.name().to_owned(),
            nodes: Some(state.nodes.iter().map(|(number, of)| (*number as u64, node(of))).into_map()),
            entries: Some(state.held.iter().map(pod).into_map()),
        }
    }

    fn state(self) -> Result<State, String> {
        let named = |numbers: Numbers| {
            let numbers: Vec<usize> = numbers.into_iter().flatten().map(|n| n as usize).collect();
            match numbers.iter().find(|number| **number >= Nodes::NUMBERS) {
                Some(number) => Err(format!("node {number} cannot be named")),
                None => Ok(Nodes::of(numbers)),
            }
        };
        let mut state = State::default();
        for (number, node) in self.nodes.into_iter().flatten() {
            let group = named(node.cells)?;
            let tables = node.tables.unwrap_or_default();
            state.nodes.insert(number as usize, Node { assignments: node.assignments, tables, group });
        }
        for (pod, containers) in self.entries.into_iter().flatten() {
            let of_pod = state.held.entry(PodUid::new(&pod)).or_default();
            for (container, blocks) in containers.into_iter().flatten() {
                let block = |block: FileBlock| {
                    Ok(Block { nodes: named(block.nodes)?, resource: block.resource, bytes: block.bytes })
                };
                let blocks: Result<Vec<Block>, String> = blocks.into_iter().flatten().map(block).collect();
                of_pod.insert(container, blocks?);
            }
        }
        Ok(state)
    }
}

/// Reading.
impl File {
    fn read(value: &Value) -> Result<Self, String> {
        let node = |value: &Value| {
            let table = |value: &Value| {
                let of = |name| Ok::<u64, String>(number(value, name)?.unwrap_or_default());
                Ok(Table {
                    total: of("total")?,
                    system_reserved: of("systemReserved")?,
                    allocatable: of("allocatable")?,
                    reserved: of("reserved")?,
                    free: of("free")?,
                })
            };
            let assignments = value.get("numberOfAssignments").map_or(Some(0), Value::as_i64);
            Ok(FileNode {
                assignments: assignments.ok_or_else(|| wrong("numberOfAssignments"))?,
                tables: map(value, "memoryMap", None, &table)?,
                cells: list(value, "cells", &|one| one.as_u64().ok_or_else(|| wrong("cells")))?,
            })
        };
        let nodes = map(value, "machineState", Some(BTreeMap::new()), &node)?;
        let nodes = nodes.map(|nodes| {
            let numbered = |(number, node): (String, FileNode)| {
                Ok::<_, String>((number.parse::<u64>().map_err(|_| wrong("machineState"))?, node))
            };
            nodes.into_iter().map(numbered).try_into_map()
        });
        let pod = |value: &Value| optional_map(value, "entries", &|value| optional_list(value, "entries", &block));
        Ok(Self {
            policy: text_of(value, "policyName")?,
            nodes: nodes.transpose()?,
            entries: map(value, "entries", Some(BTreeMap::new()), &pod)?,
        })
    }
}

fn block(value: &Value) -> Result<FileBlock, String> {
    Ok(FileBlock {
        nodes: list(value, "numaAffinity", &|one| one.as_u64().ok_or_else(|| wrong("numaAffinity")))?,
        resource: text_of(value, "type")?,
        bytes: number(value, "size")?.unwrap_or_default(),
    })
}

fn wrong(name: &str) -> String {
    format!("{name} is not what it should be")
}

fn number(value: &Value, name: &str) -> Result<Option<u64>, String> {
    value.get(name).map(|value| value.as_u64().ok_or_else(|| wrong(name))).transpose()
}

fn text_of(value: &Value, name: &str) -> Result<String, String> {
    let text = value.get(name).map_or(Some(""), Value::as_str);
    text.map(str::to_owned).ok_or_else(|| wrong(name))
}

type Read<'a, T> = &'a dyn Fn(&Value) -> Result<T, String>;

fn map<T>(
    value: &Value,
    name: &str,
    absent: Option<BTreeMap<String, T>>,
    read: Read<'_, T>,
) -> Result<Option<BTreeMap<String, T>>, String> {
    value.get(name).map_or(Ok(absent), |value| optional_map(value, name, read))
}

fn optional_map<T>(value: &Value, name: &str, read: Read<'_, T>) -> Result<Option<BTreeMap<String, T>>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let all = value.as_object().ok_or_else(|| wrong(name))?;
    all.iter().map(|(key, value)| Ok((key.clone(), read(value)?))).try_into_map().map(Some)
}

fn list<T>(value: &Value, name: &str, read: Read<'_, T>) -> Result<Option<Vec<T>>, String> {
    value.get(name).map_or(Ok(None), |value| optional_list(value, name, read))
}

fn optional_list<T>(value: &Value, name: &str, read: Read<'_, T>) -> Result<Option<Vec<T>>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let all = value.as_array().ok_or_else(|| wrong(name))?;
    all.iter().map(read).collect::<Result<_, String>>().map(Some)
}

/// Writing: Go writes fields in the order of its types, and keys of maps as sorted texts.
impl File {
    fn json(&self, checksum: u32) -> String {
        let nodes: BTreeMap<String, &FileNode> =
            self.nodes.iter().flatten().map(|(number, node)| (number.to_string(), node)).into_map();
        let nodes = joined(nodes.iter().map(|(number, node)| format!("\"{number}\":{}", node.json())), ",");
        let mut out = format!("{{\"policyName\":{},\"machineState\":{{{nodes}}}", quoted(&self.policy));
        let entries = self.entries.iter().flatten();
        let entries = joined(
            entries.map(|(pod, containers)| {
                let all = containers.iter().flatten().map(|(name, blocks)| {
                    let blocks = blocks.iter().flatten().map(FileBlock::json);
                    format!("{}:[{}]", quoted(name), joined(blocks, ","))
                });
                format!("{}:{{{}}}", quoted(pod), joined(all, ","))
            }),
            ",",
        );
        if !entries.is_empty() {
            let _ = write!(out, ",\"entries\":{{{entries}}}");
        }
        let _ = write!(out, ",\"checksum\":{checksum}}}");
        out
    }

    /// kubelet 1.36: FNV-1a over the data as Go's `spew` prints it with types.
    fn checksum(&self, name: &str) -> u32 {
        let nodes = shown_map(self.nodes.as_ref(), &|node: &FileNode| node.shown());
        let blocks = |blocks: &Option<Vec<FileBlock>>| shown_list(blocks.as_deref(), &FileBlock::shown);
        let entries = shown_map(self.entries.as_ref(), &|pod| shown_map(pod.as_ref(), &blocks));
        let shown = format!(
            "(*state.{name}){{PolicyName:(string){} MachineState:(state.NUMANodeMap){nodes} \
             Entries:(state.ContainerMemoryAssignments){entries} Checksum:(checksum.Checksum)0}}",
            self.policy
        );
        fnv_1a_32(shown.as_bytes())
    }
}

impl FileNode {
    fn json(&self) -> String {
        let table = |(name, table): (&String, &Table)| {
            let Table { total, system_reserved, allocatable, reserved, free } = table;
            format!(
                "{}:{{\"total\":{total},\"systemReserved\":{system_reserved},\"allocatable\":{allocatable},\"reserved\":{reserved},\"free\":{free}}}",
                quoted(name)
            )
        };
        let tables = joined(self.tables.iter().flatten().map(table), ",");
        let cells = numbers(self.cells.as_deref(), ",");
        let assignments = self.assignments;
        format!("{{\"numberOfAssignments\":{assignments},\"memoryMap\":{{{tables}}},\"cells\":{cells}}}")
    }

    fn shown(&self) -> String {
        let table = |table: &Table| {
            let Table { total, system_reserved, allocatable, reserved, free } = table;
            format!(
                "<*>{{TotalMemSize:(uint64){total} SystemReserved:(uint64){system_reserved} Allocatable:(uint64){allocatable} \
                 Reserved:(uint64){reserved} Free:(uint64){free}}}"
            )
        };
        format!(
            "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable){} Cells:([]int){}}}",
            self.assignments,
            shown_map(self.tables.as_ref(), &table),
            shown_list(self.cells.as_deref(), &u64::to_string)
        )
    }
}

impl FileBlock {
    fn json(&self) -> String {
        let nodes = numbers(self.nodes.as_deref(), ",");
        format!("{{\"numaAffinity\":{nodes},\"type\":{},\"size\":{}}}", quoted(&self.resource), self.bytes)
    }

    fn shown(&self) -> String {
        let nodes = shown_list(self.nodes.as_deref(), &u64::to_string);
        let Self { resource, bytes, .. } = self;
        format!("{{NUMAAffinity:([]int){nodes} Type:(v1.ResourceName){resource} Size:(uint64){bytes}}}")
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn numbers(all: Option<&[u64]>, between: &str) -> String {
    format!("[{}]", joined(all.into_iter().flatten().map(u64::to_string), between))
}

fn joined(all: impl Iterator<Item = String>, between: &str) -> String {
    all.collect::<Vec<_>>().join(between)
}

/// Go's library sorts keys as their types are: as ours are.
fn shown_map<K: ToString, T>(all: Option<&BTreeMap<K, T>>, show: &dyn Fn(&T) -> String) -> String {
    let Some(all) = all else { return "<nil>".to_owned() };
    format!("map[{}]", joined(all.iter().map(|(key, value)| format!("{}:{}", key.to_string(), show(value))), " "))
}

fn shown_list<T>(all: Option<&[T]>, show: &dyn Fn(&T) -> String) -> String {
    let Some(all) = all else { return "<nil>".to_owned() };
    format!("[{}]", joined(all.iter().map(show), " "))
}
