//! What a pod asks for.

use std::collections::BTreeMap;

use crate::gather::Gather;
use crate::quantity::{Amount, parsed};
use crate::v1;

/// What all containers of a pod ask for together: the plain ones and sidecars at once, or an init container with the
/// sidecars before it, whichever is more.
pub(crate) fn pod_requests(spec: &v1::PodSpec) -> BTreeMap<String, Amount> {
    let mut total: BTreeMap<String, Amount> = BTreeMap::new();
    for container in &spec.containers {
        add(&mut total, &requests(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut most_in_init: BTreeMap<String, Amount> = BTreeMap::new();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&at_once);
            add(&mut total, &own);
        }
        for (name, amount) in at_once {
            let most = most_in_init.entry(name).or_insert(Amount::ZERO);
            *most = amount.max(*most);
        }
    }
    for (name, amount) in most_in_init {
        let entry = total.entry(name).or_insert(Amount::ZERO);
        *entry = amount.max(*entry);
    }
    total
}

fn requests(container: &v1::Container) -> BTreeMap<String, Amount> {
    let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    list.into_iter().flatten().filter_map(|(name, quantity)| Some((name.clone(), parsed(quantity)?))).into_map()
}

fn add(total: &mut BTreeMap<String, Amount>, more: &BTreeMap<String, Amount>) {
    for (name, amount) in more {
        let entry = total.entry(name.clone()).or_insert(Amount::ZERO);
        *entry = entry.plus(*amount);
    }
}
