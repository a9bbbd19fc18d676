//! Probes and HTTP hooks with everything resolved.

use std::net::IpAddr;

use rubelet_api::{IntOrString, v1};

use super::expand::expand;
use super::full_name;
use crate::pod::step::{ProbeHow, ProbeKind};

/// Who asks, as servers see it in their logs.
const PROBE_AGENT: &str = "kube-probe/1.36";
const HOOK_AGENT: &str = "kube-lifecycle/1.36";

/// How to make one probe. Named ports are looked up, the host is the pod's unless the probe names one.
///
/// `pod_ips` are the pod's addresses, in the host's network the node's. kubelet 1.36: commands see only variables with a literal
/// value.
pub fn probe_how(
    pod: &v1::Pod,
    container: &v1::Container,
    probe: &v1::Probe,
    kind: ProbeKind,
    pod_ips: &[IpAddr],
) -> ProbeHow {
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        ProbeHow::Exec { command: command.iter().map(|word| expand(word, |name| literal(container, name))).collect() }
    } else if let Some(get) = &probe.http_get {
        http(container, get, PROBE_AGENT, pod_ips)
    } else if let Some(socket) = &probe.tcp_socket {
        match port(container, &socket.port) {
            Ok(port) => ProbeHow::Tcp { host: host(socket.host.as_deref(), pod_ips), port },
            Err(message) => ProbeHow::Invalid { message },
        }
    } else if let Some(grpc) = &probe.grpc {
        match u16::try_from(grpc.port) {
            Ok(port) if port > 0 => {
                ProbeHow::Grpc { host: host(None, pod_ips), port, service: grpc.service.clone().unwrap_or_default() }
            }
            _ => ProbeHow::Invalid { message: format!("invalid port number: {}", grpc.port) },
        }
    } else {
        let kind = match kind {
            ProbeKind::Startup => "startup",
            ProbeKind::Readiness => "readiness",
            ProbeKind::Liveness => "liveness",
        };
        let whose = format!("{}:{}", full_name(pod), container.name);
        ProbeHow::Invalid { message: format!("missing probe handler for {whose} ({kind} probe)") }
    }
}

/// How to make the request of an `httpGet` hook: [`ProbeHow::Http`] or [`ProbeHow::Invalid`].
pub fn hook_how(container: &v1::Container, get: &v1::HTTPGetAction, pod_ips: &[IpAddr]) -> ProbeHow {
    http(container, get, HOOK_AGENT, pod_ips)
}

fn http(container: &v1::Container, get: &v1::HTTPGetAction, agent: &str, pod_ips: &[IpAddr]) -> ProbeHow {
    let port = match port(container, &get.port) {
        Ok(port) => port,
        Err(message) => return ProbeHow::Invalid { message },
    };
    let path = get.path.as_deref().unwrap_or_default();
    ProbeHow::Http {
        scheme_https: get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("HTTPS")),
        host: host(get.host.as_deref(), pod_ips),
        port,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: headers(get, agent),
    }
}

/// The request's headers. kubelet 1.36: `User-Agent` and `Accept: */*` unless the pod sets them; set to nothing they are not sent.
fn headers(get: &v1::HTTPGetAction, agent: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> =
        get.http_headers.iter().flatten().map(|h| (canonical(&h.name), h.value.clone())).collect();
    for (name, value) in [("User-Agent", agent), ("Accept", "*/*")] {
        match headers.iter().find(|(n, _)| n == name) {
            None => headers.push((name.to_owned(), value.to_owned())),
            Some((_, set)) if set.is_empty() => headers.retain(|(n, _)| n != name),
            Some(_) => {}
        }
    }
    headers
}

/// A header's name as Go writes it: a capital at the start and after each dash.
fn canonical(name: &str) -> String {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return name.to_owned();
    }
    let mut starts_word = true;
    name.chars()
        .map(|c| {
            let written = if starts_word { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            starts_word = c == '-';
            written
        })
        .collect()
}

fn host(wanted: Option<&str>, pod_ips: &[IpAddr]) -> String {
    match wanted {
        None | Some("") => pod_ips.first().map(ToString::to_string).unwrap_or_default(),
        Some(host) => host.to_owned(),
    }
}

/// A port number, by itself or by the name of one of the container's ports.
fn port(container: &v1::Container, wanted: &IntOrString) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match (named, name.parse()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port: {name:?}")),
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// The value of a variable that the container sets literally.
fn literal(container: &v1::Container, name: &str) -> Option<String> {
    container.env.iter().flatten().rev().find(|v| v.name == name).map(|v| v.value.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;
