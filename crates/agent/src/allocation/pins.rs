//! CPUs and memory of NUMA nodes: who has which, and the files in which that outlives the agent.
//!
//! Rules are in `rubelet_core::resources::{cpus, memory}`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rubelet_api::config::MemoryReservation;
use rubelet_api::gather::Gather;
use rubelet_api::ids::{ContainerId, PodUid};
use rubelet_api::quantity::Amount;
use rubelet_api::v1;
use rubelet_core::render::uid_of;
use rubelet_core::resources::cpus::{self, CpuSet, Given, Options, options, pinned};
use rubelet_core::resources::memory::{self, Allocated, MachineNode};
use rubelet_core::resources::numa::{Hint, Hints, Machine, Merging};
use rubelet_core::resources::{self, Refusal};
use rubelet_host::{chain, paths, topology};
use rubelet_proto::{cri, podresources};
use tokio::sync::{Mutex as Turn, watch};

use crate::metrics::{AllocationCounts, Metrics};

/// What the configuration says of CPUs, memory and NUMA nodes that containers have for themselves. By default nobody has any.
#[derive(Clone, Debug, Default)]
pub struct AllocationSettings {
    /// `cpuManagerPolicy` is `static`.
    pub static_cpus: bool,
    /// `cpuManagerPolicyOptions`.
    pub cpu_options: BTreeMap<String, String>,
    pub cpu_option_gates: options::Gates,
    /// `reservedSystemCPUs`.
    pub reserved_cpus: String,
    /// CPU that is kept for the system and the agents together, in thousandths.
    pub reserved_cpu_milli: i64,
    /// Gate `DisableCPUQuotaWithExclusiveCPUs`.
    pub lifts_quota: bool,
    pub memory_policy: memory::Policy,
    /// `reservedMemory`.
    pub reserved_memory: Vec<MemoryReservation>,
    /// What is taken off the node's memory: `systemReserved`, `kubeReserved`, hard eviction thresholds.
    pub kept_memory: Vec<BTreeMap<String, Amount>>,
    /// `topologyManagerPolicy`, `topologyManagerScope`, `topologyManagerPolicyOptions`.
    pub topology_policy: String,
    pub topology_scope: String,
    pub topology_options: BTreeMap<String, String>,
    /// [`MACHINE_ROOT`] but in tests.
    pub machine_root: PathBuf,
}

/// Where the kernel tells of processors and NUMA nodes.
pub const MACHINE_ROOT: &str = topology::ROOT;

/// Who has which CPUs and which memory.
pub struct Pins {
    root_dir: PathBuf,
    lifts_quota: bool,
    state: Mutex<State>,
    /// Held while files are written: what they hold.
    written: Turn<[String; 2]>,
    /// Counts up when containers have other CPUs.
    version: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    /// `None`: the policy gives none.
    cpus: Option<cpus::Static>,
    memory: Option<memory::Static>,
    /// Which CPUs the runtime was told of a container.
    told: BTreeMap<ContainerId, CpuSet>,
}

