//! Mirror pods: what the API server shows of a static pod.

use rubelet_api::meta::{ObjectMeta, OwnerReference};
use rubelet_api::pod::{CONFIG_HASH, CONFIG_MIRROR};
use rubelet_api::v1;

/// The UID of the static pod that an object shows; `None` for the API server's own pods.
pub fn shows(object: &v1::Pod) -> Option<&str> {
    object.metadata.annotations.as_ref()?.get(CONFIG_MIRROR).map(String::as_str)
}

/// What a static pod is known by: its config hash, which is its UID.
pub fn hash(pod: &v1::Pod) -> Option<&str> {
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_HASH));
    annotated.or(pod.metadata.uid.as_ref()).map(String::as_str)
}

/// The object that shows a static pod on the node of this name and UID. kubelet 1.36: a copy that is marked and belongs to the node.
pub fn object(pod: &v1::Pod, node_name: &str, node_uid: &str) -> v1::Pod {
    let ObjectMeta { name, namespace, labels, annotations, finalizers, .. } = pod.metadata.clone();
    let mut annotations = annotations.unwrap_or_default();
    annotations.insert(CONFIG_MIRROR.to_owned(), hash(pod).unwrap_or_default().to_owned());
    let node = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let metadata = ObjectMeta {
        name,
        namespace,
        labels,
        finalizers,
        annotations: Some(annotations),
        owner_references: Some(vec![node]),
        ..ObjectMeta::default()
    };
    v1::Pod { metadata, spec: pod.spec.clone(), status: None }
}
