//! The sizes that can change while a pod runs.

use rubelet_api::v1;

use crate::pod::step::{Measure, PodPart};
use crate::resources::cgroup::is_limited;
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::sum::{Side, Sum, amounts, get, has_pod_level};

/// CPU in thousandths and memory in bytes of one container; 0 where it has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::pod) struct Sizes {
    pub(in crate::pod) cpu_request: i64,
    pub(in crate::pod) cpu_limit: i64,
    pub(in crate::pod) memory_request: i64,
    pub(in crate::pod) memory_limit: i64,
}

impl Sizes {
    /// What the specification says; the pod's own limits stand for those that the container has not.
    pub(in crate::pod) fn of(pod: &v1::Pod, container: &v1::Container) -> Self {
        let requests = amounts(container.resources.as_ref(), Side::Requests);
        let limits = amounts(container.resources.as_ref(), Side::Limits);
        let of_pod = amounts(pod.spec.as_ref().and_then(|s| s.resources.as_ref()), Side::Limits);
        let limit = |name| if get(&limits, name).is_zero() { get(&of_pod, name) } else { get(&limits, name) };
        Self {
            cpu_request: get(&requests, "cpu").milli(),
            cpu_limit: limit("cpu").milli(),
            memory_request: get(&requests, "memory").units(),
            memory_limit: limit("memory").units(),
        }
    }

    /// Request and limit.
    pub(super) fn get(&self, measure: Measure) -> (i64, i64) {
        match measure {
            Measure::Cpu => (self.cpu_request, self.cpu_limit),
            Measure::Memory => (self.memory_request, self.memory_limit),
        }
    }

    pub(super) fn with(self, measure: Measure, request: i64, limit: i64) -> Self {
        match measure {
            Measure::Cpu => Self { cpu_request: request, cpu_limit: limit, ..self },
            Measure::Memory => Self { memory_request: request, memory_limit: limit, ..self },
        }
    }

    /// A limit that was taken away stays in force, as the kernel was told.
    pub(super) fn without_removal(self, told: Self) -> Self {
        let keep = |want: i64, told: i64| if want == 0 { told } else { want };
        Self {
            cpu_limit: keep(self.cpu_limit, told.cpu_limit),
            memory_limit: keep(self.memory_limit, told.memory_limit),
            ..self
        }
    }
}

/// What the pod's cgroup is told; 0 where there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::pod) struct PodSizes {
    pub(in crate::pod) cpu_request: i64,
    pub(in crate::pod) cpu_limit: i64,
    pub(in crate::pod) memory_limit: i64,
}

impl PodSizes {
    /// As [`crate::resources::cgroup::pod_cgroup`] has it.
    pub(in crate::pod) fn of(pod: &v1::Pod) -> Self {
        let (requests, limits) = (Sum::requests(true).of(pod), Sum::limits(true).of(pod));
        let has = |name| match qos_class(pod) {
            QosClass::Guaranteed => true,
            QosClass::Burstable => is_limited(pod, name, true),
            QosClass::BestEffort => false,
        };
        Self {
            cpu_request: get(&requests, "cpu").milli(),
            cpu_limit: if has("cpu") { get(&limits, "cpu").milli() } else { 0 },
            memory_limit: if has("memory") { get(&limits, "memory").units() } else { 0 },
        }
    }

    pub(super) fn get(&self, part: PodPart) -> i64 {
        match part {
            PodPart::MemoryLimit => self.memory_limit,
            PodPart::CpuLimit => self.cpu_limit,
            PodPart::CpuRequest => self.cpu_request,
        }
    }

    pub(super) fn with(self, part: PodPart, to: i64) -> Self {
        match part {
            PodPart::MemoryLimit => Self { memory_limit: to, ..self },
            PodPart::CpuLimit => Self { cpu_limit: to, ..self },
            PodPart::CpuRequest => Self { cpu_request: to, ..self },
        }
    }

    /// A limit that was taken away stays in force, as the kernel was told.
    pub(super) fn without_removal(self, told: Self) -> Self {
        let keep = |want: i64, told: i64| if want == 0 { told } else { want };
        Self {
            cpu_limit: keep(self.cpu_limit, told.cpu_limit),
            memory_limit: keep(self.memory_limit, told.memory_limit),
            ..self
        }
    }
}

/// Whether the container wants to be started anew for this change. kubelet 1.36: not unless its `resizePolicy` says so.
pub(super) fn needs_restart(container: &v1::Container, told: Sizes, want: Sizes) -> bool {
    [(Measure::Cpu, "cpu"), (Measure::Memory, "memory")].into_iter().any(|(measure, name)| {
        let policies = || container.resize_policy.iter().flatten().find(|p| p.resource_name == name);
        told.get(measure) != want.get(measure) && policies().is_some_and(|p| p.restart_policy == "RestartContainer")
    })
}

/// Whether [`put`] would change anything.
pub(super) fn differ(pod: &v1::Pod, from: &v1::Pod) -> bool {
    let (Some(spec), Some(old)) = (&pod.spec, &from.spec) else { return false };
    let of_level = (has_pod_level(pod) || has_pod_level(from)) && spec.resources != old.resources;
    let old_inits = old.init_containers.as_deref().unwrap_or_default();
    let inits = spec.init_containers.iter().flatten().map(|c| (c, old_inits));
    let mut all = inits.chain(spec.containers.iter().map(|c| (c, old.containers.as_slice())));
    let is_other = |before: &v1::Container, now: &v1::Container| before.resources != now.resources;
    of_level
        || all.any(|(now, olds)| olds.iter().find(|o| o.name == now.name).is_some_and(|before| is_other(before, now)))
}

/// Puts the sizes of `from` into `pod`.
pub(super) fn put(pod: &mut v1::Pod, from: &v1::Pod) {
    let has_level = has_pod_level(pod);
    let (Some(spec), Some(old)) = (&mut pod.spec, &from.spec) else { return };
    if has_level || has_pod_level(from) {
        spec.resources.clone_from(&old.resources);
    }
    let old_inits = old.init_containers.as_deref().unwrap_or_default();
    let inits = spec.init_containers.iter_mut().flatten().map(|c| (c, old_inits));
    for (container, olds) in inits.chain(spec.containers.iter_mut().map(|c| (c, old.containers.as_slice()))) {
        let Some(before) = olds.iter().find(|o| o.name == container.name) else { continue };
        container.resources.clone_from(&before.resources);
    }
}
