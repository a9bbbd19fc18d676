//! What containers and pods want.

use std::collections::BTreeMap;

use rubelet_api::gather::TryGather;
use rubelet_api::v1;

use super::super::amount::Amount;
use super::super::sum::{Side, amounts, is_sidecar};
use super::{init_containers, is_memory};

/// Bytes by resource.
pub(super) type Wanted = BTreeMap<String, u64>;

/// kubelet 1.36: requests, also of nothing.
pub(super) fn by_container(container: &v1::Container) -> Result<Wanted, String> {
    let requests = amounts(container.resources.as_ref(), Side::Requests);
    let of_memory = requests.into_iter().filter(|(name, _)| is_memory(name));
    let bytes = |amount: Amount| {
        let units = amount.units();
        u64::try_from(units).ok().filter(|_| Amount::from_units(units) == amount)
    };
    let wanted = of_memory.map(|(name, amount)| {
        let bytes = bytes(amount).ok_or("[memorymanager] failed to represent quantity as int64")?;
        Ok((name, bytes))
    });
    wanted.try_into_map()
}

/// kubelet 1.36: the hungriest moment, of resources that a regular container asks for.
pub(super) fn by_pod(pod: &v1::Pod) -> Result<Wanted, String> {
    let add = |to: &mut Wanted, name: String, bytes: u64| {
        let sum = to.entry(name).or_default();
        *sum = sum.saturating_add(bytes);
    };
    let (mut sidecars, mut most) = (Wanted::new(), Wanted::new());
    for container in init_containers(pod) {
        for (name, bytes) in by_container(container)? {
            if is_sidecar(container) {
                add(&mut sidecars, name, bytes);
            } else {
                let bytes = bytes.saturating_add(sidecars.get(&name).copied().unwrap_or_default());
                let most = most.entry(name).or_default();
                *most = bytes.max(*most);
            }
        }
    }
    let mut all = Wanted::new();
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        for (name, bytes) in by_container(container)? {
            add(&mut all, name, bytes);
        }
    }
    for (name, bytes) in &mut all {
        *bytes = bytes.saturating_add(sidecars.get(name).copied().unwrap_or_default());
        *bytes = most.get(name).copied().unwrap_or_default().max(*bytes);
    }
    Ok(all)
}
