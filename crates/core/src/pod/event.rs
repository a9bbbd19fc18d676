//! Events about a pod, in upstream's words.

use std::collections::BTreeMap;
use std::time::Duration;

/// One event to tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodEvent {
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    pub reason: String,
    /// `spec.containers{name}` and the like; empty when it is about the pod.
    pub field_path: String,
    pub message: String,
    pub annotations: BTreeMap<String, String>,
}

impl PodEvent {
    pub(super) fn normal(field_path: impl Into<String>, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_: "Normal",
            reason: reason.to_owned(),
            field_path: field_path.into(),
            message: message.into(),
            annotations: BTreeMap::new(),
        }
    }

    pub(super) fn warning(field_path: impl Into<String>, reason: &str, message: impl Into<String>) -> Self {
        Self { type_: "Warning", ..Self::normal(field_path, reason, message) }
    }
}

/// A duration as messages show it (`10s`, `1m20s`, `1.234s`), cut to milliseconds.
pub(super) fn shown(duration: Duration) -> String {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 1_000_000);
    rubelet_api::duration::Duration { nanos: millis.saturating_mul(1_000_000) }.to_string()
}
