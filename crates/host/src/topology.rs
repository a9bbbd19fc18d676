//! How the machine is cut: processors in cores, sockets and caches, and NUMA nodes with their memory; as `/sys/devices/system` has it.
//!
//! kubelet 1.36: it sees the machine with the eyes of cAdvisor. The numbers here are those that its CPU and memory managers work with, for
//! they stand in their state files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::proc::{HugePages, ProcError, huge_pages_in, read_bounded};
use cache::Shared;

mod cache;

#[cfg(test)]
mod tests;

/// Where the kernel tells it.
pub const ROOT: &str = "/sys/devices/system";

/// Largest of the files read here.
const FILE_MAX: u64 = 1 << 16;

/// A processor (a thread) that is online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    pub number: usize,
    /// Unique on the machine. kubelet 1.36: the lowest number of the core's processors of one node, not the kernel's `core_id`.
    pub core: usize,
    /// The kernel's `physical_package_id`; 0 where it knows none (−1).
    pub socket: usize,
    pub node: usize,
    /// The kernel's number of the cache of level 3 (or beyond) that the core shares with some cores of its node. kubelet 1.36: where the whole
    /// node shares it, or the kernel tells nothing of caches, the socket's number.
    pub uncore: usize,
}

/// A NUMA node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    pub number: usize,
    /// All its memory, huge pages too. kubelet 1.36: zero where the kernel does not tell.
    pub memory_bytes: u64,
    /// Smallest pages first.
    pub huge_pages: Vec<HugePages>,
    /// To the nodes that are online, in their order. Empty where the kernel does not tell.
    pub distances: Vec<u64>,
    /// Those online, in order; a node may have memory only.
    pub cpus: Vec<usize>,
}

/// The whole machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// By number.
    pub cpus: Vec<Cpu>,
    /// By number.
    pub nodes: Vec<Node>,
}

/// Reads it below `root`: [`ROOT`], or what a test has in its place.
///
/// kubelet 1.36: a kernel that knows no nodes has one for each socket, without memory. A processor of which the kernel does not say its core or
/// socket is left out.
///
/// # Errors
/// A file cannot be read or holds something else than it should, or there is no processor.
pub fn topology(root: &Path) -> Result<Topology, ProcError> {
    let online = online(root)?;
    let cpus_dir = root.join("cpu");
    let numbers = numbered(&root.join("node"), "node")?.unwrap_or_default();
    let mut all = Topology::default();
    if numbers.is_empty() {
        let mut sockets: BTreeMap<usize, Vec<Thread>> = BTreeMap::new();
        for number in numbered(&cpus_dir, "cpu")?.unwrap_or_default() {
            if let Some(socket) = socket(root, number)? {
                sockets.entry(socket).or_default();
            }
        }
        for thread in threads(root, &cpus_dir, &online)? {
            sockets.entry(thread.socket).or_default().push(thread);
        }
        for (number, threads) in sockets {
            all.add(root, Node { number, ..Node::default() }, threads);
        }
    }
    for number in numbers {
        let dir = root.join(format!("node/node{number}"));
        let node = Node {
            number,
            memory_bytes: memory(&dir)?,
            huge_pages: huge_pages(&dir)?,
            distances: distances(&dir)?,
            cpus: Vec::new(),
        };
        let threads = threads(root, &dir, &online)?;
        all.add(root, node, threads);
    }
    if all.cpus.is_empty() {
        return Err(missing(&cpus_dir, "processor"));
    }
    all.cpus.sort_unstable_by_key(|cpu| cpu.number);
    all.nodes.sort_unstable_by_key(|node| node.number);
    Ok(all)
}

/// What the kernel says of one processor: its core's number is unique in its socket.
struct Thread {
    number: usize,
    core: i64,
    socket: usize,
}

