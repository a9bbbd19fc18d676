//! Pods that wrote more to the node's disk than they may.

use rubelet_api::quantity::Amount;
use rubelet_api::v1;

use super::observe::{Candidate, PodUse};
use super::threshold::Layout;
use super::{Eviction, GRACE_SECS, Trigger};
use crate::resources::qos::is_critical;
use crate::resources::sum::Sum;

const NAME: &str = "ephemeral-storage";

/// Whether the pod has a limit that its use of the disk could exceed: only then is it worth measuring.
pub fn is_limited(pod: &v1::Pod) -> bool {
    let limited =
        |c: &v1::Container| c.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| l.contains_key(NAME));
    let spec = pod.spec.as_ref();
    let sized = |v: &v1::Volume| v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some());
    crate::render::containers(pod).any(limited)
        || spec.and_then(|s| s.volumes.as_ref()).is_some_and(|v| v.iter().any(sized))
}

/// All pods that exceed a limit of their own. kubelet 1.36: critical pods stay.
pub(super) fn evictions(candidates: &[Candidate<'_>], layout: Layout, pod_level: bool) -> Vec<Eviction> {
    let over = |c: &Candidate<'_>| {
        let usage = c.usage?;
        let (trigger, message) = empty_dir(c.pod, usage)
            .or_else(|| whole_pod(c.pod, usage, pod_level))
            .or_else(|| container(c.pod, usage, layout))?;
        (!is_critical(c.pod)).then(|| Eviction {
            uid: c.uid.clone(),
            grace_secs: GRACE_SECS,
            message,
            trigger,
            annotations: Vec::new(),
            is_disruption: false,
        })
    };
    candidates.iter().filter_map(over).collect()
}

fn empty_dir(pod: &v1::Pod, usage: &PodUse) -> Option<(Trigger, String)> {
    let volumes = pod.spec.as_ref()?.volumes.as_deref()?;
    volumes.iter().find_map(|volume| {
        let limit = Amount::parse(&volume.empty_dir.as_ref()?.size_limit.as_ref()?.0).ok()?;
        let used = usage.volumes.iter().find(|(name, _)| *name == volume.name).map(|(_, used)| used.bytes)?;
        let is_over = limit > Amount::ZERO && Amount::bytes(used) > limit;
        let name = &volume.name;
        is_over.then(|| {
            (Trigger::EmptyDir, format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". "))
        })
    })
}

fn whole_pod(pod: &v1::Pod, usage: &PodUse, pod_level: bool) -> Option<(Trigger, String)> {
    let limits = Sum::limits(pod_level).of(pod);
    let limit = limits.get(NAME)?.units();
    (usage.ephemeral_bytes(pod) > limit).then(|| {
        let limit = written(pod, limit);
        let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        (Trigger::Pod, message)
    })
}

/// The sum is written as the first limit is.
fn written(pod: &v1::Pod, limit: i64) -> Amount {
    let first = crate::render::containers(pod).find_map(limit_of).unwrap_or(Amount::bytes(0));
    first.with_units(limit)
}

fn limit_of(container: &v1::Container) -> Option<Amount> {
    Amount::parse(&container.resources.as_ref()?.limits.as_ref()?.get(NAME)?.0).ok()
}

/// kubelet 1.36: the writable layer counts only where it lies on the node's own disk; init containers are not looked at.
fn container(pod: &v1::Pod, usage: &PodUse, layout: Layout) -> Option<(Trigger, String)> {
    let spec = pod.spec.as_ref()?;
    usage.containers.iter().find_map(|own| {
        let limit = spec.containers.iter().find(|c| c.name == own.name).and_then(limit_of).filter(|l| !l.is_zero())?;
        let layer = own.rootfs.filter(|_| layout == Layout::Single).unwrap_or_default();
        let used = (own.logs.unwrap_or_default() + layer).bytes;
        let name = &own.name;
        (Amount::bytes(used) > limit).then(|| {
            (Trigger::Container, format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
        })
    })
}
