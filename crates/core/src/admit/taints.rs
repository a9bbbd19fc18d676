//! Whether the pod bears the taints of the node.

use rubelet_api::v1;

use super::Verdict;
use crate::node::NodeFacts;

/// kubelet 1.36: only taints that would drive the pod away again count, and not for static pods.
pub(super) fn check(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/config.source"));
    if source.is_some_and(|source| source != "api") {
        return None;
    }
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut taints = node.registered.taints.iter().filter(|taint| taint.effect == "NoExecute");
    taints.any(|taint| !tolerations.iter().any(|t| is_borne(taint, t))).then(|| {
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        Verdict::rejected("TaintToleration", message)
    })
}

fn is_borne(taint: &v1::Taint, by: &v1::Toleration) -> bool {
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&by.effect), text(&by.key));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match text(&by.operator).as_str() {
        "" | "Equal" => text(&by.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}
