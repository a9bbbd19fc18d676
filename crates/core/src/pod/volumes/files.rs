//! Volumes that consist of files which are written here: configMap, secret, downwardAPI, projected.

use std::collections::BTreeMap;

use rubelet_api::gather::{Gather, TryGather};
use rubelet_api::v1;

use super::{DEFAULT_MODE, View, mode};
use crate::pod::certificate::CertificateNeed;
use crate::pod::needs::{self, Lack, ObjectName};
use crate::pod::step::{FilesPlugin, VolumeFile, VolumeKind};
use crate::render::{self, RenderError, downward};

/// Files by their paths: a later one replaces an earlier one.
type Files = BTreeMap<String, VolumeFile>;

pub(super) fn config_map(view: &View<'_>, source: &v1::ConfigMapVolumeSource) -> Result<VolumeKind, RenderError> {
    let default_mode = mode(source.default_mode, DEFAULT_MODE);
    let files = map_files(view, &source.name, source.items.as_deref(), source.optional, default_mode)?;
    Ok(written(FilesPlugin::ConfigMap, files, default_mode))
}

pub(super) fn secret(view: &View<'_>, source: &v1::SecretVolumeSource) -> Result<VolumeKind, RenderError> {
    let default_mode = mode(source.default_mode, DEFAULT_MODE);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let files = secret_files(view, name, source.items.as_deref(), source.optional, default_mode)?;
    Ok(written(FilesPlugin::Secret, files, default_mode))
}

pub(super) fn downward_api(view: &View<'_>, source: &v1::DownwardAPIVolumeSource) -> Result<VolumeKind, RenderError> {
    let default_mode = mode(source.default_mode, DEFAULT_MODE);
    let files = downward_files(view, source.items.as_deref(), default_mode)?;
    Ok(written(FilesPlugin::DownwardApi, files, default_mode))
}

/// All sources are tried; their errors are told together.
pub(super) fn projected(
    view: &View<'_>,
    volume: &str,
    source: &v1::ProjectedVolumeSource,
) -> Result<VolumeKind, RenderError> {
    let default_mode = mode(source.default_mode, DEFAULT_MODE);
    let mut files = Files::new();
    let mut errors = Vec::new();
    for (nth, projection) in source.sources.iter().flatten().enumerate() {
        match projected_files(view, (volume, nth), projection, default_mode) {
            Ok(found) => files.extend(found),
            Err(error) => errors.push(error.message),
        }
    }
    match errors.as_slice() {
        [] => Ok(written(FilesPlugin::Projected, files, default_mode)),
        [one] => Err(refusal(one.clone())),
        many => Err(refusal(format!("[{}]", many.join(", ")))),
    }
}

fn written(plugin: FilesPlugin, files: Files, default_mode: u32) -> VolumeKind {
    VolumeKind::Files { plugin, files: files.into_values().collect(), default_mode }
}

/// `place`: the volume, and which of its sources this is.
fn projected_files(
    view: &View<'_>,
    place: (&str, usize),
    source: &v1::VolumeProjection,
    default_mode: u32,
) -> Result<Files, RenderError> {
    if let Some(map) = &source.config_map {
        map_files(view, &map.name, map.items.as_deref(), map.optional, default_mode)
    } else if let Some(secret) = &source.secret {
        secret_files(view, &secret.name, secret.items.as_deref(), secret.optional, default_mode)
    } else if let Some(downward) = &source.downward_api {
        downward_files(view, downward.items.as_deref(), default_mode)
    } else if let Some(token) = &source.service_account_token {
        let text = view.inputs.token(needs::token_need(view.pod, token));
        let text = text.map_err(|lack| lacking(lack, "the serviceAccountToken source of a projected volume"))?;
        Ok(private_file(view, &token.path, &text.text, default_mode))
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        trust_anchors(view, bundle, default_mode)
    } else if let Some(certificate) = &source.pod_certificate {
        pod_certificate(view, place, certificate, default_mode)
    } else {
        Err(refusal("a source of the projected volume is empty"))
    }
}

fn trust_anchors(
    view: &View<'_>,
    source: &v1::ClusterTrustBundleProjection,
    default_mode: u32,
) -> Result<Files, RenderError> {
    if view.inputs.is_open() && !view.node.settings.gates.cluster_trust_bundle_projection {
        return Err(refusal("ClusterTrustBundle projection is not supported in static kubelet mode"));
    }
    let Some(need) = needs::anchors_need(source) else {
        return Err(refusal("ClusterTrustBundle projection requires either name or signerName to be set"));
    };
    let text = match view.inputs.trust_anchors(need) {
        Ok(text) => text,
        Err(Lack::NotFound(_)) if source.optional == Some(true) => "",
        Err(lack) => return Err(lacking(lack, "the clusterTrustBundle source of a projected volume")),
    };
    Ok(private_file(view, &source.path, text, default_mode))
}

