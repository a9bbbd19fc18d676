//! What is too little: signals, and how low each may fall.

use std::collections::BTreeMap;
use std::time::Duration;

use rubelet_api::config::Eviction;
use rubelet_api::quantity::Amount;

use super::Pressures;

/// Something that the node can run out of. The order is that in which shortages are looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Signal {
    MemoryAvailable,
    /// Memory below the cgroup of all pods.
    AllocatableMemoryAvailable,
    ContainerFsAvailable,
    ContainerFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    NodeFsAvailable,
    NodeFsInodesFree,
    PidAvailable,
}

/// What a signal is about, as messages name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

impl Resource {
    /// The name in messages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

impl Signal {
    const ALL: [Self; 9] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::ContainerFsAvailable,
        Self::ContainerFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::PidAvailable,
    ];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::ContainerFsAvailable => "containerfs.available",
            Self::ContainerFsInodesFree => "containerfs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }

    /// What runs out.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::ContainerFsAvailable | Self::ImageFsAvailable | Self::NodeFsAvailable => Resource::EphemeralStorage,
            Self::ContainerFsInodesFree | Self::ImageFsInodesFree | Self::NodeFsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }

    /// The condition that it brings about.
    pub fn pressure(self) -> Pressures {
        match self.resource() {
            Resource::Memory => Pressures { memory: true, ..Pressures::default() },
            Resource::EphemeralStorage | Resource::Inodes => Pressures { disk: true, ..Pressures::default() },
            Resource::Pids => Pressures { pids: true, ..Pressures::default() },
        }
    }
}

/// An amount, or a share of the capacity.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Level {
    Amount(Amount),
    /// 1 is the whole capacity.
    Share(f32),
}

impl Level {
    /// kubelet 1.36: a share is cut to whole units and always written with `Ki`, `Mi` ….
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "as upstream computes it, in float64 and cut"
    )]
    pub(super) fn of(self, capacity: i64) -> Amount {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(share) => Amount::bytes((capacity as f64 * f64::from(share)) as i64),
        }
    }

    /// `None`: not a number.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => Some(Self::Share(percent.trim_end_matches('%').parse::<f32>().ok()? / 100.0)),
            None => Amount::parse(text).ok().map(Self::Amount),
        }
    }
}

/// How low a signal may fall.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Threshold {
    pub signal: Signal,
    pub level: Level,
    /// How long it may stay below; zero is a hard threshold.
    pub grace: Duration,
    /// How much more than the level must be there again for it to be over.
    pub reclaim: Option<Level>,
}

impl Threshold {
    /// Pods go at once.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    /// The level in whole units of this capacity.
    pub fn bytes_of(&self, capacity: i64) -> i64 {
        self.level.of(capacity).units()
    }
}

/// Where images and writable layers lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// With everything else.
    Single,
    /// Both on a file system of their own.
    ImageFs,
    /// Only images are; writable layers lie with everything else.
    Split,
}

/// What holds as the configuration says it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules {
    pub thresholds: Vec<Threshold>,
    /// How long a condition stays after its cause.
    pub transition: Duration,
    /// Most seconds that a pod gets when a soft threshold is met; negative: its own grace.
    pub grace_secs_max: i64,
    /// `localStorageCapacityIsolation`.
    pub local_storage: bool,
    /// Gate `PodLevelResources`.
    pub pod_level: bool,
}

/// How long a condition stays when the configuration says zero. kubelet 1.36.
const TRANSITION: Duration = Duration::from_secs(300);

impl Rules {
    /// From a configuration that was checked. `holds_pods`: `enforceNodeAllocatable` has `pods`, whose cgroup is then watched
    /// like the node's memory.
    ///
    /// # Errors
    /// What is no threshold, in words; a checked configuration has none.
    pub fn of(config: &Eviction, holds_pods: bool) -> Result<Self, String> {
        let mut thresholds = Vec::new();
        for (name, text) in &config.hard.0 {
            thresholds.extend(threshold(config, name, text, Duration::ZERO)?);
        }
        for (name, text) in &config.soft {
            let grace: Option<rubelet_api::duration::Duration> =
                config.soft_grace_period.get(name).and_then(|text| text.parse().ok());
            let grace = grace
                .ok_or_else(|| format!("grace period must be specified for the soft eviction threshold {name}"))?;
            thresholds.extend(threshold(config, name, text, grace.to_std())?);
        }
        if holds_pods {
            let of_memory = |t: &&Threshold| t.signal == Signal::MemoryAvailable && t.is_hard();
            let copies: Vec<Threshold> = thresholds.iter().filter(of_memory).copied().collect();
            let copies = copies.into_iter().map(|t| Threshold { signal: Signal::AllocatableMemoryAvailable, ..t });
            thresholds.extend(copies);
        }
        let transition = config.pressure_transition_period.to_std();
        Ok(Self {
            thresholds,
            transition: if transition.is_zero() { TRANSITION } else { transition },
            grace_secs_max: i64::from(config.max_pod_grace_period),
            local_storage: false,
            pod_level: true,
        })
    }

    /// With the thresholds of the file system of writable layers, which no user sets: they are those of the file system that
    /// has them. kubelet 1.36.
    #[must_use]
    pub fn on(mut self, layout: Layout) -> Self {
        let is_container_fs = |s| matches!(s, Signal::ContainerFsAvailable | Signal::ContainerFsInodesFree);
        self.thresholds.retain(|t| !is_container_fs(t.signal));
        let copy = |t: &Threshold| {
            let signal = match (layout, t.signal) {
                (Layout::Single | Layout::Split, Signal::NodeFsAvailable)
                | (Layout::ImageFs, Signal::ImageFsAvailable) => Signal::ContainerFsAvailable,
                (Layout::Single | Layout::Split, Signal::NodeFsInodesFree)
                | (Layout::ImageFs, Signal::ImageFsInodesFree) => Signal::ContainerFsInodesFree,
                _ => return None,
            };
            Some(Threshold { signal, ..*t })
        };
        let copies: Vec<Threshold> = self.thresholds.iter().filter_map(copy).collect();
        self.thresholds.extend(copies);
        self
    }

    /// Whether the configuration sets what no user may set.
    pub fn sets_container_fs(&self) -> bool {
        let is_container_fs = |s| matches!(s, Signal::ContainerFsAvailable | Signal::ContainerFsInodesFree);
        self.thresholds.iter().any(|t| is_container_fs(t.signal))
    }
}

/// kubelet 1.36: `0%` and `100%` set nothing.
fn threshold(config: &Eviction, name: &str, text: &str, grace: Duration) -> Result<Option<Threshold>, String> {
    let signal = Signal::parse(name).ok_or_else(|| format!("unsupported eviction signal {name}"))?;
    if matches!(text, "0%" | "100%") {
        return Ok(None);
    }
    let level =
        |text: &str| Level::parse(text).ok_or_else(|| format!("eviction threshold {name} is no amount: {text}"));
    let reclaim = minimum_reclaim(&config.minimum_reclaim, name).map(level).transpose()?;
    Ok(Some(Threshold { signal, level: level(text)?, grace, reclaim }))
}

fn minimum_reclaim<'c>(all: &'c BTreeMap<String, String>, name: &str) -> Option<&'c str> {
    all.get(name).map(String::as_str)
}
