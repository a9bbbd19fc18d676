//! What containers may learn of their own pod: fields and amounts.

use std::fmt::Write as _;
use std::net::IpAddr;

use rubelet_api::v1;

use super::{RenderError, containers, effective_ips, name, namespace, uid};
use crate::node::NodeFacts;
use crate::resources::amount::Amount;
use crate::resources::sum::{Amounts, Side, amounts, get};

/// The value of a field such as `metadata.name`, `metadata.labels['app']` or `status.podIP`.
pub fn field(pod: &v1::Pod, node: &NodeFacts, pod_ips: &[IpAddr], path: &str) -> Result<String, RenderError> {
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(RenderError::config(format!("fieldPath {path:?} does not support subscript"))),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.iter().flatten()),
        "metadata.annotations" => lines(pod.metadata.annotations.iter().flatten()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => node.ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.hostIPs" => join(&node.ips),
        "status.podIP" => effective_ips(pod, node, pod_ips).first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => join(effective_ips(pod, node, pod_ips)),
        _ => return Err(RenderError::config(format!("unsupported fieldPath: {path}"))),
    })
}

/// The number that a `resourceFieldRef` means: the amount in units of its divisor, rounded up.
///
/// kubelet 1.36: a container without the limit is held to the pod's, else to what the node has to give.
pub fn resource(
    pod: &v1::Pod,
    node: &NodeFacts,
    own: Option<&str>,
    selector: &v1::ResourceFieldSelector,
) -> Result<String, RenderError> {
    let wanted = selector.container_name.as_deref().filter(|n| !n.is_empty()).or(own).unwrap_or_default();
    let Some(container) = containers(pod).find(|c| c.name == wanted) else {
        return Err(RenderError::config(format!("container {wanted} not found")));
    };
    let (amount, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (limit(pod, container, node, name), name),
        Some(("requests", name)) => (get(&amounts(container.resources.as_ref(), Side::Requests), name), name),
        _ => return Err(unsupported(selector)),
    };
    let divisor = selector.divisor.as_ref().map(Amount::of).filter(|d| !d.is_zero()).unwrap_or(Amount::from_units(1));
    let (amount, divisor) = match name {
        "cpu" => (amount.milli(), divisor.milli()),
        "memory" | "ephemeral-storage" => (amount.units(), divisor.units()),
        other if other.starts_with("hugepages-") => (amount.units(), divisor.units()),
        _ => return Err(unsupported(selector)),
    };
    let divisor = divisor.max(1);
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

fn unsupported(selector: &v1::ResourceFieldSelector) -> RenderError {
    RenderError::config(format!("unsupported container resource : {}", selector.resource))
}

fn limit(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts, name: &str) -> Amount {
    let limits: Amounts = crate::resources::container::effective_limits(pod, container, node);
    let limit = get(&limits, name);
    if !limit.is_zero() {
        return limit;
    }
    match name {
        "cpu" => Amount::from_milli(node.machine.allocatable_cpu_milli),
        "memory" => Amount::from_units(node.machine.allocatable_memory_bytes),
        "ephemeral-storage" => Amount::from_units(node.machine.allocatable_ephemeral_storage_bytes),
        _ => limit,
    }
}

/// `metadata.labels['key']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `key="value"` lines, sorted by key.
fn lines<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    map.map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// A text in double quotes with Go's escapes, which readers of these files parse.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c => {
                // Writing to a String cannot fail.
                let code = u32::from(c);
                let _infallible = match code {
                    0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                    _ if is_printable(c) => write!(out, "{c}"),
                    0..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Whether the character shows: the standard library escapes those that don't, combining ones only at the start of a text.
fn is_printable(c: char) -> bool {
    c == '\'' || c == ' ' || !(c.is_whitespace() || format!("a{c}").escape_debug().any(|e| e == '\\'))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, quoted) in [
            ("", r#""""#),
            ("v\nw", r#""v\nw""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("ü ß 日本 '", r#""ü ß 日本 '""#),
            ("\u{ad}\u{feff}\u{a0}", r#""\u00ad\ufeff\u00a0""#),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted, "{text:?}");
        }
    }
}
