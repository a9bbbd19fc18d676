//! Files that volumes make from objects and from the pod: projected, downward API, ConfigMap and Secret volumes.

use std::collections::BTreeSet;

use super::mounts::local_path;
use super::{environment, resources};
use crate::problem::{Path, Problems};
use crate::v1;

/// Fields of the pod that a file may show.
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// A file's mode.
pub(super) fn mode(mode: Option<i32>, path: &Path, problems: &mut Problems) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        problems.invalid(path, &mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// A file's path inside its volume.
fn file_path(text: &str, path: &Path, problems: &mut Problems) {
    if text.is_empty() {
        problems.required(path, "");
        return;
    }
    local_path(text, path, problems);
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        problems.invalid(path, text, "must not start with '..'");
    }
}

/// Keys of an object and the files they become.
pub(super) fn items(items: Option<&[v1::KeyToPath]>, path: &Path, problems: &mut Problems) {
    for (nth, item) in items.unwrap_or_default().iter().enumerate() {
        let path = path.index(nth);
        if item.key.is_empty() {
            problems.required(&path.field("key"), "");
        }
        file_path(&item.path, &path.field("path"), problems);
        mode(item.mode, &path.field("mode"), problems);
    }
}

/// A file that shows a field of the pod.
pub(super) fn downward_file(file: &v1::DownwardAPIVolumeFile, path: &Path, problems: &mut Problems) {
    file_path(&file.path, &path.field("path"), problems);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            environment::field_ref(field, &FIELDS, &path.field("fieldRef"), problems);
            if resource.is_some() {
                problems.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => {
            resources::field_ref(resource, true, &path.field("resourceFieldRef"), problems);
        }
        (None, None) => problems.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, &path.field("mode"), problems);
}

/// A projected volume.
pub(super) fn validate(source: &v1::ProjectedVolumeSource, path: &Path, problems: &mut Problems) {
    mode(source.default_mode, &path.field("defaultMode"), problems);
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (nth, projection) in source.sources.iter().flatten().enumerate() {
        let path = path.field("sources").index(nth);
        one_source(projection, &path, problems);
        for (file, file_path) in files(projection, &path) {
            if !file.is_empty() && !taken.insert(file) {
                problems.invalid(&file_path, file, "conflicting duplicate paths");
            }
        }
        contents(projection, &path, problems);
    }
}

fn one_source(projection: &v1::VolumeProjection, path: &Path, problems: &mut Problems) {
    let all = [
        ("secret", projection.secret.is_some()),
        ("configMap", projection.config_map.is_some()),
        ("downwardAPI", projection.downward_api.is_some()),
        ("serviceAccountToken", projection.service_account_token.is_some()),
        ("clusterTrustBundle", projection.cluster_trust_bundle.is_some()),
        ("podCertificate", projection.pod_certificate.is_some()),
    ];
    let mut given = all.iter().filter(|(_, given)| *given).map(|(field, _)| *field);
    if given.next().is_none() {
        problems.required(path, "must specify a volume type");
    }
    for further in given {
        problems.forbidden(&path.field(further), "may not specify more than 1 volume type per source");
    }
}

/// The files that one source makes by name, with the fields that say so.
fn files<'a>(projection: &'a v1::VolumeProjection, path: &Path) -> Vec<(&'a str, Path)> {
    let mut files = Vec::new();
    let keyed = [
        ("secret", projection.secret.as_ref().and_then(|secret| secret.items.as_deref())),
        ("configMap", projection.config_map.as_ref().and_then(|config_map| config_map.items.as_deref())),
    ];
    for (field, items) in keyed {
        for (nth, item) in items.unwrap_or_default().iter().enumerate() {
            files.push((item.path.as_str(), path.field(field).field("items").index(nth).field("path")));
        }
    }
    let downward = projection.downward_api.iter().flat_map(|source| source.items.iter().flatten());
    for (nth, item) in downward.enumerate() {
        files.push((item.path.as_str(), path.at("downwardAPI.items").index(nth).field("path")));
    }
    if let Some(token) = &projection.service_account_token {
        files.push((token.path.as_str(), path.at("serviceAccountToken.path")));
    }
    if let Some(bundle) = &projection.cluster_trust_bundle {
        files.push((bundle.path.as_str(), path.at("clusterTrustBundle.path")));
    }
    files
}

fn contents(projection: &v1::VolumeProjection, path: &Path, problems: &mut Problems) {
    if let Some(secret) = &projection.secret {
        let path = path.field("secret");
        if secret.name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        items(secret.items.as_deref(), &path.field("items"), problems);
    }
    if let Some(config_map) = &projection.config_map {
        let path = path.field("configMap");
        if config_map.name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        items(config_map.items.as_deref(), &path.field("items"), problems);
    }
    let downward = projection.downward_api.iter().flat_map(|source| source.items.iter().flatten());
    for (nth, file) in downward.enumerate() {
        downward_file(file, &path.at("downwardAPI.items").index(nth), problems);
    }
    if let Some(token) = &projection.service_account_token {
        let path = path.field("serviceAccountToken");
        file_path(&token.path, &path.field("path"), problems);
        if let Some(seconds) = token.expiration_seconds {
            let path = path.field("expirationSeconds");
            if seconds < 600 {
                problems.invalid(&path, &seconds, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                problems.invalid(&path, &seconds, "may not specify a duration larger than 2^32 seconds");
            }
        }
    }
    if let Some(bundle) = &projection.cluster_trust_bundle {
        file_path(&bundle.path, &path.at("clusterTrustBundle.path"), problems);
    }
}
