//! `env` and `envFrom` of containers.

use super::{all_invalid, names, resources};
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::v1;

/// Fields of the pod that an environment variable may show.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The variables of one container.
pub(super) fn validate(container: &v1::Container, gates: Gates, path: &Path, problems: &mut Problems) {
    for (nth, variable) in container.env.iter().flatten().enumerate() {
        let path = path.field("env").index(nth);
        if variable.name.is_empty() {
            problems.required(&path.field("name"), "");
        } else {
            all_invalid(&variable.name, names::environment(&variable.name), &path.field("name"), problems);
        }
        if let Some(source) = &variable.value_from {
            let value = variable.value.as_deref().unwrap_or_default();
            value_from(source, value, gates, &path.field("valueFrom"), problems);
        }
    }
    for (nth, source) in container.env_from.iter().flatten().enumerate() {
        env_from(source, &path.field("envFrom").index(nth), problems);
    }
}

fn value_from(source: &v1::EnvVarSource, value: &str, gates: Gates, path: &Path, problems: &mut Problems) {
    let kinds = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    let count = kinds.iter().filter(|given| **given).count();
    if count == 0 {
        problems.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !value.is_empty() {
        problems.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        problems.invalid(path, "", "may not have more than one field specified at a time");
    }
    if let Some(field) = &source.field_ref {
        field_ref(field, &FIELDS, &path.field("fieldRef"), problems);
    }
    if let Some(resource) = &source.resource_field_ref {
        resources::field_ref(resource, false, &path.field("resourceFieldRef"), problems);
    }
    if let Some(key) = &source.config_map_key_ref {
        key_ref(&key.name, &key.key, &path.field("configMapKeyRef"), problems);
    }
    if let Some(key) = &source.secret_key_ref {
        key_ref(&key.name, &key.key, &path.field("secretKeyRef"), problems);
    }
    if let Some(file) = &source.file_key_ref {
        file_key(file, gates, &path.field("fileKeyRef"), problems);
    }
}

fn file_key(file: &v1::FileKeySelector, gates: Gates, path: &Path, problems: &mut Problems) {
    if !gates.env_files {
        problems.forbidden(path, "needs the feature gate EnvFiles");
    }
    if file.key.is_empty() {
        problems.required(&path.field("key"), "");
    } else {
        all_invalid(&file.key, names::environment(&file.key), &path.field("key"), problems);
    }
    if file.volume_name.is_empty() {
        problems.required(&path.field("volumeName"), "");
    }
    if file.path.is_empty() {
        problems.required(&path.field("path"), "");
    } else {
        super::mounts::local_path(&file.path, &path.field("path"), problems);
    }
}

fn key_ref(name: &str, key: &str, path: &Path, problems: &mut Problems) {
    if name.is_empty() {
        problems.required(&path.field("name"), "");
    }
    if key.is_empty() {
        problems.required(&path.field("key"), "");
    } else {
        all_invalid(key, names::config_key(key), &path.field("key"), problems);
    }
}

/// A reference to a field of the pod: one of those allowed, or one entry of the labels or annotations,
/// `metadata.labels['key']`.
pub(super) fn field_ref(field: &v1::ObjectFieldSelector, allowed: &[&str], path: &Path, problems: &mut Problems) {
    match field.api_version.as_deref().unwrap_or_default() {
        "" => problems.required(&path.field("apiVersion"), ""),
        "v1" => {}
        other => problems.unsupported(&path.field("apiVersion"), other, &["v1"]),
    }
    let selected = field.field_path.as_str();
    let path = path.field("fieldPath");
    if selected.is_empty() {
        problems.required(&path, "");
        return;
    }
    match subscript(selected) {
        Some(("metadata.labels", key)) => all_invalid(key, names::qualified(key), &path, problems),
        Some(("metadata.annotations", key)) => {
            all_invalid(key, names::qualified(&key.to_lowercase()), &path, problems);
        }
        Some((whole, _)) => problems.invalid(&path, whole, "does not support subscript"),
        None if allowed.contains(&selected) => {}
        None => problems.unsupported(&path, selected, allowed),
    }
}

/// `path['key']` in its two parts.
fn subscript(text: &str) -> Option<(&str, &str)> {
    let (path, rest) = text.split_once("['")?;
    Some((path, rest.strip_suffix("']")?))
}

fn env_from(source: &v1::EnvFromSource, path: &Path, problems: &mut Problems) {
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        all_invalid(prefix, names::environment(prefix), &path.field("prefix"), problems);
    }
    let config_map = source.config_map_ref.as_ref().map(|from| ("configMapRef", &from.name));
    let secret = source.secret_ref.as_ref().map(|from| ("secretRef", &from.name));
    for (field, name) in config_map.iter().chain(&secret) {
        if name.is_empty() {
            problems.required(&path.field(field).field("name"), "");
        }
    }
    match (config_map, secret) {
        (None, None) => problems.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        (Some(_), Some(_)) => problems.invalid(path, "", "may not have more than one field specified at a time"),
        (Some(_), None) | (None, Some(_)) => {}
    }
}
