//! Containers, plain and init.

use std::collections::BTreeSet;

use super::{all_invalid, environment, mounts, names, one_of, ports, probes, resources, security};
use crate::gather::Gather;
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::v1;

/// Whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Plain,
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
}

/// What the containers of one pod have around them.
pub(super) struct Around<'a> {
    pub(super) spec: &'a v1::PodSpec,
    pub(super) gates: Gates,
    pub(super) volumes: mounts::Volumes<'a>,
    /// Names of `spec.resourceClaims`.
    pub(super) claims: BTreeSet<&'a str>,
}

/// All containers of a pod.
pub(super) fn validate(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    let around = Around {
        spec,
        gates,
        volumes: spec.volumes.iter().flatten().map(|volume| (volume.name.as_str(), volume)).into_map(),
        claims: spec.resource_claims.iter().flatten().map(|claim| claim.name.as_str()).collect(),
    };
    let mut seen = BTreeSet::new();
    let plain = path.field("containers");
    if spec.containers.is_empty() {
        problems.required(&plain, "");
    }
    for (nth, container) in spec.containers.iter().enumerate() {
        let path = plain.index(nth);
        one(container, Sort::Plain, &around, &path, problems);
        name_is_free(container, &mut seen, &path, problems);
    }
    ports::host_conflicts(&spec.containers, &plain, problems);
    let init = path.field("initContainers");
    for (nth, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = init.index(nth);
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let sort = if sidecar { Sort::Sidecar } else { Sort::Init };
        one(container, sort, &around, &path, problems);
        name_is_free(container, &mut seen, &path, problems);
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|some| !some.is_empty()) {
        problems.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
    }
}

fn name_is_free<'a>(container: &'a v1::Container, seen: &mut BTreeSet<&'a str>, path: &Path, problems: &mut Problems) {
    if !container.name.is_empty() && !seen.insert(&container.name) {
        problems.duplicate(&path.field("name"), &container.name);
    }
}

fn one(container: &v1::Container, sort: Sort, around: &Around<'_>, path: &Path, problems: &mut Problems) {
    let (spec, gates) = (around.spec, around.gates);
    if container.name.is_empty() {
        problems.required(&path.field("name"), "");
    } else {
        all_invalid(&container.name, names::label(&container.name), &path.field("name"), problems);
    }
    image(container, path, problems);
    let policy = container.termination_message_policy.as_deref().unwrap_or_default();
    const POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
    one_of(policy, &POLICIES, &path.field("terminationMessagePolicy"), problems);
    let pull = container.image_pull_policy.as_deref().unwrap_or_default();
    one_of(pull, &["Always", "IfNotPresent", "Never"], &path.field("imagePullPolicy"), problems);
    let host_network = spec.host_network == Some(true);
    let ports = container.ports.as_deref().unwrap_or_default();
    ports::validate(ports, host_network, &path.field("ports"), problems);
    environment::validate(container, gates, path, problems);
    mounts::validate(container, &around.volumes, path, problems);
    if let Some(given) = &container.resources {
        resources::validate(given, around, &path.field("resources"), problems);
    }
    resources::resize_policies(container, spec, &path.field("resizePolicy"), problems);
    if let Some(context) = &container.security_context {
        security::validate_container(context, spec, &path.field("securityContext"), problems);
    }
    restart(container, sort, gates, path, problems);
    doing(container, sort, around, path, problems);
}

fn image(container: &v1::Container, path: &Path, problems: &mut Problems) {
    let path = path.field("image");
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        problems.required(&path, "");
    } else if image.trim() != image {
        problems.invalid(&path, image, "must not have leading or trailing whitespace");
    }
}

/// Probes and hooks: plain containers and sidecars have them.
fn doing(container: &v1::Container, sort: Sort, around: &Around<'_>, path: &Path, problems: &mut Problems) {
    const NOT_HERE: &str = "may not be set for init containers without restartPolicy=Always";
    if let Some(hooks) = &container.lifecycle {
        let path = path.field("lifecycle");
        if sort == Sort::Init {
            problems.forbidden(&path, NOT_HERE);
        } else {
            let os = around.spec.os.as_ref().map_or("", |os| os.name.as_str());
            probes::lifecycle(hooks, os, around.gates, &path, problems);
        }
    }
    let all = [
        ("livenessProbe", &container.liveness_probe, probes::Which::Liveness),
        ("readinessProbe", &container.readiness_probe, probes::Which::Readiness),
        ("startupProbe", &container.startup_probe, probes::Which::Startup),
    ];
    for (field, probe, which) in all {
        let Some(probe) = probe else { continue };
        let path = path.field(field);
        if sort == Sort::Init {
            problems.forbidden(&path, NOT_HERE);
        } else {
            probes::validate(probe, which, &path, problems);
        }
    }
}

/// A restart policy of the container's own, and rules by exit code.
fn restart(container: &v1::Container, sort: Sort, gates: Gates, path: &Path, problems: &mut Problems) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let policy = container.restart_policy.as_deref();
    let policy_path = path.field("restartPolicy");
    match policy {
        None => {}
        Some(_) if sort == Sort::Plain && !gates.container_restart_rules => {
            problems.forbidden(&policy_path, "may not be set for non-init containers");
        }
        Some(policy) => {
            const ALL: [&str; 3] = ["Always", "Never", "OnFailure"];
            let supported: &[&str] = if gates.container_restart_rules { &ALL } else { &ALL[..1] };
            if !supported.contains(&policy) {
                problems.unsupported(&policy_path, policy, supported);
            }
        }
    }
    let path = path.field("restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if !gates.container_restart_rules {
        problems.forbidden(&path, "needs the feature gate ContainerRestartRules");
        return;
    }
    if policy.is_none() {
        problems.required(&policy_path, "must specify restartPolicy when restart rules are used");
    }
    const MOST: usize = 20;
    if rules.len() > MOST {
        problems.too_many(&path, rules.len(), MOST);
    }
    for (nth, rule) in rules.iter().enumerate() {
        restart_rule(rule, &path.index(nth), problems);
    }
}

fn restart_rule(rule: &v1::ContainerRestartRule, path: &Path, problems: &mut Problems) {
    one_of(&rule.action, &["Restart", "RestartAllContainers"], &path.field("action"), problems);
    let Some(codes) = &rule.exit_codes else {
        problems.required(&path.field("exitCodes"), "must be specified");
        return;
    };
    let path = path.field("exitCodes");
    one_of(&codes.operator, &["In", "NotIn"], &path.field("operator"), problems);
    let values = codes.values.as_deref().unwrap_or_default();
    const MOST: usize = 255;
    if values.is_empty() {
        problems.required(&path.field("values"), "at least one value must be specified");
    } else if values.len() > MOST {
        problems.too_many(&path.field("values"), values.len(), MOST);
    }
}
