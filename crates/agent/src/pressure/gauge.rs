//! What is left of the node and what pods use of it, read from the kernel and the runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_core::evict::{ContainerUse, DiskUse, Layout, Observation, Observations, PodUse, Signal};
use rubelet_host::cgroup::{LEVELS, Tree};
use rubelet_host::{gauge, proc};
use rubelet_proto::cri;
use tokio::sync::watch;

use crate::hands::Hands;
use crate::observer::{CONTAINER_LABEL, UID_LABEL};
use crate::picture::Shown;

/// Where the figures come from.
#[derive(Clone, Debug, Default)]
pub enum Figures {
    /// From this machine.
    #[default]
    Machine,
    /// From somebody else.
    Told(watch::Receiver<Told>),
}

/// Figures of somebody else.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub observations: Observations,
    pub pods: BTreeMap<PodUid, PodUse>,
}

/// How much is read of pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// Memory and processes: a few small files.
    Memory,
    /// What they have on the disk, too: all their files are counted.
    Disk,
}

pub(super) struct Gauge {
    figures: Figures,
    hands: Arc<Hands>,
    /// Where images and writable layers lie, once the runtime has told.
    disks: Option<Disks>,
    /// Memory as last read: (used, working set, capacity), of the node and of all pods.
    pub(super) memory: [Option<Memory>; 2],
}

#[derive(Clone, Debug, Default)]
struct Disks {
    image: Option<PathBuf>,
    container: Option<PathBuf>,
}

/// Bytes of memory of the node, or of all pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Memory {
    pub(super) used: i64,
    pub(super) working_set: i64,
    pub(super) capacity: i64,
}

impl Gauge {
    pub(super) fn new(figures: Figures, hands: Arc<Hands>) -> Self {
        Self { figures, hands, disks: None, memory: [None; 2] }
    }

    /// How the node's file systems are divided; what the runtime does not tell counts as undivided.
    pub(super) async fn layout(&mut self) -> Layout {
        let disks = self.disks().await;
        let device = |path: Option<&PathBuf>| path.and_then(|p| gauge::device(p));
        let node = gauge::device(&self.hands.root_dir);
        let image = device(disks.image.as_ref());
        match (image, device(disks.container.as_ref()).or(image)) {
            (Some(_), _) if image == node => Layout::Single,
            (Some(image), Some(container)) if image != container => Layout::Split,
            (Some(_), _) => Layout::ImageFs,
            (None, _) => Layout::Single,
        }
    }

    async fn disks(&mut self) -> Disks {
        if let Some(disks) = &self.disks {
            return disks.clone();
        }
        let Ok(answer) = self.hands.runtime.image_fs_info().await else { return Disks::default() };
        let path = |all: &[cri::FilesystemUsage]| {
            let id = all.first()?.fs_id.as_ref()?;
            (!id.mountpoint.is_empty()).then(|| PathBuf::from(&id.mountpoint))
        };
        let (image, container) = (path(&answer.image_filesystems), path(&answer.container_filesystems));
        let disks = Disks { container: container.or_else(|| image.clone()), image };
        self.disks = Some(disks.clone());
        disks
    }

    /// What is left of the node.
    pub(super) async fn observe(&mut self) -> Observations {
        if let Figures::Told(told) = &self.figures {
            return told.borrow().observations.clone();
        }
        let disks = self.disks().await;
        let hands = self.hands.clone();
        let read = rubelet_host::task::blocking(move || {
            let memory = memory(&hands);
            (observe(&hands, &disks, memory), memory)
        });
        match read.await {
            Ok((observations, memory)) => {
                self.memory = memory;
                observations
            }
            Err(e) => {
                tracing::warn!(err = %e, "reading what is left of the node broke");
                Observations::new()
            }
        }
    }