fn pod_certificate(
    view: &View<'_>,
    (volume, nth): (&str, usize),
    source: &v1::PodCertificateProjection,
    default_mode: u32,
) -> Result<Files, RenderError> {
    if view.inputs.is_open() && !view.node.settings.gates.pod_certificate_request {
        // kubelet 1.36: the first word is all that it says.
        return Err(refusal("unimplemented: podCertificate needs the feature gate PodCertificateRequest"));
    }
    let issued = view.inputs.certificate(CertificateNeed::of(view.pod, volume, nth, source));
    let issued = issued.map_err(|lack| lacking(lack, "the podCertificate source of a projected volume"))?;
    let bundle = format!("{}{}", issued.key, issued.chain);
    let files = [
        (&source.credential_bundle_path, bundle.as_str()),
        (&source.key_path, &*issued.key),
        (&source.certificate_chain_path, issued.chain.as_str()),
    ];
    let named = files.into_iter().filter_map(|(path, text)| Some((path.as_deref().filter(|p| !p.is_empty())?, text)));
    Ok(named.flat_map(|(path, text)| private_file(view, path, text, default_mode)).into_map())
}

/// kubelet 1.36: with an fsGroup, or with one user for all containers, nobody else reads it, and it is that user's.
fn private_file(view: &View<'_>, path: &str, text: &str, default_mode: u32) -> Files {
    let owner = fs_user(view.pod);
    let has_group = view.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group).is_some();
    let mode = if owner.is_some() || has_group { 0o600 } else { default_mode };
    let path = clean(path);
    Files::from([(path.clone(), VolumeFile { path, content: text.as_bytes().to_vec(), mode, owner })])
}

/// The user of all containers: none when one names no user, or when two differ.
fn fs_user(pod: &v1::Pod) -> Option<i64> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.run_as_user);
    let guests = render::ephemeral(pod);
    let mut users = render::containers(pod)
        .chain(&guests)
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

fn map_files(
    view: &View<'_>,
    name: &str,
    items: Option<&[v1::KeyToPath]>,
    optional: Option<bool>,
    default_mode: u32,
) -> Result<Files, RenderError> {
    let map = match view.inputs.config_map(ObjectName::beside(view.pod, name)) {
        Ok(map) => Some(map),
        Err(Lack::NotFound(_)) if optional == Some(true) => None,
        Err(lack) => return Err(lacking(lack, "a configMap volume")),
    };
    let text = map.and_then(|m| m.data.as_ref()).into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.and_then(|m| m.binary_data.as_ref()).into_iter().flatten();
    let mut values: BTreeMap<&str, &[u8]> = binary.map(|(k, v)| (k.as_str(), v.0.as_slice())).into_map();
    values.extend(text);
    key_files(&values, items, optional, default_mode, "configmap references non-existent config key")
}

fn secret_files(
    view: &View<'_>,
    name: &str,
    items: Option<&[v1::KeyToPath]>,
    optional: Option<bool>,
    default_mode: u32,
) -> Result<Files, RenderError> {
    let secret = match view.inputs.secret(ObjectName::beside(view.pod, name)) {
        Ok(secret) => Some(secret),
        Err(Lack::NotFound(_)) if optional == Some(true) => None,
        Err(lack) => return Err(lacking(lack, "a secret volume")),
    };
    let values = secret.and_then(|s| s.data.as_ref()).into_iter().flatten();
    let values = values.map(|(k, v)| (k.as_str(), v.0.as_slice())).into_map();
    key_files(&values, items, optional, default_mode, "references non-existent secret key")
}

/// All values under their keys, or the chosen ones under their paths.
fn key_files(
    values: &BTreeMap<&str, &[u8]>,
    items: Option<&[v1::KeyToPath]>,
    optional: Option<bool>,
    default_mode: u32,
    missing: &str,
) -> Result<Files, RenderError> {
    let file = |path: String, content: &[u8], mode: u32| {
        (path.clone(), VolumeFile { path, content: content.to_vec(), mode, owner: None })
    };
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return Ok(values.iter().map(|(key, content)| file((*key).to_owned(), content, default_mode)).into_map());
    }
    let mut files = Files::new();
    for item in items {
        match values.get(item.key.as_str()) {
            Some(content) => files.extend([file(clean(&item.path), content, mode(item.mode, default_mode))]),
            None if optional == Some(true) => {}
            None => return Err(refusal(format!("{missing}: {}", item.key))),
        }
    }
    Ok(files)
}

fn downward_files(
    view: &View<'_>,
    items: Option<&[v1::DownwardAPIVolumeFile]>,
    default_mode: u32,
) -> Result<Files, RenderError> {
    let one = |item: &v1::DownwardAPIVolumeFile| {
        let content = if let Some(field) = &item.field_ref {
            downward::field(view.pod, view.node, view.pod_ips, &field.field_path)?
        } else if let Some(resource) = &item.resource_field_ref {
            downward::resource(view.pod, view.node, None, resource)?
        } else {
            String::new()
        };
        let (path, mode) = (clean(&item.path), mode(item.mode, default_mode));
        Ok((path.clone(), VolumeFile { path, content: content.into_bytes(), mode, owner: None }))
    };
    items.unwrap_or_default().iter().map(one).try_into_map()
}

fn lacking(lack: Lack, what: &str) -> RenderError {
    refusal(match lack {
        Lack::NoServer => format!("{what} needs an API server, no kubeClient defined"),
        Lack::NotYet => format!("{what} refers to an object that has not been fetched yet"),
        Lack::NotFound(text) | Lack::Failed(text) => text,
    })
}

fn refusal(message: impl Into<String>) -> RenderError {
    RenderError { reason: "FailedMount", message: message.into() }
}

/// Without doubled slashes and `.` parts. Validation refused `..` and absolute paths before; a path with them stays as it is, for
/// the writer to refuse.
fn clean(path: &str) -> String {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return path.to_owned();
    }
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}
