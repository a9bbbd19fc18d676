//! What a pod is when the manifest does not say: every default that the API server would fill in.
//!
//! kubelet 1.36 gives static pods the same defaults, and its `/pods` shows them. Defaults come before validation, so
//! that the rules see what will run.

mod containers;
mod resources;
mod volumes;

use crate::v1;

/// `spec.terminationGracePeriodSeconds` when not given, seconds.
pub const GRACE_SECONDS: i64 = 30;

/// Fills in everything that is not said. Applying it twice changes nothing.
pub fn set_defaults(pod: &mut v1::Pod) {
    let spec = pod.spec.get_or_insert_default();
    spec_defaults(spec);
    for volume in spec.volumes.iter_mut().flatten() {
        volumes::set_defaults(volume);
    }
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        containers::set_defaults(container, host_network);
    }
    resources::set_pod_defaults(spec);
}

fn spec_defaults(spec: &mut v1::PodSpec) {
    or_text(&mut spec.dns_policy, "ClusterFirst");
    or_text(&mut spec.restart_policy, "Always");
    or_text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
    spec.security_context.get_or_insert_default();
    spec.enable_service_links.get_or_insert(true);
    // The old name of the field means the same; both are always shown.
    let account = match spec.service_account_name.take().filter(|name| !name.is_empty()) {
        Some(name) => Some(name),
        None => spec.service_account.take().filter(|name| !name.is_empty()),
    };
    spec.service_account.clone_from(&account);
    spec.service_account_name = account;
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        if constraint.when_unsatisfiable.is_empty() {
            constraint.when_unsatisfiable = "DoNotSchedule".to_owned();
        }
    }
}

/// A text that is absent or empty becomes the default.
fn or_text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

/// A number that is absent or 0 becomes the default.
fn or_number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}

#[cfg(test)]
mod tests;
