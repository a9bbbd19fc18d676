//! Who a static pod is: its name on this node, its UID, and the annotations that say where it came from.

use jiff::Timestamp;
use serde_json::Value;

use super::canonical::{Digest, canonical_json};
use crate::v1;

/// Where a manifest came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A file in the static pod directory, or the one static pod file.
    File,
    /// The static pod URL.
    Http,
}

impl Source {
    /// The value of the annotation `kubernetes.io/config.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
        }
    }
}

/// A manifest's origin: it is part of the pod's UID and stands at the head of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File or URL.
    pub source: Source,
    /// Full path of the file, or the URL.
    pub path_or_url: String,
    /// The node's name as registered; appended to the pod's name in lower case.
    pub node_name: String,
}

/// The UID, or the hash it was made from.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// When the manifest was read.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// `file`, `http` or `api`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// On mirror pods only: the hash of the static pod they show.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The fingerprint of a manifest alone, wherever it lies: equal for manifests that differ only in comments, layout,
/// order of fields, fields that no pod has, and the writing of quantities.
pub fn manifest_digest(manifest: &Value) -> Digest {
    Digest::empty().and(canonical_json(manifest).as_bytes())
}

/// The UID of a static pod without one: 32 hex digits from the manifest as written (before defaults, so that new
/// defaults leave it alone), the node and the origin.
///
/// kubelet 1.36: the same ingredients, but its digest runs over its own in-memory structure, whose layout changes
/// with every minor version. The UIDs therefore differ from ours (and between its own versions), and every static pod
/// restarts once when one kubelet replaces the other.
pub fn static_pod_uid(manifest: &Value, origin: &Origin) -> Digest {
    let kind = match origin.source {
        Source::File => "file",
        Source::Http => "url",
    };
    manifest_digest(manifest)
        .and(format!("host:{}", origin.node_name).as_bytes())
        .and(format!("{kind}:{}", origin.path_or_url).as_bytes())
}

/// The name that a static pod has in the cluster: `name-node`, the node in lower case.
pub fn static_pod_name(name: &str, node_name: &str) -> String {
    format!("{name}-{}", node_name.to_lowercase())
}

/// A time as `kubernetes.io/config.seen` has it: RFC 3339 in UTC with all nine digits of the nanoseconds.
pub(super) fn seen(now: Timestamp) -> String {
    format!("{now:.9}")
}

/// Makes a decoded manifest this node's pod.
///
/// kubelet 1.36: the name gets the node's, the namespace defaults to `default`, the pod is bound to the node, hash,
/// time and source go into annotations, and a pod from a file tolerates every `NoExecute` taint; one from a URL not.
pub(super) fn give_identity(pod: &mut v1::Pod, manifest: &Value, origin: &Origin, now: Timestamp) {
    let meta = &mut pod.metadata;
    let uid = match meta.uid.take().filter(|uid| !uid.is_empty()) {
        Some(given) => given,
        None => static_pod_uid(manifest, origin).to_string(),
    };
    let name = static_pod_name(meta.name.as_deref().unwrap_or_default(), &origin.node_name);
    meta.name = Some(name);
    if meta.namespace.as_deref().unwrap_or_default().is_empty() {
        meta.namespace = Some("default".to_owned());
    }
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.to_owned(), uid.clone());
    annotations.insert(CONFIG_SEEN.to_owned(), seen(now));
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.source.as_str().to_owned());
    meta.uid = Some(uid);

    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(origin.node_name.clone());
    if origin.source == Source::File {
        tolerate_everything(spec);
    }
    pod.status = Some(v1::PodStatus { phase: Some("Pending".to_owned()), ..Default::default() });
}

fn tolerate_everything(spec: &mut v1::PodSpec) {
    let all = v1::Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Default::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
}
