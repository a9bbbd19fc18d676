//! Whether the pod wants to be on this node: by name, by labels.

use std::collections::BTreeMap;

use rubelet_api::v1;

use super::Verdict;
use crate::node::NodeFacts;

/// Why a pod is refused that does not want a node with these labels.
pub const REASON: &str = "NodeAffinity";

/// kubelet 1.36: labels first, then `spec.nodeName`.
pub(super) fn check(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    if !is_selected(spec, node) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(Verdict::rejected(REASON, message));
    }
    let wanted = spec.node_name.as_deref().unwrap_or_default();
    (!wanted.is_empty() && wanted != node.name).then(|| {
        Verdict::rejected("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name")
    })
}

/// The machine's architecture in the API's (Go's) words.
pub const ARCH: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else if cfg!(target_arch = "powerpc64") {
    "ppc64le"
} else if cfg!(target_arch = "s390x") {
    "s390x"
} else if cfg!(target_arch = "arm") {
    "arm"
} else if cfg!(target_arch = "riscv64") {
    "riscv64"
} else {
    "unknown"
};

fn is_selected(spec: &v1::PodSpec, node: &NodeFacts) -> bool {
    let labels = &node.registered.labels;
    if !spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let Some(required) = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) else {
        return true;
    };
    let fields = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    required.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let by_fields = term.match_fields.as_deref().unwrap_or_default();
        // A term without any requirement matches nothing.
        !(expressions.is_empty() && by_fields.is_empty())
            && expressions.iter().all(|e| is_met(e, labels))
            && by_fields.iter().all(|e| is_met(e, &fields))
    })
}

fn is_met(requirement: &v1::NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let wanted = requirement.values.as_deref().unwrap_or_default();
    let compare = |is_right: fn(i64, i64) -> bool| match (value.and_then(|v| v.parse().ok()), wanted) {
        (Some(value), [bound]) => bound.parse().is_ok_and(|bound| is_right(value, bound)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| wanted.contains(v)),
        "NotIn" => value.is_none_or(|v| !wanted.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|value, bound| value > bound),
        "Lt" => compare(|value, bound| value < bound),
        _ => false,
    }
}