impl Pins {
    /// Reads the machine, where that matters, and what an earlier life wrote down.
    ///
    /// # Errors
    /// What kubelet 1.36 does not start with, in its words.
    pub(crate) fn open(
        settings: &AllocationSettings,
        root_dir: &Path,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Merging), String> {
        let is_plain = !settings.static_cpus
            && settings.memory_policy == memory::Policy::None
            && settings.topology_policy == "none"
            && settings.reserved_cpus.is_empty();
        let machine = if is_plain {
            topology::Topology::default()
        } else {
            topology::topology(&settings.machine_root).map_err(|e| chain(&e))?
        };
        let distances = machine.nodes.iter().map(|node| (node.number, node.distances.clone())).into_map();
        let merging = Merging::of(
            &settings.topology_policy,
            &settings.topology_scope,
            &settings.topology_options,
            Machine { distances },
        )?;
        let (cpus, cpu_text) = cpus_of(settings, &machine, &merging, root_dir)?;
        let (memory, memory_text) = memory_of(settings, &machine, root_dir)?;
        let pins = Self {
            root_dir: root_dir.to_owned(),
            lifts_quota: settings.lifts_quota,
            state: Mutex::new(State { cpus, memory, ..State::default() }),
            written: Turn::new([cpu_text, memory_text]),
            version: watch::Sender::default(),
            metrics,
        };
        pins.show();
        Ok((pins, merging))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> &AllocationCounts {
        &self.metrics.allocation
    }

    /// Whether containers can have any.
    pub(super) fn any(&self) -> bool {
        let state = self.state();
        state.cpus.is_some() || state.memory.is_some()
    }

    /// Counts up when containers have other CPUs; `None` where nobody has any for himself.
    pub(super) fn version(&self) -> Option<watch::Receiver<u64>> {
        self.state().cpus.as_ref().map(|_| self.version.subscribe())
    }

    /// Only these pods keep theirs; whether others had some.
    pub(super) fn keep(&self, is_there: impl Fn(&PodUid) -> bool) -> bool {
        let is_there = |uid: &PodUid, _: &str| is_there(uid);
        let mut state = self.state();
        let cpus = state.cpus.as_mut().is_some_and(|cpus| cpus.retain(&is_there));
        let memory = state.memory.as_mut().is_some_and(|memory| memory.retain(&is_there));
        drop(state);
        if cpus {
            self.changed();
        }
        cpus || memory
    }

    /// Which nodes could give a container what it wants, of each giver.
    pub(super) fn hints(&self, pod: &v1::Pod, container: &v1::Container) -> Vec<Hints> {
        let state = self.state();
        let cpus = state.cpus.as_ref().map(|cpus| cpus.hints(pod, container));
        let memory = state.memory.as_ref().map(|memory| memory.hints(pod, container));
        cpus.into_iter().chain(memory).collect()
    }

    /// The same of a whole pod.
    pub(super) fn pod_hints(&self, pod: &v1::Pod) -> Vec<Hints> {
        let state = self.state();
        let cpus = state.cpus.as_ref().map(|cpus| cpus.pod_hints(pod));
        let memory = state.memory.as_ref().map(|memory| memory.pod_hints(pod));
        cpus.into_iter().chain(memory).collect()
    }

    /// Gives a container what it wants, from these nodes.
    pub(super) fn give(&self, pod: &v1::Pod, container: &v1::Container, hint: Hint) -> Result<(), Refusal> {
        self.give_cpus(pod, container, hint)?;
        self.give_memory(pod, container, hint).map_err(|why| Refusal::unexpected(&why))
    }

    fn give_cpus(&self, pod: &v1::Pod, container: &v1::Container, hint: Hint) -> Result<(), Refusal> {
        let mut state = self.state();
        let Some(cpus) = &mut state.cpus else { return Ok(()) };
        let is_whole = cpus.options().whole_cores;
        let given = cpus.allocate(pod, container, hint);
        drop(state);
        let counts = self.counts();
        if given != Ok(Given::Shared) {
            counts.cpu_requests.add_one();
            let aligned = if given.is_ok() { &counts.aligned } else { &counts.aligned_failures };
            if is_whole {
                aligned.of(&["physical_cpu", "container"]).add_one();
            }
        }
        match given {
            Ok(Given::Shared | Given::Kept) => Ok(()),
            Ok(Given::New { is_uncore_aligned }) => {
                if is_uncore_aligned {
                    counts.aligned.of(&["uncore_cache", "container"]).add_one();
                }
                self.changed();
                Ok(())
            }
            Err(why) => {
                counts.cpu_errors.add_one();
                Err(why)
            }
        }
    }

    fn give_memory(&self, pod: &v1::Pod, container: &v1::Container, hint: Hint) -> Result<(), String> {
        let mut state = self.state();
        let Some(memory) = &mut state.memory else { return Ok(()) };
        let given = memory.allocate(pod, container, hint);
        drop(state);
        if given != Ok(Allocated::Never) {
            self.counts().memory_requests.add_one();
        }
        if given.is_err() {
            self.counts().memory_errors.add_one();
        }
        given.map(|_| ())
    }

    /// A container is about to be made: it is told its CPUs and the nodes of its memory. Whether what is written down changes: init
    /// containers before it have ended.
    pub(super) fn fill(&self, config: &mut cri::ContainerConfig, pod: &v1::Pod, container: &str) -> bool {
        let uid = uid_of(pod);
        let mut state = self.state();
        let mut resources = cri::LinuxContainerResources::default();
        if let Some(cpus) = &state.cpus {
            resources.cpuset_cpus = cpus.cpus_of(&uid, container).to_string();
            if self.lifts_quota && cpus.has_exclusive(&uid, container) {
                resources.cpu_quota = -1;
            }
        }
        let mut has_changed = false;
        if let Some(memory) = &mut state.memory {
            let nodes = memory.nodes_of(&uid, container);
            let numbers = nodes.into_iter().flat_map(|nodes| nodes.numbers().collect::<Vec<_>>());
            resources.cpuset_mems = numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(",");
            has_changed = memory.started(pod, container);
        }
        drop(state);
        if resources != cri::LinuxContainerResources::default() {
            let own = config.linux.get_or_insert_default().resources.get_or_insert_default();
            (own.cpuset_cpus, own.cpuset_mems) = (resources.cpuset_cpus, resources.cpuset_mems);
            if own.cpu_quota > 0 && resources.cpu_quota < 0 {
                own.cpu_quota = resources.cpu_quota;
            }
        }
        has_changed
    }

    /// The runtime made a container with these CPUs, or has given them to it.
    pub(super) fn told(&self, id: &ContainerId, cpus: &str) {
        if let Ok(cpus) = CpuSet::parse(cpus) {
            self.state().told.insert(id.clone(), cpus);
        }
    }

    /// What the runtime is to be told of containers that are there: `all` by id.
    pub(super) fn untold(&self, all: &BTreeMap<ContainerId, (PodUid, String)>) -> Vec<(ContainerId, String)> {
        let mut state = self.state();
        state.told.retain(|id, _| all.contains_key(id));
        let Some(cpus) = &state.cpus else { return Vec::new() };
        let wanted = all.iter().map(|(id, (uid, name))| (id, cpus.cpus_of(uid, name)));
        let other = wanted.filter(|(id, wanted)| !wanted.is_empty() && state.told.get(*id) != Some(*wanted));
        other.map(|(id, wanted)| (id.clone(), wanted.to_string())).collect()
    }

    /// Whether the pod's CPU quota is lifted: a container of it has CPUs for itself. `false` too where it never is.
    pub(super) fn is_quota_lifted(&self, uid: &PodUid) -> bool {
        let state = self.state();
        self.lifts_quota && state.cpus.as_ref().is_some_and(|cpus| cpus.pod_has_exclusive(uid))
    }

    /// What monitoring is told of a container.
    pub(super) fn shown(&self, uid: &PodUid, container: &str) -> podresources::ContainerResources {
        let state = self.state();
        let cpus = state.cpus.as_ref().and_then(|cpus| cpus.exclusive_of(uid, container));
        podresources::ContainerResources {
            cpu_ids: cpus.map(numbers).unwrap_or_default(),
            memory: state.memory.as_ref().map(|memory| memory.shown(uid, container)).unwrap_or_default(),
            ..podresources::ContainerResources::default()
        }
    }

    /// What monitoring is told of what there is.
    pub(super) fn shown_allocatable(&self) -> podresources::AllocatableResourcesResponse {
        let state = self.state();
        podresources::AllocatableResourcesResponse {
            cpu_ids: state.cpus.as_ref().map(|cpus| numbers(&cpus.allocatable())).unwrap_or_default(),
            memory: state.memory.as_ref().map(memory::Static::shown_allocatable).unwrap_or_default(),
            ..podresources::AllocatableResourcesResponse::default()
        }
    }

    fn changed(&self) {
        self.show();
        self.version.send_modify(|version| *version += 1);
    }

    /// Figures that are told as they are.
    fn show(&self) {
        let state = self.state();
        let Some(cpus) = &state.cpus else { return };
        let counts = self.counts();
        counts.cpu_shared.set(cpus.shared_milli() as f64);
        counts.cpu_exclusive.set(cpus.exclusive().len() as f64);
        let by_node = cpus.exclusive_by_node();
        for node in cpus.topology().count_by_node(cpus.topology().cpus()).into_keys() {
            counts.cpu_by_node.of(&[&node.to_string()]).set(by_node.get(&node).copied().unwrap_or(0) as f64);
        }
    }

    /// Writes down who has what, if it is not written yet.
    pub(super) async fn write(&self) {
        let mut written = self.written.lock().await;
        let texts = {
            let state = self.state();
            [cpu_text(state.cpus.as_ref()), memory_text(state.memory.as_ref())]
        };
        for (at, name) in [cpus::state::FILE, memory::file::NAME].into_iter().enumerate() {
            if written[at] == texts[at] {
                continue;
            }
            let (path, text) = (self.root_dir.join(name), texts[at].clone());
            let write = move || write_file(&path, &text);
            let done = rubelet_host::task::blocking(write).await.map_err(|e| e.to_string()).and_then(|done| done);
            match done {
                Ok(()) => written[at].clone_from(&texts[at]),
                Err(err) => {
                    tracing::error!(
                        err,
                        file = name,
                        "writing down which CPUs and memory containers have failed; it is tried again with the next change"
                    );
                }
            }
        }
    }
}

fn numbers(cpus: &CpuSet) -> Vec<i64> {
    cpus.numbers().filter_map(|cpu| i64::try_from(cpu).ok()).collect()
}

fn cpu_text(cpus: Option<&cpus::Static>) -> String {
    match cpus {
        Some(cpus) => cpus.state().text(pinned::STATIC),
        None => cpus::State::default().text(NONE),
    }
}

fn memory_text(memory: Option<&memory::Static>) -> String {
    match memory {
        Some(memory) => memory::file::text(memory::Policy::Static, memory.state()),
        None => memory::file::text(memory::Policy::None, &memory::State::default()),
    }
}

/// kubelet 1.36: the policy's name in the file.
const NONE: &str = "none";

/// What an earlier life wrote down; `None`: it wrote nothing.
fn read_file(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), String> {
    paths::write_atomic(path, text.as_bytes(), 0o600).map_err(|e| chain(&e))
}

/// Writes what the file does not say yet.
fn write_other(path: &Path, before: Option<&String>, now: &String) -> Result<(), String> {
    if before == Some(now) { Ok(()) } else { write_file(path, now) }
}

/// The CPUs of the policy as the file left them, and what the file says now.
fn cpus_of(
    settings: &AllocationSettings,
    machine: &topology::Topology,
    merging: &Merging,
    root_dir: &Path,
) -> Result<(Option<cpus::Static>, String), String> {
    let path = root_dir.join(cpus::state::FILE);
    let unusable = |why: String| cpus::state::could_not_restore(&why, &path.display().to_string());
    let policy = if settings.static_cpus { pinned::STATIC } else { NONE };
    let text = read_file(&path).map_err(unusable)?;
    let parse = |text: &String| cpus::State::parse(text, policy, &|_| None).map_err(unusable);
    let state = text.as_ref().map(parse).transpose()?;
    let reserved = CpuSet::parse(&settings.reserved_cpus)?;
    let online: CpuSet = machine.cpus.iter().map(|cpu| cpu.number).collect();
    if !reserved.is_subset(&online) {
        let said = &settings.reserved_cpus;
        return Err(format!("reserved-cpus: {said} is not a subset of online-cpus: {online}"));
    }
    let cpus = if settings.static_cpus {
        let places = machine.cpus.iter().map(|cpu| cpus::Place {
            cpu: cpu.number,
            core: cpu.core,
            socket: cpu.socket,
            node: cpu.node,
            uncore: cpu.uncore,
        });
        let topology = cpus::Topology::of(places.collect());
        // kubelet 1.36: nothing kept is no amount at all.
        let milli = Some(settings.reserved_cpu_milli).filter(|milli| *milli != 0);
        let count = pinned::reserved_count(milli.map(resources::amount::Amount::from_milli))?;
        let failed = |why: String| format!("new static policy error: {why}");
        let options = Options::parse(&settings.cpu_options, settings.cpu_option_gates, &topology, merging.policy);
        let policy = cpus::Static::new(topology, count, &reserved, options.map_err(failed)?).map_err(failed)?;
        Some(policy.restored(state.unwrap_or_default()).map_err(|why| restart(&why, &path))?)
    } else {
        None
    };
    let new = cpu_text(cpus.as_ref());
    write_other(&path, text.as_ref(), &new)?;
    Ok((cpus, new))
}

fn memory_of(
    settings: &AllocationSettings,
    machine: &topology::Topology,
    root_dir: &Path,
) -> Result<(Option<memory::Static>, String), String> {
    let path = root_dir.join(memory::file::NAME);
    let unusable = |why: String| memory::file::unusable(&why, &path.display().to_string());
    let text = read_file(&path).map_err(unusable)?;
    let parse = |text: &String| memory::file::parse(text, settings.memory_policy).map_err(unusable);
    let state = text.as_ref().map(parse).transpose()?;
    let memory = match settings.memory_policy {
        memory::Policy::None => None,
        memory::Policy::Static => {
            let nodes: Vec<MachineNode> = machine.nodes.iter().map(machine_node).collect();
            let kept: Vec<&BTreeMap<String, Amount>> = settings.kept_memory.iter().collect();
            let reservations = memory::reservations(&nodes, &kept, &settings.reserved_memory)?;
            let restored = memory::Static::restored(&nodes, &reservations, state.unwrap_or_default());
            Some(restored.map_err(|why| restart(&why.to_string(), &path))?)
        }
    };
    let new = memory_text(memory.as_ref());
    write_other(&path, text.as_ref(), &new)?;
    Ok((memory, new))
}

/// What is to be done so that it starts.
fn restart(why: &str, path: &Path) -> String {
    format!("{why}; drain the node and remove {}", path.display())
}

fn machine_node(node: &topology::Node) -> MachineNode {
    MachineNode {
        number: node.number,
        memory_bytes: node.memory_bytes,
        huge_pages: node.huge_pages.iter().map(|of| (of.size_bytes, of.count)).collect(),
    }
}
