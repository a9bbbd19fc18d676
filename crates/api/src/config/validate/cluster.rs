//! Taints, topology, the end of the machine's day.

use super::Rules;
use crate::duration::Duration;
use crate::gates::Gate;
use crate::pod::{label_value_problems, qualified_name_problems};
use crate::quote::quoted;

/// Taints with which the node registers.
pub(super) fn taints(rules: &mut Rules<'_>) {
    for taint in &rules.config.node.register_with_taints {
        let effects = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
        let fits = qualified_name_problems(&taint.key).is_empty()
            && (taint.value.is_empty() || label_value_problems(&taint.value).is_empty())
            && effects.contains(&taint.effect.as_str());
        if !fits {
            let added = taint.time_added.as_deref().unwrap_or("<nil>");
            let words = format!("invalid taint: {{{} {} {} {added}}}", taint.key, taint.value, taint.effect);
            rules.refuse("registerWithTaints", super::Moment::Validation, words);
        }
        if taint.time_added.is_some() {
            rules.invalid("registerWithTaints", "taint.TimeAdded is not nil");
        }
    }
}

/// Policy and scope of the topology manager.
pub(super) fn topology(rules: &mut Rules<'_>) {
    let (policy, scope) = {
        let resources = &rules.config.resources;
        (&resources.topology_manager_policy, &resources.topology_manager_scope)
    };
    if !["none", "best-effort", "restricted", "single-numa-node"].contains(&policy.as_str()) {
        let words = format!(
            r#"topologyManagerPolicy (--topology-manager-policy) {} must be one of: ["none" "best-effort" "restricted" "single-numa-node"]"#,
            quoted(policy)
        );
        rules.invalid("topologyManagerPolicy", words);
    }
    if !["container", "pod"].contains(&scope.as_str()) {
        let words = format!(
            r#"topologyManagerScope (--topology-manager-scope) {} must be one of: "container", or "pod""#,
            quoted(scope)
        );
        rules.invalid("topologyManagerScope", words);
    }
}

/// Grace periods when the machine shuts down.
pub(super) fn shutdown(rules: &mut Rules<'_>) {
    let node = &rules.config.node;
    let (all, critical) = (node.shutdown_grace_period, node.shutdown_grace_period_critical_pods);
    let has_priorities = !node.shutdown_grace_period_by_pod_priority.is_empty();
    let is_said = all > Duration::ZERO || critical > Duration::ZERO;
    if rules.gates.is_on(Gate::GracefulNodeShutdown) {
        let fits = |one: Duration| one == Duration::ZERO || one >= Duration::seconds(1);
        if critical > all {
            let words =
                format!("shutdownGracePeriodCriticalPods {{{critical}}} must be <= shutdownGracePeriod {{{all}}}");
            rules.invalid("shutdownGracePeriodCriticalPods", words);
        }
        for (field, period) in [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)] {
            if !fits(period) {
                rules.invalid(field, format!("{field} {{{period}}} must be either zero or otherwise >= 1 sec"));
            }
        }
    } else if is_said {
        let words = "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate GracefulNodeShutdown";
        rules.invalid("shutdownGracePeriod", words);
    }
    if !has_priorities {
        return;
    }
    let field = "shutdownGracePeriodByPodPriority";
    if !rules.gates.is_on(Gate::GracefulNodeShutdownBasedOnPodPriority) {
        let words = format!("Specifying {field} requires feature gate GracefulNodeShutdownBasedOnPodPriority");
        rules.invalid(field, words);
    } else if is_said {
        rules.invalid(field, format!("Cannot specify both {field} and shutdownGracePeriod at the same time"));
    }
    for one in &rules.config.node.shutdown_grace_period_by_pod_priority {
        if one.seconds < 0 {
            let words = format!("priority {}: {} seconds are less than none", one.priority, one.seconds);
            rules.doubt(field, words);
        }
    }
}
