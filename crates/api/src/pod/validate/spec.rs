//! Fields of `spec` that stand alone.

use super::{all_invalid, names, not_negative, one_of, resources};
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::v1;

pub(super) fn validate(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    one_of(policy, &["Always", "OnFailure", "Never"], &path.field("restartPolicy"), problems);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        problems.invalid(&path.field("activeDeadlineSeconds"), &seconds, "must be between 1 and 2147483647, inclusive");
    }
    not_negative(spec.termination_grace_period_seconds, &path.field("terminationGracePeriodSeconds"), problems);
    names_of_objects(spec, path, problems);
    for (nth, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            problems.required(&path.field("imagePullSecrets").index(nth).field("name"), "");
        }
    }
    if let Some(preemption) = spec.preemption_policy.as_deref() {
        one_of(preemption, &["Never", "PreemptLowerPriority"], &path.field("preemptionPolicy"), problems);
    }
    if let Some(os) = &spec.os {
        one_of(&os.name, &["linux", "windows"], &path.at("os.name"), problems);
    }
    for (nth, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.field("readinessGates").index(nth).field("conditionType");
        all_invalid(&gate.condition_type, names::qualified(&gate.condition_type), &path, problems);
    }
    if let Some(overhead) = &spec.overhead {
        resources::overhead(overhead, &path.field("overhead"), problems);
    }
    if let Some(given) = &spec.resources {
        resources::validate_pod(given, spec, gates, &path.field("resources"), problems);
    }
    resource_claims(spec, &path.field("resourceClaims"), problems);
}

fn names_of_objects(spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    let fields = [
        ("nodeName", &spec.node_name),
        ("serviceAccountName", &spec.service_account_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in fields {
        let Some(name) = name.as_deref() else { continue };
        if name.is_empty() && field != "runtimeClassName" {
            continue;
        }
        all_invalid(name, names::subdomain(name), &path.field(field), problems);
    }
}

fn resource_claims(spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    let mut seen = std::collections::BTreeSet::new();
    for (nth, claim) in spec.resource_claims.iter().flatten().enumerate() {
        let path = path.index(nth);
        if claim.name.is_empty() {
            problems.required(&path.field("name"), "");
        } else {
            all_invalid(&claim.name, names::label(&claim.name), &path.field("name"), problems);
            if !seen.insert(&claim.name) {
                problems.duplicate(&path.field("name"), &claim.name);
            }
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (None, None) => {
                problems.invalid(&path, "", "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            (Some(_), Some(_)) => problems.invalid(
                &path,
                "",
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
}