impl Topology {
    fn add(&mut self, root: &Path, mut node: Node, threads: Vec<Thread>) {
        let mut cores: Vec<(usize, i64, Vec<usize>)> = Vec::new();
        for Thread { number, core, socket } in threads {
            node.cpus.push(number);
            match cores.iter_mut().find(|of| (of.0, of.1) == (socket, core)) {
                Some((_, _, cpus)) => cpus.push(number),
                None => cores.push((socket, core, vec![number])),
            }
        }
        node.cpus.sort_unstable();
        let count = cores.len();
        let mut is_told = true;
        for (socket, _, cpus) in cores {
            let shared = if is_told { cache::shared(root, cpus[0], cpus.len() * count) } else { Shared::Untold };
            // kubelet 1.36: after the first core whose caches cannot be read, no other's count.
            is_told = shared != Shared::Untold;
            let uncore = match shared {
                Shared::Some { number } => number,
                Shared::All | Shared::Untold => socket,
            };
            let core = cpus.iter().copied().min().unwrap_or_default();
            let cpu = |number: &usize| Cpu { number: *number, core, socket, node: node.number, uncore };
            self.cpus.extend(cpus.iter().map(cpu));
        }
        self.nodes.push(node);
    }
}

/// Processors below a directory that are online.
fn threads(root: &Path, dir: &Path, online: &Option<Vec<usize>>) -> Result<Vec<Thread>, ProcError> {
    let mut threads = Vec::new();
    for number in numbered(dir, "cpu")?.unwrap_or_default() {
        if online.as_ref().is_some_and(|online| !online.contains(&number)) {
            continue;
        }
        let core = topology_file(root, number, "core_id", "number of a core")?;
        if let (Some(core), Some(socket)) = (core, socket(root, number)?) {
            threads.push(Thread { number, core, socket });
        }
    }
    Ok(threads)
}

fn socket(root: &Path, cpu: usize) -> Result<Option<usize>, ProcError> {
    let socket = topology_file(root, cpu, "physical_package_id", "number of a socket")?;
    Ok(socket.map(|socket| usize::try_from(socket).unwrap_or(0)))
}

fn topology_file(root: &Path, cpu: usize, name: &str, what: &'static str) -> Result<Option<i64>, ProcError> {
    let path = root.join(format!("cpu/cpu{cpu}/topology/{name}"));
    let Some(text) = optional(&path)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| missing(&path, what))
}

/// `None`: the kernel cannot switch processors off, and all are online.
fn online(root: &Path) -> Result<Option<Vec<usize>>, ProcError> {
    let path = root.join("cpu/online");
    let Some(text) = optional(&path)? else { return Ok(None) };
    list(&text).map(Some).ok_or_else(|| missing(&path, "list of processors"))
}

/// `0-3,8`
fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        if first > last {
            return None;
        }
        numbers.extend((first..=last).map(usize::from));
    }
    Some(numbers)
}

/// Memory of a node: a line such as `Node 0 MemTotal: 16384 kB`.
fn memory(dir: &Path) -> Result<u64, ProcError> {
    let path = dir.join("meminfo");
    let Some(text) = optional(&path)? else { return Ok(0) };
    let kib = text.lines().find_map(|line| line.split_once("MemTotal:")?.1.trim().strip_suffix(" kB")?.parse().ok());
    kib.and_then(|kib: u64| kib.checked_mul(1024)).ok_or_else(|| missing(&path, "MemTotal"))
}

fn huge_pages(dir: &Path) -> Result<Vec<HugePages>, ProcError> {
    let mut pages = huge_pages_in(&dir.join("hugepages"))?;
    pages.sort_unstable_by_key(|pages| pages.size_bytes);
    Ok(pages)
}

fn distances(dir: &Path) -> Result<Vec<u64>, ProcError> {
    let path = dir.join("distance");
    let Some(text) = optional(&path)? else { return Ok(Vec::new()) };
    let all: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    all.ok_or_else(|| missing(&path, "list of distances"))
}

/// Numbers of the entries that are called so: of `cpu0`, `cpu1`, `cpufreq` 0 and 1. In the order of names, 10 before 2, as upstream goes through
/// them. `None`: the directory is not there.
fn numbered(dir: &Path, name: &str) -> Result<Option<Vec<usize>>, ProcError> {
    let failed = |source| ProcError::Read { path: dir.display().to_string(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut numbers: Vec<usize> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?.file_name();
        numbers.extend(entry.to_str().and_then(|entry| entry.strip_prefix(name)?.parse::<usize>().ok()));
    }
    numbers.sort_unstable_by_key(usize::to_string);
    Ok(Some(numbers))
}

/// A file that some kernels do not have.
fn optional(path: &Path) -> Result<Option<String>, ProcError> {
    match read_bounded(path, FILE_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(ProcError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn missing(path: &Path, what: &'static str) -> ProcError {
    ProcError::Missing { path: path.display().to_string(), what }
}
