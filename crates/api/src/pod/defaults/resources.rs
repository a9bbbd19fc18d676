//! Defaults of requests and limits.

use std::collections::BTreeMap;

use crate::pod::requests::pod_requests;
use crate::quantity;
use crate::{Quantity, v1};

const HUGE_PAGES: &str = "hugepages-";

/// A container that says only its limits asks for just as much. Amounts finer than a thousandth are rounded up.
pub(super) fn set_container_defaults(resources: &mut v1::ResourceRequirements) {
    round(resources);
    let Some(limits) = &resources.limits else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// The whole pod's amounts, when some are said: requests follow from the containers', else from the pod's limits;
/// limits of huge pages follow from its requests.
pub(super) fn set_pod_defaults(spec: &mut v1::PodSpec) {
    for quantity in spec.overhead.iter_mut().flat_map(BTreeMap::values_mut) {
        quantity::round_up_to_milli(quantity);
    }
    let sum = pod_requests(spec);
    let Some(resources) = &mut spec.resources else { return };
    round(resources);
    let Some(limits) = &resources.limits else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_default();
    for (name, total) in &sum {
        if (name == "cpu" || name == "memory") && !requests.contains_key(name) {
            requests.insert(name.clone(), Quantity(total.to_string()));
        }
    }
    for (name, limit) in limits {
        let known = name == "cpu" || name == "memory" || name.starts_with(HUGE_PAGES);
        if known && !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// A field reference without a divisor has the divisor `0`, which means 1.
pub(super) fn divisor_default(field: &mut v1::ResourceFieldSelector) {
    field.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
}

fn round(resources: &mut v1::ResourceRequirements) {
    for list in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
        list.values_mut().for_each(quantity::round_up_to_milli);
    }
}
