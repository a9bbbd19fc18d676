//! `metadata`.

use super::{all_invalid, names};
use crate::meta::ObjectMeta;
use crate::problem::{Path, Problems};
use crate::v1;

/// Most bytes that all annotations of an object may have.
const ANNOTATIONS: usize = 256 * 1024;
/// `container.apparmor.security.beta.kubernetes.io/CONTAINER`, the way before the field.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn validate(meta: &ObjectMeta, problems: &mut Problems) {
    let path = Path::root().field("metadata");
    let name = meta.name.as_deref().unwrap_or_default();
    all_invalid(name, names::subdomain(name), &path.field("name"), problems);
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    all_invalid(namespace, names::label(namespace), &path.field("namespace"), problems);
    uid(meta.uid.as_deref().unwrap_or_default(), &path.field("uid"), problems);
    for (key, value) in meta.labels.iter().flatten() {
        labels_entry(key, value, &path.field("labels"), problems);
    }
    annotations(meta, &path.field("annotations"), problems);
    for (nth, owner) in meta.owner_references.iter().flatten().enumerate() {
        let path = path.field("ownerReferences").index(nth);
        let parts =
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)];
        for (field, value) in parts {
            if value.is_empty() {
                problems.invalid(&path.field(field), value, "must not be empty");
            }
        }
    }
    for (nth, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        all_invalid(finalizer, names::qualified(finalizer), &path.field("finalizers").index(nth), problems);
    }
}

/// A key and a value as labels have them.
pub(super) fn labels_entry(key: &str, value: &str, path: &Path, problems: &mut Problems) {
    let before = problems.count();
    all_invalid(key, names::qualified(key), path, problems);
    all_invalid(value, names::label_value(value), path, problems);
    problems.point_at(before, &path.key(key));
}

/// The UID becomes a directory's name.
fn uid(uid: &str, path: &Path, problems: &mut Problems) {
    const LONGEST: usize = 128;
    let plain = uid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !plain || uid.starts_with('.') || uid.len() > LONGEST {
        problems.invalid(
            path,
            uid,
            "names the pod's directory: must be at most 128 letters, digits, '-', '_' or '.', and not start with '.' \
             (leave it out to have one made)",
        );
    }
}

fn annotations(meta: &ObjectMeta, path: &Path, problems: &mut Problems) {
    let mut size = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        size += key.len() + value.len();
        let before = problems.count();
        all_invalid(key, names::qualified(&key.to_lowercase()), path, problems);
        problems.point_at(before, &path.key(key));
    }
    if size > ANNOTATIONS {
        problems.too_long(path, ANNOTATIONS);
    }
}

/// The AppArmor annotations name containers of the pod and profiles that exist as kinds.
pub(super) fn apparmor_annotations(meta: &ObjectMeta, spec: &v1::PodSpec, problems: &mut Problems) {
    let path = Path::root().field("metadata").field("annotations");
    let containers: std::collections::BTreeSet<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| container.name.as_str())
        .collect();
    for (key, profile) in meta.annotations.iter().flatten() {
        let Some(container) = key.strip_prefix(APPARMOR) else { continue };
        let path = path.key(key);
        if !containers.contains(container) {
            problems.invalid(&path, container, "container not found");
        }
        let known = profile.is_empty()
            || profile == "runtime/default"
            || profile == "unconfined"
            || profile.starts_with("localhost/");
        if !known {
            problems.invalid(&path, profile, "invalid AppArmor profile name");
        }
    }
}
