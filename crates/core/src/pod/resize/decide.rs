//! In which order the kernel is told: room for the pod first, then its containers, those that shrink before those that grow, and at last
//! what the pod no longer needs. kubelet 1.36: memory, then CPU; a pod's limit grows before its request and shrinks after it.

use rubelet_api::Quantity;
use rubelet_api::gather::Gather;
use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;
use rubelet_proto::cri;

use super::sizes::{PodSizes, Sizes, needs_restart};
use crate::node::NodeFacts;
use crate::pod::decide::Planner;
use crate::pod::kill::KillCause;
use crate::pod::spec::{self, Wanted};
use crate::pod::step::{Measure, PodPart, ResizeContainer, ResizePod, Step, StepKey};
use crate::resources::amount::Amount;
use crate::resources::cgroup::pod_cgroup;
use crate::resources::container::cpu_period;
use crate::resources::sum::get;
use crate::resources::{cpu_quota, cpu_shares, linux_resources, overhead_resources};

const PARTS: [PodPart; 3] = [PodPart::MemoryLimit, PodPart::CpuLimit, PodPart::CpuRequest];

/// One container that is to be told.
struct Update<'a> {
    wanted: Wanted<'a>,
    id: ContainerId,
    told: Sizes,
    want: Sizes,
}

/// Issues the next step of a resize. False: containers that start now would have no room yet.
pub(in crate::pod) fn decide(p: &mut Planner<'_>, sandbox: &SandboxId) -> bool {
    let record = p.record;
    let told = record.resize.cgroup.unwrap_or_else(|| PodSizes::of(&record.pod));
    let want = PodSizes::of(&record.pod).without_removal(told);
    let updates: Vec<Update<'_>> = spec::wanted(&record.pod)
        .filter_map(|wanted| {
            let (id, told, want) = record.told(&wanted)?;
            let is_told = !record.kills.contains_key(&id) && !needs_restart(wanted.spec, told, want);
            is_told.then_some(Update { wanted, id, told, want })
        })
        .collect();
    if record.steps.under_way().any(|key| matches!(key, StepKey::ResizePod(..) | StepKey::ResizeContainer(..))) {
        return !PARTS.iter().any(|part| is_growth(*part, told, want));
    }
    for (measure, parts) in [
        (Measure::Memory, [PodPart::MemoryLimit].as_slice()),
        (Measure::Cpu, [PodPart::CpuLimit, PodPart::CpuRequest].as_slice()),
    ] {
        if let Some(part) = parts.iter().find(|part| is_growth(**part, told, want)) {
            tell_pod(p, sandbox, told, *part, want);
            return false;
        }
        if let Some(update) = first(&updates, measure) {
            tell_container(p, update, measure);
            return true;
        }
        // What ends because of its new size needs the old one until it has ended.
        let is_leaving = record.kills.values().any(|k| k.cause == KillCause::Resize);
        if let Some(part) = parts.iter().rev().find(|part| told.get(**part) != want.get(**part))
            && !is_leaving
        {
            tell_pod(p, sandbox, told, *part, want);
            return true;
        }
    }
    true
}

/// kubelet 1.36: a first CPU limit counts as growth, a first memory limit does not.
fn is_growth(part: PodPart, told: PodSizes, want: PodSizes) -> bool {
    let (told, want) = (told.get(part), want.get(part));
    match part {
        PodPart::MemoryLimit => told != 0 && want > told,
        PodPart::CpuLimit | PodPart::CpuRequest => want > told,
    }
}

/// The next container to tell: one that shrinks, else one that grows.
fn first<'a, 'b>(updates: &'b [Update<'a>], measure: Measure) -> Option<&'b Update<'a>> {
    let (told, want) = (|u: &Update<'_>| u.told.get(measure), |u: &Update<'_>| u.want.get(measure));
    let differs = || updates.iter().filter(move |u| told(u) != want(u));
    // The limit decides; where it is the same, the request does.
    let is_less = |u: &&Update<'_>| {
        let ((old_request, old), (request, new)) = (told(u), want(u));
        if old == new { request < old_request } else { new < old }
    };
    differs().find(is_less).or_else(|| differs().next())
}

