//! What there is: of the node, and what each pod uses of it.

use std::collections::BTreeMap;

use rubelet_api::ids::PodUid;
use rubelet_api::quantity::Amount;
use rubelet_api::v1;

use super::threshold::{Level, Resource, Signal};

/// What is left of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// Bytes or pieces.
    pub available: i64,
    pub capacity: i64,
}

/// What is left, by signal; what could not be read is missing.
pub type Observations = BTreeMap<Signal, Observation>;

impl Observation {
    /// What is left, as messages write it.
    pub(super) fn shown(self, signal: Signal) -> Amount {
        match signal.resource() {
            Resource::Memory | Resource::EphemeralStorage => Amount::bytes(self.available),
            Resource::Inodes | Resource::Pids => Amount::pieces(self.available),
        }
    }

    /// Whether less is left than `level`, with `more` on top.
    pub(super) fn is_below(self, level: Level, more: Option<Level>) -> bool {
        let wanted = level.of(self.capacity);
        let wanted = more.map_or(wanted, |more| wanted.plus(more.of(self.capacity)));
        wanted > Amount::pieces(self.available)
    }
}

/// Bytes and files on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskUse {
    pub bytes: i64,
    pub inodes: i64,
}

impl std::ops::Add for DiskUse {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(rhs.bytes), inodes: self.inodes.saturating_add(rhs.inodes) }
    }
}

/// What a container uses; what could not be read is missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ContainerUse {
    pub name: String,
    /// Working set in bytes.
    pub memory: Option<i64>,
    /// Its writable layer.
    pub rootfs: Option<DiskUse>,
    pub logs: Option<DiskUse>,
}

/// What a pod uses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodUse {
    /// Working set of all of it, in bytes.
    pub memory: Option<i64>,
    /// Processes and threads.
    pub processes: Option<i64>,
    pub containers: Vec<ContainerUse>,
    /// By volume: what lies in the pod's own directories.
    pub volumes: Vec<(String, DiskUse)>,
}

/// What of a pod lies on a disk in question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Measured {
    pub(super) rootfs: bool,
    pub(super) logs: bool,
    pub(super) volumes: bool,
}

impl PodUse {
    pub(super) fn disk(&self, pod: &v1::Pod, measured: Measured) -> DiskUse {
        let of = |is_wanted: bool, one: Option<DiskUse>| {
            if is_wanted { one.unwrap_or_default() } else { DiskUse::default() }
        };
        let containers = self.containers.iter().map(|c| of(measured.rootfs, c.rootfs) + of(measured.logs, c.logs));
        let is_local = |name: &str| {
            let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
            volumes.iter().any(|v| v.name == name && is_on_disk(v))
        };
        let volumes = self.volumes.iter().filter(|(name, _)| measured.volumes && is_local(name)).map(|(_, used)| *used);
        containers.chain(volumes).fold(DiskUse::default(), std::ops::Add::add)
    }

    /// All that counts against the pod's limit of ephemeral storage.
    pub(super) fn ephemeral_bytes(&self, pod: &v1::Pod) -> i64 {
        self.disk(pod, Measured { rootfs: true, logs: true, volumes: true }).bytes
    }
}

/// kubelet 1.36: volumes that use the node's disk and end with the pod.
fn is_on_disk(volume: &v1::Volume) -> bool {
    let is_disk = |e: &v1::EmptyDirVolumeSource| e.medium.as_deref().unwrap_or_default().is_empty();
    volume.empty_dir.as_ref().is_some_and(is_disk) || volume.config_map.is_some()
}

/// A pod that runs, and what it uses if that is known.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'p> {
    pub uid: &'p PodUid,
    pub pod: &'p v1::Pod,
    pub usage: Option<&'p PodUse>,
}
