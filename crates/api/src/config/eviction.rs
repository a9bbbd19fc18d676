//! When pods have to go to save the node.

use std::collections::BTreeMap;

use super::field::section;
use crate::duration::Duration;

section! {
    /// When pods have to go to save the node.
    Eviction as "KubeletConfiguration" {
        /// Thresholds by signal, at once.
        "evictionHard" hard: pointer Thresholds;
        /// Thresholds by signal, after a while.
        "evictionSoft" soft: plain BTreeMap<String, String>;
        /// After which while, by signal.
        "evictionSoftGracePeriod" soft_grace_period: plain BTreeMap<String, String>;
        /// How long a condition stays after its cause.
        "evictionPressureTransitionPeriod" pressure_transition_period: plain Duration = "5m0s";
        /// Most seconds that a pod gets when a soft threshold is met.
        "evictionMaxPodGracePeriod" max_pod_grace_period: plain i32;
        /// How much more than needed is reclaimed, by signal.
        "evictionMinimumReclaim" minimum_reclaim: plain BTreeMap<String, String>;
        /// Whether the default hard thresholds stand beside those that are said.
        "mergeDefaultEvictionSettings" merge_defaults: pointer bool = false;
    }
}

/// Thresholds by signal. That none are said differs from that nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Thresholds(pub BTreeMap<String, String>);

impl super::field::Field for Thresholds {
    const KIND: crate::schema::Kind = <BTreeMap<String, String> as super::field::Field>::KIND;

    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

/// What holds when a configuration file says nothing; from kubelet 1.36 on Linux.
pub(super) const DEFAULT_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];
