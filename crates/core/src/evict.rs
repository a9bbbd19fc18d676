//! When pods have to go to save the node, and which.
//!
//! [`threshold`] says what is too little, [`observe`] what there is, [`watch`] remembers since when too little was there and for
//! how long the node says so, [`rank`] who goes first, [`local`] who goes because it wrote more than it may.

use rubelet_api::ids::PodUid;
use rubelet_api::v1;

pub mod local;
mod message;
pub mod observe;
pub mod rank;
pub mod threshold;
pub mod watch;

pub use observe::{Candidate, ContainerUse, DiskUse, Observation, Observations, PodUse};
pub use rank::Reclaim;
pub use threshold::{Layout, Resource, Rules, Signal};
pub use watch::{Look, Shortage, Watch};

use crate::admit::Verdict;
use crate::pod::step::QosClass;
use crate::resources::qos::{is_critical, qos_class};

/// Reason of a pod that was evicted, or not let in for the same cause.
pub const REASON: &str = "Evicted";

/// kubelet 1.36: seconds that a pod gets when the node needs it gone at once.
const GRACE_SECS: i64 = 1;

/// A pod that has to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Eviction {
    pub uid: PodUid,
    pub grace_secs: i64,
    /// Message of the status and of the event.
    pub message: String,
    pub trigger: Trigger,
    /// Annotations of the event.
    pub annotations: Vec<(&'static str, String)>,
    /// Whether the pod gets the condition `DisruptionTarget`: it goes for the node's sake, not for its own deeds.
    pub is_disruption: bool,
}

/// What made the pod go, as the metric names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    Node(Signal),
    /// A volume's `sizeLimit`.
    EmptyDir,
    /// The limits of all containers together.
    Pod,
    Container,
}

impl Trigger {
    /// The value of the metric's label `eviction_signal`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node(signal) => signal.as_str(),
            Self::EmptyDir => "emptydirfs.limit",
            Self::Pod => "ephemeralpodfs.limit",
            Self::Container => "ephemeralcontainerfs.limit",
        }
    }
}

/// What the node has too little of: the conditions `MemoryPressure`, `DiskPressure`, `PIDPressure` of its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressures {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

impl Pressures {
    /// The conditions' names in upstream's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")]
            .into_iter()
            .filter_map(|(is_on, name)| is_on.then_some(name))
    }

    fn is_only_memory(self) -> bool {
        self == Self { memory: true, ..Self::default() }
    }
}

/// Says whether `pod` may begin on a node under pressure; `None` lets it.
///
/// kubelet 1.36: critical pods always may; with too little memory alone, only pods that ask for nothing and do not tolerate it
/// may not.
pub fn admit(pod: &v1::Pod, pressures: Pressures) -> Option<Verdict> {
    if pressures == Pressures::default() || is_critical(pod) {
        return None;
    }
    if pressures.is_only_memory() && (qos_class(pod) != QosClass::BestEffort || tolerates_memory_pressure(pod)) {
        return None;
    }
    let names: Vec<&str> = pressures.names().collect();
    Some(Verdict::rejected(REASON, format!("The node had condition: [{}]. ", names.join(" "))))
}

fn tolerates_memory_pressure(pod: &v1::Pod) -> bool {
    const KEY: &str = "node.kubernetes.io/memory-pressure";
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|t| {
        let has_effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoSchedule");
        let key = t.key.as_deref().unwrap_or_default();
        // The taint has no value.
        let has_value = match t.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => t.value.as_deref().unwrap_or_default().is_empty(),
            "Exists" => true,
            _ => false,
        };
        let has_key = key == KEY || key.is_empty() && t.operator.as_deref() == Some("Exists");
        has_effect && has_key && has_value
    })
}

#[cfg(test)]
mod tests;
