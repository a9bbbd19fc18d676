//! `resources` and `allocatedResources`, of the pod and of its containers.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::quantity::Amount;
use rubelet_api::{Quantity, v1};

use crate::pod::observed::{ContainerState, ObservedContainer, ObservedResources};
use crate::resources::sum::{is_pod_level, is_sidecar};

type Quantities = BTreeMap<String, Quantity>;
type Amounts = BTreeMap<String, Amount>;

/// kubelet 1.36: no container gets less, in thousandths of a CPU; what is at or below it shows as it was asked for.
const CPU_LIMIT_MIN: i64 = 10;
const CPU_SHARES_MIN: i64 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

/// The pod's `resources`: what its containers add up to, or what it sets for itself. They are there even when empty.
pub(super) fn of_pod(pod: &v1::Pod, pod_level: bool) -> v1::ResourceRequirements {
    v1::ResourceRequirements {
        claims: pod.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.claims.clone()),
        limits: written(of_all(pod, Side::Limits, pod_level)),
        requests: written(of_all(pod, Side::Requests, pod_level)),
    }
}

/// The pod's `allocatedResources`.
pub(super) fn allocated_to_pod(pod: &v1::Pod, pod_level: bool) -> Option<Quantities> {
    written(of_all(pod, Side::Requests, pod_level))
}

/// A container's `resources`, once it has an instance: as asked for; of a running one what the runtime says it has.
pub(super) fn of_container(
    asked: Option<&v1::ResourceRequirements>,
    instance: &ObservedContainer,
) -> v1::ResourceRequirements {
    let mut resources = asked.cloned().unwrap_or_default();
    resources.limits = resources.limits.filter(|l| !l.is_empty());
    resources.requests = resources.requests.filter(|r| !r.is_empty());
    let has = match instance.state {
        ContainerState::Running { .. } => instance.resources.as_ref(),
        ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Unknown => None,
    };
    if let Some(has) = has {
        if let Some(limits) = &mut resources.limits {
            apply_limits(limits, has);
        }
        if let Some(requests) = &mut resources.requests {
            apply_requests(requests, has);
        }
    }
    resources
}

/// A container's `allocatedResources`: what it asked for.
pub(super) fn allocated(asked: Option<&v1::ResourceRequirements>) -> Option<Quantities> {
    asked.and_then(|r| r.requests.clone()).filter(|r| !r.is_empty())
}

fn apply_limits(limits: &mut Quantities, has: &ObservedResources) {
    if has.cpu_quota > 0 && has.cpu_period > 0 {
        let milli = div_ceil(has.cpu_quota.saturating_mul(1000), has.cpu_period);
        if milli > CPU_LIMIT_MIN || milli_of(limits, "cpu") > CPU_LIMIT_MIN {
            limits.insert("cpu".to_owned(), milli_quantity(milli));
        }
    }
    if has.memory_limit_bytes > 0 {
        limits.insert("memory".to_owned(), bytes_quantity(has.memory_limit_bytes));
    }
}

fn apply_requests(requests: &mut Quantities, has: &ObservedResources) {
    if has.cpu_shares >= CPU_SHARES_MIN {
        let milli = div_ceil(has.cpu_shares.saturating_mul(1000), 1024);
        if milli > CPU_SHARES_MIN || milli_of(requests, "cpu") > CPU_SHARES_MIN {
            requests.insert("cpu".to_owned(), milli_quantity(milli));
        }
    }
}

fn milli_of(map: &Quantities, name: &str) -> i64 {
    map.get(name).and_then(|q| Amount::parse(&q.0).ok()).map_or(0, |a| a.milli())
}

fn milli_quantity(milli: i64) -> Quantity {
    canonical(&format!("{milli}m"))
}

/// Bytes in the binary writing.
fn bytes_quantity(bytes: i64) -> Quantity {
    // A number of Ki keeps the binary writing; what is not a multiple is written out.
    if bytes % 1024 == 0 { canonical(&format!("{}Ki", bytes / 1024)) } else { Quantity(bytes.to_string()) }
}

fn canonical(text: &str) -> Quantity {
    Quantity(Amount::parse(text).map_or_else(|_| text.to_owned(), |a| a.to_string()))
}

fn div_ceil(value: i64, by: i64) -> i64 {
    value / by + i64::from(value % by > 0)
}

/// kubelet 1.36: regular containers and sidecars together, or the hungriest moment of the init phase if that is more; values of the
/// pod's own stand above that; overhead comes on top of requests, and of such limits as there are.
fn of_all(pod: &v1::Pod, side: Side, pod_level: bool) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &own(container.resources.as_ref(), side));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut moment = own(container.resources.as_ref(), side);
        if is_sidecar(container) {
            add(&mut sum, &moment);
            add(&mut sidecars, &moment);
            moment.clone_from(&sidecars);
        } else {
            add(&mut moment, &sidecars);
        }
        raise(&mut most, &moment);
    }
    raise(&mut sum, &most);
    if pod_level {
        sum.extend(own(spec.resources.as_ref(), side).into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    let overhead = spec.overhead.iter().flatten().filter_map(|(n, q)| Some((n.clone(), Amount::parse(&q.0).ok()?)));
    for (name, more) in overhead {
        let there_already = sum.get(&name).copied();
        match (side, there_already) {
            (Side::Limits, None) => {}
            (Side::Limits, Some(limit)) if limit.is_zero() => {}
            (Side::Requests | Side::Limits, before) => {
                sum.insert(name, before.map_or(more, |b| b.plus(more)));
            }
        }
    }
    sum
}

fn own(resources: Option<&v1::ResourceRequirements>, side: Side) -> Amounts {
    let map = resources.and_then(|r| match side {
        Side::Requests => r.requests.as_ref(),
        Side::Limits => r.limits.as_ref(),
    });
    map.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), Amount::parse(&q.0).ok()?))).into_map()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        to.entry(name.clone()).and_modify(|known| *known = known.plus(*amount)).or_insert(*amount);
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        to.entry(name.clone()).and_modify(|known| *known = (*known).max(*amount)).or_insert(*amount);
    }
}

fn written(amounts: Amounts) -> Option<Quantities> {
    let map: Quantities = amounts.into_iter().map(|(name, amount)| (name, Quantity(amount.to_string()))).into_map();
    (!map.is_empty()).then_some(map)
}
