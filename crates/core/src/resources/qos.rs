//! The class of service that follows from requests and limits.

use rubelet_api::v1;

use super::amount::Amount;
use super::sum::{Amounts, Side, amounts, get, has_pod_level};
pub use crate::pod::step::QosClass;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// The pod's class. kubelet 1.36: what `status.qosClass` says once it was told, else cpu and memory of all containers (init
/// containers too, ephemeral ones not), or of `spec.resources` alone when that is set.
pub fn qos_class(pod: &v1::Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => computed(pod),
    }
}

fn computed(pod: &v1::Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let resources: Vec<Option<&v1::ResourceRequirements>> = if has_pod_level(pod) {
        vec![spec.resources.as_ref()]
    } else {
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| c.resources.as_ref()).collect()
    };
    let mut requests = Amounts::new();
    let mut limits = Amounts::new();
    let mut all_limited = true;
    for one in resources {
        let own = amounts(one, Side::Limits);
        all_limited &= COUNTED.iter().all(|name| get(&own, name) > Amount::ZERO);
        for name in COUNTED {
            add_if_any(&mut limits, name, get(&own, name));
            add_if_any(&mut requests, name, get(&amounts(one, Side::Requests), name));
        }
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if all_limited
        && requests.iter().all(|(name, amount)| get(&limits, name) == *amount)
        && requests.len() == limits.len()
    {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

fn add_if_any(sum: &mut Amounts, name: &str, amount: Amount) {
    if amount > Amount::ZERO {
        let before = get(sum, name);
        sum.insert(name.to_owned(), before + amount);
    }
}

/// Whether the pod counts as critical for the system. kubelet 1.36: static and mirror pods, and a priority of two billion or more.
pub fn is_critical(pod: &v1::Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|a| a.get("kubernetes.io/config.source"));
    source.is_some_and(|s| s != "api")
        || annotations.is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
        || pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= SYSTEM_PRIORITY)
}

/// Whether the node cannot do without the pod: critical, and of the class `system-node-critical`.
pub fn is_node_critical(pod: &v1::Pod) -> bool {
    is_critical(pod) && pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref()) == Some("system-node-critical")
}

const SYSTEM_PRIORITY: i32 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{QosClass, qos_class};

    fn class(spec: Value) -> QosClass {
        qos_class(&serde_json::from_value(json!({ "metadata": {}, "spec": spec })).expect("a pod"))
    }

    #[test]
    fn the_class_follows_from_cpu_and_memory_of_all_containers() {
        let full = json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
        let partly = json!({ "requests": { "cpu": "1" } });
        let other = json!({ "requests": { "ephemeral-storage": "1Gi" } });
        let less = json!({ "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
        for (resources, init, class_wanted) in [
            (json!({}), json!({}), QosClass::BestEffort),
            (other, json!({}), QosClass::BestEffort),
            (full.clone(), full.clone(), QosClass::Guaranteed),
            (full.clone(), json!({}), QosClass::Burstable),
            (partly, full.clone(), QosClass::Burstable),
            (less, full.clone(), QosClass::Burstable),
        ] {
            let spec = json!({ "containers": [{ "name": "a", "resources": resources }], "initContainers": [{ "name": "i", "resources": init }] });
            assert_eq!(class(spec.clone()), class_wanted, "{spec}");
        }
        let pod_level = json!({ "containers": [{ "name": "a" }], "resources": full });
        assert_eq!(class(pod_level), QosClass::Guaranteed);
    }
}
