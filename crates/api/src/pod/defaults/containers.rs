//! Defaults inside a container.

use super::{or_number, or_text, resources};
use crate::{IntOrString, v1};

/// Fills in one container, plain or init.
pub(super) fn set_defaults(container: &mut v1::Container, host_network: bool) {
    if container.image_pull_policy.as_deref().unwrap_or_default().is_empty() {
        let image = container.image.as_deref().unwrap_or_default();
        container.image_pull_policy = Some(pull_policy(image).to_owned());
    }
    or_text(&mut container.termination_message_path, "/dev/termination-log");
    or_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        or_text(&mut port.protocol, "TCP");
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port).filter(|number| *number != 0);
        }
    }
    for variable in container.env.iter_mut().flatten() {
        if let Some(source) = &mut variable.value_from {
            environment_source(source);
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        probe_defaults(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(http) = &mut hook.http_get {
                http_defaults(http);
            }
        }
    }
    resources::set_container_defaults(container.resources.get_or_insert_default());
}

fn environment_source(source: &mut v1::EnvVarSource) {
    if let Some(field) = &mut source.field_ref {
        or_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        resources::divisor_default(resource);
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn probe_defaults(probe: &mut v1::Probe) {
    or_number(&mut probe.timeout_seconds, 1);
    or_number(&mut probe.period_seconds, 10);
    or_number(&mut probe.success_threshold, 1);
    or_number(&mut probe.failure_threshold, 3);
    if let Some(http) = &mut probe.http_get {
        http_defaults(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_defaults(http: &mut v1::HTTPGetAction) {
    or_text(&mut http.path, "/");
    or_text(&mut http.scheme, "HTTP");
    if http.port == IntOrString::default() {
        // An absent port: validation speaks of 0, which cannot be meant.
        http.port = IntOrString::Int(0);
    }
}

/// `Always` for the tag `latest`, said or implied, `IfNotPresent` for every other tag, for a digest, and for a name
/// that is no valid reference.
pub(super) fn pull_policy(image: &str) -> &'static str {
    match implied_tag(image) {
        Some("latest") => "Always",
        Some(_) | None => "IfNotPresent",
    }
}

/// The tag of an image reference, `latest` when it has neither tag nor digest; none for a digest without a tag and for
/// what is no reference.
fn implied_tag(image: &str) -> Option<&str> {
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    let last_slash = named.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match named[last_slash..].split_once(':') {
        Some((_, tag)) => (&named[..named.len() - tag.len() - 1], Some(tag)),
        None => (named, None),
    };
    let valid_tag = tag.is_none_or(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    });
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) || host != host.to_lowercase() => {
            (host, path)
        }
        Some(_) | None => ("", name),
    };
    let valid_host = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    let valid_path = path.split('/').all(valid_component);
    let valid_digest = digest.is_none_or(|digest| digest.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32));
    if !valid_tag || !valid_host || !valid_path || !valid_digest {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, None) => Some("latest"),
        (None, Some(_)) => None,
    }
}

fn valid_component(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    edge(first) && edge(last) && text.bytes().all(|b| edge(b) || b"._-".contains(&b))
}
