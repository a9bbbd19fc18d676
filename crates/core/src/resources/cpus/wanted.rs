//! How many CPUs of their own containers and pods want.

use rubelet_api::v1;

use super::RESOURCE;
use crate::resources::amount::Amount;
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::sum::{has_pod_level, is_sidecar};

/// How many a container wants; none: it shares what is left.
///
/// kubelet 1.36: what it requests, if that is whole and the pod is Guaranteed.
#[must_use]
pub fn by_container(pod: &v1::Pod, container: &v1::Container) -> usize {
    if qos_class(pod) == QosClass::Guaranteed { whole_cpus(container) } else { 0 }
}

fn whole_cpus(container: &v1::Container) -> usize {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(cpu) = requests.and_then(|all| all.get(RESOURCE)).map(Amount::of) else { return 0 };
    // Finer than a thousandth rounds up before anybody looks.
    if cpu.units().saturating_mul(1000) == cpu.milli() { usize::try_from(cpu.units()).unwrap_or(0) } else { 0 }
}

/// How many a pod wants: what its containers and sidecars want together, or its hungriest moment before that.
#[must_use]
pub fn by_pod(pod: &v1::Pod) -> usize {
    let Some(spec) = pod.spec.as_ref().filter(|_| qos_class(pod) == QosClass::Guaranteed) else { return 0 };
    let (mut at_first, mut sidecars) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        let own = whole_cpus(container);
        if is_sidecar(container) {
            sidecars += own;
        } else {
            at_first = at_first.max(sidecars + own);
        }
    }
    let later: usize = spec.containers.iter().map(whole_cpus).sum();
    at_first.max(sidecars + later)
}

/// Whether the pod is not asked what it wants. kubelet 1.36: resources of the pod itself, while the gate `PodLevelResourceManagers` is
/// off; all of its containers share.
#[must_use]
pub fn is_exempt(pod: &v1::Pod) -> bool {
    has_pod_level(pod)
}
