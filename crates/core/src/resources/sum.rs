//! Requests and limits of a whole pod.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::{Quantity, v1};

use super::amount::Amount;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Amount>;

/// Which of the two maps of `resources` is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Requests,
    Limits,
}

/// Whether `spec.overhead` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overhead {
    Included,
    Excluded,
}

/// How a pod's containers are added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sum {
    pub side: Side,
    pub overhead: Overhead,
    /// Whether `spec.resources` stands above the containers' (gate `PodLevelResources`).
    pub pod_level: bool,
}

impl Sum {
    /// What the pod asks for, overhead included.
    pub fn requests(pod_level: bool) -> Self {
        Self { side: Side::Requests, overhead: Overhead::Included, pod_level }
    }

    /// What the pod may use at most, overhead included.
    pub fn limits(pod_level: bool) -> Self {
        Self { side: Side::Limits, overhead: Overhead::Included, pod_level }
    }

    /// The same without `spec.overhead`.
    pub fn without_overhead(self) -> Self {
        Self { overhead: Overhead::Excluded, ..self }
    }

    /// Adds up the pod: regular containers and sidecars together, or the hungriest moment of its init phase if that is more.
    ///
    /// kubelet 1.36: pod-level values replace the sum for cpu, memory and huge pages; overhead comes on top of requests,
    /// and on top of such limits as there are.
    pub fn of(self, pod: &v1::Pod) -> Amounts {
        let Some(spec) = &pod.spec else { return Amounts::new() };
        let mut sum = self.of_containers(spec);
        if self.pod_level {
            for (name, amount) in amounts(spec.resources.as_ref(), self.side) {
                if is_pod_level(&name) {
                    sum.insert(name, amount);
                }
            }
        }
        if self.overhead == Overhead::Included {
            for (name, quantity) in spec.overhead.iter().flatten() {
                match self.side {
                    Side::Requests => *sum.entry(name.clone()).or_default() = get(&sum, name) + Amount::of(quantity),
                    Side::Limits => {
                        if let Some(limit) = sum.get_mut(name).filter(|l| !l.is_zero()) {
                            *limit = *limit + Amount::of(quantity);
                        }
                    }
                }
            }
        }
        sum
    }

    fn of_containers(self, spec: &v1::PodSpec) -> Amounts {
        let mut sum = Amounts::new();
        for container in &spec.containers {
            add(&mut sum, &amounts(container.resources.as_ref(), self.side));
        }
        let mut sidecars = Amounts::new();
        let mut init_most = Amounts::new();
        for container in spec.init_containers.iter().flatten() {
            let own = amounts(container.resources.as_ref(), self.side);
            let mut then = own.clone();
            if is_sidecar(container) {
                add(&mut sum, &own);
                add(&mut sidecars, &own);
                then.clone_from(&sidecars);
            } else {
                add(&mut then, &sidecars);
            }
            raise(&mut init_most, &then);
        }
        raise(&mut sum, &init_most);
        sum
    }
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &v1::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Resources that `spec.resources` may name.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the pod sets requests or limits of its own above its containers'.
pub fn has_pod_level(pod: &v1::Pod) -> bool {
    let resources = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    [Side::Requests, Side::Limits].iter().any(|side| amounts(resources, *side).keys().any(|name| is_pod_level(name)))
}

/// One side of a container's or pod's `resources`.
pub fn amounts(resources: Option<&v1::ResourceRequirements>, side: Side) -> Amounts {
    let map: Option<&BTreeMap<String, Quantity>> = resources.and_then(|r| match side {
        Side::Requests => r.requests.as_ref(),
        Side::Limits => r.limits.as_ref(),
    });
    map.into_iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).into_map()
}

/// The amount of that name, or nothing.
pub fn get(amounts: &Amounts, name: &str) -> Amount {
    amounts.get(name).copied().unwrap_or_default()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() = get(to, name) + *amount;
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        *to.entry(name.clone()).or_default() = get(to, name).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Sum, get};

    fn pod(spec: serde_json::Value) -> rubelet_api::v1::Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).expect("a pod")
    }

    #[test]
    fn the_hungriest_moment_of_the_init_phase_counts_with_the_sidecars_before_it() {
        let cpu = |value: &str| json!({ "requests": { "cpu": value } });
        let pod = pod(json!({
            "initContainers": [
                { "name": "first", "resources": cpu("500m") },
                { "name": "side", "restartPolicy": "Always", "resources": cpu("200m") },
                { "name": "second", "resources": cpu("700m") },
            ],
            "containers": [{ "name": "a", "resources": cpu("100m") }, { "name": "b", "resources": cpu("250m") }],
            "overhead": { "cpu": "10m", "memory": "1Mi" },
        }));
        let sum = Sum::requests(true).of(&pod);
        assert_eq!(get(&sum, "cpu").milli(), 910, "second + side + overhead");
        assert_eq!(get(&sum, "memory").units(), 1 << 20);
        assert_eq!(get(&Sum::requests(true).without_overhead().of(&pod), "cpu").milli(), 900);
        assert_eq!(Sum::limits(true).of(&pod).get("memory"), None, "overhead makes no limit where there is none");
    }

    #[test]
    fn pod_level_values_replace_the_sum_of_cpu_and_memory_only() {
        let pod = pod(json!({
            "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "2" } },
            "containers": [{ "name": "a", "resources": { "requests": { "cpu": "100m", "memory": "8Mi", "ephemeral-storage": "1Gi" } } }],
        }));
        let sum = Sum::requests(true).of(&pod);
        assert_eq!(
            (get(&sum, "cpu").milli(), get(&sum, "memory").units(), get(&sum, "ephemeral-storage").units()),
            (1000, 8 << 20, 1 << 30)
        );
        assert_eq!(get(&Sum::limits(true).of(&pod), "cpu").milli(), 2000);
        assert_eq!(get(&Sum::requests(false).of(&pod), "cpu").milli(), 100, "with the gate off");
    }
}
