//! Kubernetes events: logged, in upstream's line. There is no API server to send them to yet.

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_core::pod::PodEvent;

/// Tells of an event about the node.
pub(crate) fn tell_of_node(name: &str, type_: &'static str, reason: &str, message: &str) {
    tracing::info!(
        target: "event",
        object = %name,
        fieldPath = %"",
        kind = "Node",
        apiVersion = "v1",
        r#type = %type_,
        reason = %reason,
        message = %message,
        "Event occurred"
    );
}

/// Tells of an event about a pod.
///
/// Kubelet 1.36: standalone, events are seen at `--v` ≥ 3 only, in exactly this line.
pub(crate) fn tell(key: &PodKey, uid: &PodUid, event: &PodEvent) {
    tracing::trace!(pod = %key, %uid, reason = %event.reason, "event");
    tracing::info!(
        target: "event",
        object = %key,
        fieldPath = %event.field_path,
        kind = "Pod",
        apiVersion = "v1",
        r#type = %event.type_,
        reason = %event.reason,
        message = %event.message,
        "Event occurred"
    );
}