fn tell_container(p: &mut Planner<'_>, update: &Update<'_>, measure: Measure) {
    let (request, limit) = update.want.get(measure);
    let sizes = update.told.with(measure, request, limit);
    let container = resized(update.wanted.spec, sizes);
    let (_, limit_before) = update.told.get(measure);
    let is_less = measure == Measure::Memory && limit != 0 && (limit_before == 0 || limit < limit_before);
    p.issue(Step::ResizeContainer(Box::new(ResizeContainer {
        container: ContainerName::new(update.wanted.name()),
        id: update.id.clone(),
        measure,
        request,
        limit,
        resources: linux_resources(&p.record.pod, &container, p.node),
        usage_below: is_less.then_some(limit),
    })));
}

/// The container with these sizes. kubelet 1.36: and nothing else of its resources.
fn resized(container: &v1::Container, sizes: Sizes) -> v1::Container {
    let map = |cpu: i64, memory: i64| {
        let all = [("cpu", Quantity(format!("{cpu}m"))), ("memory", Quantity(memory.to_string()))];
        Some(all.into_iter().map(|(name, quantity)| (name.to_owned(), quantity)).into_map())
    };
    let resources = v1::ResourceRequirements {
        limits: map(sizes.cpu_limit, sizes.memory_limit),
        requests: map(sizes.cpu_request, sizes.memory_request),
        ..container.resources.clone().unwrap_or_default()
    };
    v1::Container { resources: Some(resources), ..container.clone() }
}

fn tell_pod(p: &mut Planner<'_>, sandbox: &SandboxId, told: PodSizes, part: PodPart, want: PodSizes) {
    let (pod, node) = (&p.record.pod, p.node);
    let to = want.get(part);
    let whole = pod_cgroup(pod, node);
    let (before, period) = (told.get(part), cpu_period(node));
    let is_cpu_limit = part == PodPart::CpuLimit && node.settings.cpu_cfs_quota;
    p.issue(Step::ResizePod(Box::new(ResizePod {
        part,
        to,
        path: whole.path,
        cpu_shares: (part == PodPart::CpuRequest).then(|| cpu_shares(to)),
        cpu_quota_us: is_cpu_limit.then(|| cpu_quota(to, period)),
        cpu_period_us: is_cpu_limit.then_some(whole.cpu_period_us),
        memory_limit_bytes: (part == PodPart::MemoryLimit).then_some(to),
        usage_below: (part == PodPart::MemoryLimit && (before == 0 || to < before)).then_some(to),
        request: cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: sandbox.to_string(),
            overhead: Some(overhead_resources(pod, node)),
            resources: Some(of_sandbox(pod, told.with(part, to), node)),
        },
    })));
}

/// What the runtime is told of the whole pod, without overhead.
fn of_sandbox(pod: &v1::Pod, sizes: PodSizes, node: &NodeFacts) -> cri::LinuxContainerResources {
    let overhead: crate::resources::sum::Amounts = pod
        .spec
        .iter()
        .flat_map(|s| s.overhead.iter().flatten())
        .map(|(name, quantity)| (name.clone(), Amount::of(quantity)))
        .into_map();
    let less = |whole: i64, part: i64| if whole == 0 { 0 } else { whole.saturating_sub(part).max(0) };
    let cpu = get(&overhead, "cpu").milli();
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: i64::try_from(cpu_shares(less(sizes.cpu_request, cpu))).unwrap_or(i64::MAX),
        memory_limit_in_bytes: less(sizes.memory_limit, get(&overhead, "memory").units()),
        ..Default::default()
    };
    if node.settings.cpu_cfs_quota {
        resources.cpu_period = cpu_period(node);
        resources.cpu_quota = cpu_quota(less(sizes.cpu_limit, cpu), resources.cpu_period);
    }
    resources
}
