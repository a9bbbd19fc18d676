//! Resource requests and limits, of containers and of the pod.

use std::collections::{BTreeMap, BTreeSet};

use super::containers::Around;
use super::{all_invalid, names, one_of};
use crate::pod::requests::pod_requests;
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::quantity::{self, Amount};
use crate::{Quantity, v1};

type List = BTreeMap<String, Quantity>;

/// Resources that a container may ask for without a vendor's prefix.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";

/// The resources of one container.
pub(super) fn validate(given: &v1::ResourceRequirements, around: &Around<'_>, path: &Path, problems: &mut Problems) {
    let empty = List::new();
    let limits = given.limits.as_ref().unwrap_or(&empty);
    let requests = given.requests.as_ref().unwrap_or(&empty);
    each(limits, &path.field("limits"), problems);
    each(requests, &path.field("requests"), problems);
    let pod_limits = around.spec.resources.as_ref().and_then(|pod| pod.limits.as_ref());
    against_limits(requests, limits, &path.field("requests"), problems);
    for (name, limit) in limits {
        let pod_limit = pod_limits.and_then(|all| all.get(name)).and_then(quantity::parsed);
        if let (Some(limit), Some(most)) = (quantity::parsed(limit), pod_limit)
            && limit > most
        {
            let detail = format!("must be less than or equal to pod limits of {most}");
            problems.invalid(&path.field("limits").key(name), &limit.to_string(), &detail);
        }
    }
    let mut seen = BTreeSet::new();
    for (nth, claim) in given.claims.iter().flatten().enumerate() {
        let path = path.field("claims").index(nth);
        if claim.name.is_empty() {
            problems.required(&path.field("name"), "");
        } else if !around.claims.contains(claim.name.as_str()) {
            problems.not_found(&path.field("name"), &claim.name);
        } else if !seen.insert((&claim.name, &claim.request)) {
            problems.duplicate(&path, &claim.name);
        }
    }
}

/// Names and amounts of one list.
fn each(list: &List, path: &Path, problems: &mut Problems) {
    for (name, quantity) in list {
        let path = path.key(name);
        resource_name(name, &path, problems);
        amount_of(name, quantity, &path, problems);
    }
}

fn resource_name(name: &str, path: &Path, problems: &mut Problems) {
    let reasons = names::qualified(name);
    if !reasons.is_empty() {
        all_invalid(name, reasons, path, problems);
    } else if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with(HUGE_PAGES) {
        problems.invalid(path, name, "must be a standard resource for containers");
    }
}

fn amount_of(name: &str, quantity: &Quantity, path: &Path, problems: &mut Problems) {
    let Some(amount) = quantity::parsed(quantity) else {
        problems.invalid(path, &quantity.0, quantity::RULE);
        return;
    };
    if amount < Amount::ZERO {
        problems.invalid(path, &quantity.0, "must be greater than or equal to 0");
    }
    let countable = name.contains('/') || name.starts_with(HUGE_PAGES);
    if countable && !amount.is_whole() {
        problems.invalid(path, &quantity.0, "must be an integer");
    }
    if let Some(size) = name.strip_prefix(HUGE_PAGES) {
        let page = Quantity(size.to_owned());
        match quantity::parsed(&page) {
            Some(page) if page > Amount::ZERO => {
                if !amount.is_multiple(&page) {
                    let detail = format!("{} is not positive integer multiple of {name}", quantity.0);
                    problems.invalid(path, &quantity.0, &detail);
                }
            }
            Some(_) | None => problems.invalid(path, name, "must name a page size such as hugepages-2Mi"),
        }
    }
}

