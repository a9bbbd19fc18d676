//! Events about a pod, in upstream's words.

use std::collections::BTreeMap;
use std::time::Duration;

use rubelet_api::v1;

use super::fact::Source;
use super::review::full_name;

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

    /// kubelet 1.36: of a pod whose name another one of its source has.
    pub fn of_double(pod: &v1::Pod, source: Source) -> Self {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "Error validating pod {} from {} due to duplicate pod name {name:?}, ignoring",
            full_name(pod),
            source.as_str()
        );
        Self::warning("", "FailedValidation", message)
    }
}

/// A duration as messages show it (`10s`, `1m20s`, `1.234s`), cut to milliseconds.
pub(super) fn shown(duration: Duration) -> String {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 1_000_000);
    rubelet_api::duration::Duration { nanos: millis.saturating_mul(1_000_000) }.to_string()
}
