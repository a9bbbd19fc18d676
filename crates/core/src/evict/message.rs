//! Why a pod was evicted, in upstream's words.

use rubelet_api::quantity::Amount;
use rubelet_api::v1;

use super::observe::{Candidate, Observations};
use super::threshold::{Resource, Threshold};
use crate::render::containers;
use crate::resources::sum::has_pod_level;

/// A message and what the event says besides.
pub(super) struct Said {
    pub(super) message: String,
    pub(super) annotations: Vec<(&'static str, String)>,
}

/// What the node lacked, and which containers used more of it than they asked for. `met`: the thresholds that are met, the one that
/// pods go for first.
pub(super) fn of(
    candidate: &Candidate<'_>,
    resource: Resource,
    met: &[Threshold],
    seen: &Observations,
    pod_level: bool,
) -> Said {
    let name = resource.as_str();
    let mut message = format!("The node was low on resource: {name}. ");
    let about = met.iter().filter(|t| t.signal.resource() == resource);
    let first = about.filter_map(|t| Some((t, seen.get(&t.signal)?))).next();
    if let Some((threshold, observed)) = first {
        let quantity = threshold.level.of(observed.capacity);
        let available = observed.shown(threshold.signal);
        message.push_str(&format!("Threshold quantity: {quantity}, available: {available}. "));
    }
    let Some(usage) = candidate.usage else { return Said { message, annotations: Vec::new() } };
    let mut annotations = Vec::new();
    if resource == Resource::Memory && pod_level && has_pod_level(candidate.pod) {
        let pod_name = candidate.pod.metadata.name.as_deref().unwrap_or_default();
        let spec = candidate.pod.spec.as_ref();
        let request = requested(spec.and_then(|s| s.resources.as_ref()), name);
        if let (Some(request), Some(used)) = (request, usage.memory) {
            let used = Amount::bytes(used);
            message.push_str(&format!(
                "Pod {pod_name} was using {used}, request is {request}, has larger consumption of {name}. "
            ));
            annotations.extend([("offending_pod", pod_name.to_owned()), ("offending_pod_usage", used.to_string())]);
        }
    }
    let mut offending: Vec<(&str, String)> = Vec::new();
    for own in &usage.containers {
        let Some(container) = containers(candidate.pod).find(|c| c.name == own.name) else { continue };
        let used = match resource {
            Resource::Memory => own.memory,
            Resource::EphemeralStorage => own.rootfs.zip(own.logs).map(|(rootfs, logs)| (rootfs + logs).bytes),
            Resource::Inodes | Resource::Pids => None,
        };
        let request = requested(container.resources.as_ref(), name).unwrap_or(Amount::ZERO);
        let Some(used) = used.map(Amount::bytes).filter(|used| *used > request) else { continue };
        let container = &own.name;
        message.push_str(&format!(
            "Container {container} was using {used}, request is {request}, has larger consumption of {name}. "
        ));
        offending.push((container, used.to_string()));
    }
    let (names, used): (Vec<&str>, Vec<String>) = offending.into_iter().unzip();
    annotations.extend([
        ("offending_containers", names.join(",")),
        ("offending_containers_usage", used.join(",")),
        ("starved_resource", name.to_owned()),
    ]);
    Said { message, annotations }
}

fn requested(resources: Option<&v1::ResourceRequirements>, name: &str) -> Option<Amount> {
    Amount::parse(&resources?.requests.as_ref()?.get(name)?.0).ok()
}
