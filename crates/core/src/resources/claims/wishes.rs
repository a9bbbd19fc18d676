//! Which claims a pod names, and which of them are whose.

use std::collections::BTreeMap;

use rubelet_api::quantity::Amount;
use rubelet_api::v1;

/// A claim that a pod names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Name of the ResourceClaim, in the pod's namespace.
    pub claim: String,
    /// Made for this pod from a template.
    pub is_generated: bool,
}

/// kubelet 1.36: what a DeviceClass is called as a resource.
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// Whether a pod names claims at all.
#[must_use]
pub fn has_any(pod: &v1::Pod) -> bool {
    let of_pod = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()).next();
    of_pod.is_some() || of_extended(pod, true).is_some()
}

/// The claims of a pod, in its order, each once. `extended`: with that which stands for its extended resources.
///
/// # Errors
/// Not all of them have been made yet, in upstream's words.
pub fn named(pod: &v1::Pod, extended: bool) -> Result<Vec<Named>, String> {
    let mut all: Vec<Named> = Vec::new();
    let of_pod = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()).map(|claim| name(pod, claim));
    let more = of_extended(pod, extended).map(|of| {
        let claim = of.resource_claim_name.clone();
        Ok(Some(Named { claim, is_generated: false }))
    });
    for one in of_pod.chain(more) {
        let Some(one) = one? else { continue };
        if !all.iter().any(|known| known.claim == one.claim) {
            all.push(one);
        }
    }
    Ok(all)
}

/// `None`: the claim was left out on purpose.
fn name(pod: &v1::Pod, claim: &v1::PodResourceClaim) -> Result<Option<Named>, String> {
    let pod_name = || {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        format!("pod \"{}/{}\"", namespace.unwrap_or("default"), name.unwrap_or_default())
    };
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some(Named { claim: name.clone(), is_generated: false }));
    }
    if claim.resource_claim_template_name.is_none() {
        return Err(format!(
            "{}, spec.resourceClaim {:?}: none of the supported fields are set",
            pod_name(),
            claim.name
        ));
    }
    let mut made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    match made.find(|status| status.name == claim.name) {
        None => Err(format!("{}: ResourceClaim not created yet", pod_name())),
        Some(status) => Ok(status.resource_claim_name.clone().map(|claim| Named { claim, is_generated: true })),
    }
}

fn of_extended(pod: &v1::Pod, extended: bool) -> Option<&v1::PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref().filter(|_| extended)
}

/// Whether a container's extended resource is had by a claim: nobody else counts it.
#[must_use]
pub fn is_extended(pod: &v1::Pod, container: &str, resource: &str) -> bool {
    let mappings = of_extended(pod, true).into_iter().flat_map(|of| &of.request_mappings);
    mappings.into_iter().any(|one| one.container_name == container && one.resource_name == resource)
}

/// Whether a resource of that name can be had by a claim.
#[must_use]
pub fn may_be_claimed(resource: &str) -> bool {
    crate::node::is_extended(resource) || resource.starts_with(DEVICE_CLASS)
}

/// The claims of a container by name, each with the requests that it uses; an empty one stands for all.
pub(super) fn of_container(
    pod: &v1::Pod,
    container: &v1::Container,
    extended: bool,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
        let requests: Vec<String> = requests(container, &claim.name).map(str::to_owned).collect();
        if requests.is_empty() {
            continue;
        }
        if let Some(named) = name(pod, claim)? {
            all.entry(named.claim).or_default().extend(requests);
        }
    }
    let wanted = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
    let is_some = |amount: &rubelet_api::Quantity| Amount::parse(&amount.0).is_ok_and(|a| !a.is_zero());
    let wanted: Vec<&String> =
        wanted.filter(|(name, amount)| may_be_claimed(name) && is_some(amount)).map(|(name, _)| name).collect();
    if let Some(of) = of_extended(pod, extended) {
        let ours = of.request_mappings.iter().filter(|m| m.container_name == container.name);
        let requests: Vec<String> =
            ours.filter(|m| wanted.contains(&&m.resource_name)).map(|m| m.request_name.clone()).collect();
        if !requests.is_empty() {
            all.entry(of.resource_claim_name.clone()).or_default().extend(requests);
        }
    }
    Ok(all)
}

/// The requests of one of the pod's claims that a container uses.
fn requests<'a>(container: &'a v1::Container, claim: &'a str) -> impl Iterator<Item = &'a str> {
    let claims = container.resources.iter().flat_map(|r| r.claims.iter().flatten());
    claims.filter(move |one| one.name == claim).map(|one| one.request.as_deref().unwrap_or_default())
}

/// Names of the claims that a container uses, in the pod's order; none if some are not known.
pub(super) fn shown(pod: &v1::Pod, container: &v1::Container, extended: bool) -> Vec<String> {
    let of_pod = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    let used = of_pod.filter(|claim| requests(container, &claim.name).next().is_some());
    let Ok(named) = used.map(|claim| name(pod, claim)).collect::<Result<Vec<_>, _>>() else { return Vec::new() };
    let more = of_extended(pod, extended)
        .filter(|of| of.request_mappings.iter().any(|m| m.container_name == container.name))
        .map(|of| of.resource_claim_name.clone());
    named.into_iter().flatten().map(|named| named.claim).chain(more).collect()
}

/// A container's claims as its status names them (`claim:<name>[/<request>]`), with the claim's name and the request.
pub(super) fn statuses<'a>(
    pod: &'a v1::Pod,
    container: &'a v1::Container,
) -> impl Iterator<Item = (String, String, &'a str)> {
    let claims = container.resources.iter().flat_map(|r| r.claims.iter().flatten());
    claims.filter_map(move |one| {
        let mut of_pod = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        let claim = name(pod, of_pod.find(|claim| claim.name == one.name)?).ok()??.claim;
        let request = one.request.as_deref().unwrap_or_default();
        let shown = if request.is_empty() { one.name.clone() } else { format!("{}/{request}", one.name) };
        Some((format!("claim:{shown}"), claim, request))
    })
}