    /// What these pods use.
    pub(super) async fn measure<'p>(
        &self,
        pods: impl Iterator<Item = (&'p PodUid, &'p Shown)>,
        depth: Depth,
    ) -> BTreeMap<PodUid, PodUse> {
        if let Figures::Told(told) = &self.figures {
            return told.borrow().pods.clone();
        }
        let pods: Vec<(PodUid, Shown)> = pods.map(|(uid, shown)| (uid.clone(), shown.clone())).collect();
        // A runtime that does not tell leaves out what only it knows.
        let stats = self.hands.runtime.list_container_stats(None).await.unwrap_or_default();
        let hands = self.hands.clone();
        let read = rubelet_host::task::blocking(move || {
            pods.into_iter()
                .map(|(uid, shown)| {
                    let usage = pod(&hands, &uid, &shown, &stats, depth);
                    (uid, usage)
                })
                .into_map()
        });
        read.await.unwrap_or_else(|e| {
            tracing::warn!(err = %e, "reading what pods use broke");
            BTreeMap::new()
        })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Of the node and of all pods. kubelet 1.36: what counts is the working set; all pods have a capacity only where they are held to
/// one.
fn memory(hands: &Hands) -> [Option<Memory>; 2] {
    let of = |tree: Option<Tree>, capacity: Option<u64>| {
        let usage = tree?.usage("")?;
        let capacity = capacity.or(usage.memory_limit_bytes)?;
        Some(Memory {
            used: signed(usage.memory_bytes?),
            working_set: signed(usage.working_set_bytes?),
            capacity: signed(capacity),
        })
    };
    let total = proc::memory().ok().map(|m| m.total);
    let node = total.and_then(|total| of(hands.cgroups.as_ref().map(Tree::top), Some(total)));
    [node.or_else(|| total.and_then(without_cgroups)), pods(hands)]
}

fn pods(hands: &Hands) -> Option<Memory> {
    let usage = hands.cgroups.as_ref()?.usage(rubelet_host::cgroup::LEVELS[0])?;
    Some(Memory {
        used: signed(usage.memory_bytes?),
        working_set: signed(usage.working_set_bytes?),
        capacity: signed(usage.memory_limit_bytes?),
    })
}

/// Where cgroups tell nothing of the whole machine, the kernel's own account does.
fn without_cgroups(total: u64) -> Option<Memory> {
    let text = proc::read_bounded(Path::new("/proc/meminfo"), 1 << 20).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let used = signed(total.saturating_sub(available));
    Some(Memory { used, working_set: used, capacity: signed(total) })
}

fn observe(hands: &Hands, disks: &Disks, memory: [Option<Memory>; 2]) -> Observations {
    let mut seen = Observations::new();
    let left = |m: Memory| Observation { available: m.capacity.saturating_sub(m.working_set), capacity: m.capacity };
    let [node, pods] = memory;
    seen.extend(node.map(|m| (Signal::MemoryAvailable, left(m))));
    seen.extend(pods.map(|m| (Signal::AllocatableMemoryAvailable, left(m))));
    let mut disk = |path: Option<&Path>, bytes: Signal, inodes: Signal| {
        let Some(disk) = path.and_then(|p| proc::disk(p).ok()) else { return };
        let of = |available, capacity| Observation { available: signed(available), capacity: signed(capacity) };
        seen.insert(bytes, of(disk.available, disk.capacity));
        // A file system without a number of files has no end of them.
        if disk.inodes > 0 {
            seen.insert(inodes, of(disk.inodes_free, disk.inodes));
        }
    };
    disk(Some(&hands.root_dir), Signal::NodeFsAvailable, Signal::NodeFsInodesFree);
    disk(disks.image.as_deref(), Signal::ImageFsAvailable, Signal::ImageFsInodesFree);
    disk(disks.container.as_deref(), Signal::ContainerFsAvailable, Signal::ContainerFsInodesFree);
    if let (Some(most), Some(tasks)) = (proc::pids_max(), gauge::tasks()) {
        seen.insert(Signal::PidAvailable, Observation { available: most.saturating_sub(tasks), capacity: most });
    }
    seen
}

fn pod(hands: &Hands, uid: &PodUid, shown: &Shown, stats: &[cri::ContainerStats], depth: Depth) -> PodUse {
    let tree = hands.cgroups.as_ref();
    let usage = tree.and_then(|tree| LEVELS.iter().find_map(|level| tree.usage(format!("{level}/pod{uid}"))));
    let logs = hands.pod_logs_dir.join(format!("{}_{}_{uid}", shown.key.namespace, shown.key.name));
    let own = stats.iter().filter(|s| label(s, UID_LABEL) == Some(uid.as_str()));
    let containers: Vec<ContainerUse> = own.filter_map(|s| container(s, &logs, depth)).collect();
    let summed = || containers.iter().filter_map(|c| c.memory).reduce(i64::saturating_add);
    PodUse {
        memory: usage.and_then(|u| u.working_set_bytes).map(signed).or_else(summed),
        processes: usage.and_then(|u| u.processes).map(signed),
        volumes: if depth == Depth::Disk { volumes(&hands.pod_dir(uid), shown) } else { Vec::new() },
        containers,
    }
}

fn label<'s>(stats: &'s cri::ContainerStats, name: &str) -> Option<&'s str> {
    stats.attributes.as_ref()?.labels.get(name).map(String::as_str)
}

fn container(stats: &cri::ContainerStats, logs: &Path, depth: Depth) -> Option<ContainerUse> {
    let name = label(stats, CONTAINER_LABEL)?.to_owned();
    let memory = stats.memory.as_ref().and_then(|m| m.working_set_bytes).map(|v| signed(v.value));
    let rootfs = stats.writable_layer.as_ref().map(|layer| DiskUse {
        bytes: layer.used_bytes.map_or(0, |v| signed(v.value)),
        inodes: layer.inodes_used.map_or(0, |v| signed(v.value)),
    });
    let logs = if depth == Depth::Disk { Some(size(&logs.join(&name)).unwrap_or_default()) } else { None };
    Some(ContainerUse { name, memory, rootfs, logs })
}

/// Volumes that lie in the pod's own directory.
fn volumes(dir: &Path, shown: &Shown) -> Vec<(String, DiskUse)> {
    let volumes = shown.pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let kind = |v: &rubelet_api::v1::Volume| match () {
        () if v.empty_dir.is_some() => Some("kubernetes.io~empty-dir"),
        () if v.config_map.is_some() => Some("kubernetes.io~configmap"),
        () => None,
    };
    let of = |v: &rubelet_api::v1::Volume| {
        let used = size(&dir.join("volumes").join(kind(v)?).join(&v.name))?;
        Some((v.name.clone(), used))
    };
    volumes.iter().filter_map(of).collect()
}

fn size(dir: &Path) -> Option<DiskUse> {
    gauge::tree_size(dir).map(|size| DiskUse { bytes: signed(size.bytes), inodes: signed(size.inodes) })
}