/// No request above its limit; what cannot be overcommitted is asked for exactly.
fn against_limits(requests: &List, limits: &List, path: &Path, problems: &mut Problems) {
    let mut huge_pages = false;
    for (name, request) in requests {
        let exact = name.starts_with(HUGE_PAGES) || name.contains('/');
        huge_pages |= name.starts_with(HUGE_PAGES);
        let path = path.key(name);
        let Some(request_amount) = quantity::parsed(request) else { continue };
        match limits.get(name).and_then(quantity::parsed) {
            Some(limit) if exact && request_amount != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                problems.invalid(&path, &request.0, &detail);
            }
            Some(limit) if request_amount > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                problems.invalid(&path, &request.0, &detail);
            }
            Some(_) => {}
            None if exact => problems.required(&path, "Limit must be set for non overcommitable resources"),
            None => {}
        }
    }
    let cpu_or_memory = ["cpu", "memory"].iter().any(|name| requests.contains_key(*name) || limits.contains_key(*name));
    if huge_pages && !cpu_or_memory {
        problems.forbidden(path, "HugePages require cpu or memory");
    }
}

/// `spec.resources`.
pub(super) fn validate_pod(
    given: &v1::ResourceRequirements,
    spec: &v1::PodSpec,
    gates: Gates,
    path: &Path,
    problems: &mut Problems,
) {
    if !gates.pod_level_resources {
        problems.forbidden(path, "needs the feature gate PodLevelResources");
        return;
    }
    let empty = List::new();
    let limits = given.limits.as_ref().unwrap_or(&empty);
    let requests = given.requests.as_ref().unwrap_or(&empty);
    if given.claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        problems.forbidden(&path.field("claims"), "claims cannot be set for Resources at pod-level");
    }
    for (field, list) in [("limits", limits), ("requests", requests)] {
        for (name, quantity) in list {
            let path = path.field(field).key(name);
            if !["cpu", "memory"].contains(&name.as_str()) && !name.starts_with(HUGE_PAGES) {
                problems.unsupported(&path, name, &["cpu", "hugepages-", "memory"]);
                continue;
            }
            amount_of(name, quantity, &path, problems);
        }
    }
    against_limits(requests, limits, &path.field("requests"), problems);
    let total = pod_requests(spec);
    for (name, request) in requests {
        if let (Some(request_amount), Some(sum)) = (quantity::parsed(request), total.get(name))
            && *sum > request_amount
        {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            problems.invalid(&path.field("requests").key(name), &request.0, &detail);
        }
    }
}

/// `overhead`: amounts that are not negative.
pub(super) fn overhead(list: &List, path: &Path, problems: &mut Problems) {
    each(list, path, problems);
}

/// How a resize of each resource goes.
pub(super) fn resize_policies(container: &v1::Container, spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (nth, policy) in container.resize_policy.iter().flatten().enumerate() {
        let path = path.index(nth);
        if !seen.insert(&policy.resource_name) {
            problems.duplicate(&path, &policy.resource_name);
        }
        one_of(&policy.resource_name, &["cpu", "memory"], &path.field("resourceName"), problems);
        const POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
        one_of(&policy.restart_policy, &POLICIES, &path.field("restartPolicy"), problems);
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy == "RestartContainer" {
            problems.invalid(
                &path.field("restartPolicy"),
                &policy.restart_policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}

/// A reference to a container's resource, from its environment or from a file in a volume.
pub(super) fn field_ref(field: &v1::ResourceFieldSelector, in_volume: bool, path: &Path, problems: &mut Problems) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if in_volume && field.container_name.as_deref().unwrap_or_default().is_empty() {
        problems.required(&path.field("containerName"), "");
    }
    let huge = field.resource.starts_with("limits.hugepages-") || field.resource.starts_with("requests.hugepages-");
    if field.resource.is_empty() {
        problems.required(&path.field("resource"), "");
        return;
    }
    if !huge && !RESOURCES.contains(&field.resource.as_str()) {
        problems.unsupported(&path.field("resource"), &field.resource, &RESOURCES);
        return;
    }
    let Some(divisor) = &field.divisor else { return };
    let (what, allowed): (&str, &[&str]) = if field.resource.ends_with(".cpu") {
        ("1m and 1", &["1m", "1"])
    } else {
        (
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei",
            &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
        )
    };
    if divisor.0 != "0" && !allowed.contains(&divisor.0.as_str()) {
        let name = field.resource.split_once('.').map_or("", |(_, name)| name);
        let detail = format!("only divisor's values {what} are supported with the {name} resource");
        problems.invalid(&path.field("divisor"), &divisor.0, &detail);
    }
}
