//! What decides where a pod may run. The pod is here already; the fields still have to be well formed.

use super::{all_invalid, meta, names, one_of};
use crate::problem::{Path, Problems};
use crate::v1;

pub(super) fn validate(spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    for (key, value) in spec.node_selector.iter().flatten() {
        meta::labels_entry(key, value, &path.field("nodeSelector"), problems);
    }
    for (nth, toleration) in spec.tolerations.iter().flatten().enumerate() {
        tolerate(toleration, &path.field("tolerations").index(nth), problems);
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        problems.forbidden(&path.field("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    if let Some(node) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        node_affinity(node, &path.at("affinity.nodeAffinity"), problems);
    }
    for (nth, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        spread(constraint, &path.field("topologySpreadConstraints").index(nth), problems);
    }
}

fn tolerate(toleration: &v1::Toleration, path: &Path, problems: &mut Problems) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !key.is_empty() {
        all_invalid(key, names::qualified(key), &path.field("key"), problems);
    } else if operator != "Exists" {
        problems.invalid(
            &path.field("operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        problems.invalid(&path.field("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    match operator {
        "Equal" | "" => all_invalid(value, names::label_value(value), &path.field("value"), problems),
        "Exists" => {
            if !value.is_empty() {
                problems.invalid(&path.field("value"), value, "value must be empty when `operator` is 'Exists'");
            }
        }
        other => problems.unsupported(&path.field("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path.field("effect"), problems);
    }
}

fn node_affinity(affinity: &v1::NodeAffinity, path: &Path, problems: &mut Problems) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.at("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            problems.required(&path, "must have at least one node selector term");
        }
        for (nth, term) in required.node_selector_terms.iter().enumerate() {
            selector_term(term, &path.index(nth), problems);
        }
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (nth, term) in preferred.enumerate() {
        let path = path.field("preferredDuringSchedulingIgnoredDuringExecution").index(nth);
        if !(1..=100).contains(&term.weight) {
            problems.invalid(&path.field("weight"), &term.weight, "must be in the range 1-100");
        }
        selector_term(&term.preference, &path.field("preference"), problems);
    }
}

fn selector_term(term: &v1::NodeSelectorTerm, path: &Path, problems: &mut Problems) {
    for (nth, rule) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.field("matchExpressions").index(nth);
        all_invalid(&rule.key, names::qualified(&rule.key), &path.field("key"), problems);
        let values = rule.values.as_deref().unwrap_or_default();
        match rule.operator.as_str() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    problems.required(&path.field("values"), detail);
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    problems.forbidden(&path.field("values"), detail);
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    problems.required(&path.field("values"), detail);
                }
            }
            other => problems.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
    }
}

fn spread(constraint: &v1::TopologySpreadConstraint, path: &Path, problems: &mut Problems) {
    if constraint.max_skew <= 0 {
        problems.invalid(&path.field("maxSkew"), &constraint.max_skew, "must be greater than zero");
    }
    if constraint.topology_key.is_empty() {
        problems.required(&path.field("topologyKey"), "can not be empty");
    } else {
        let key = constraint.topology_key.as_str();
        all_invalid(key, names::qualified(key), &path.field("topologyKey"), problems);
    }
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    one_of(&constraint.when_unsatisfiable, &ACTIONS, &path.field("whenUnsatisfiable"), problems);
}
