//! Room for critical pods: which others have to end for it.

use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use super::Verdict;
use super::fit::{Lack, counted};
use crate::node::NodeFacts;
use crate::pod::step::QosClass;
use crate::resources::qos::{is_critical, qos_class};
use crate::resources::sum::{Sum, get};

/// Reason of a pod that had to end for a critical one.
pub const REASON: &str = "Preempting";
/// kubelet 1.36: its message, in status and event.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
/// kubelet 1.36: message of its condition `DisruptionTarget`.
pub const CONDITION_MESSAGE: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// An amount that has to become free.
#[derive(Clone, PartialEq, Debug)]
struct Need {
    resource: String,
    amount: i64,
}

/// A pod that may have to end.
#[derive(Clone, Copy)]
struct Victim<'a> {
    pod: &'a v1::Pod,
    pod_level: bool,
}

impl Victim<'_> {
    /// What becomes free with it. kubelet 1.36: overhead counts for what it asks for anyway.
    fn frees(&self, resource: &str) -> i64 {
        if resource == "pods" {
            return 1;
        }
        let sum = Sum::requests(self.pod_level);
        if get(&sum.without_overhead().of(self.pod), resource).is_zero() {
            return 0;
        }
        counted(resource, get(&sum.of(self.pod), resource))
    }

    /// Memory first, then CPU.
    fn size(&self) -> [i64; 2] {
        [self.frees("memory"), self.frees("cpu")]
    }
}

/// Chooses who ends so that `pod`, which lacks something only, can begin.
///
/// kubelet 1.36: as few guaranteed pods as possible, then burstable, then best-effort ones; of each class the pods that free most of
/// what is still needed, and of those the smaller ones.
pub(super) fn make_room(pod: &v1::Pod, active: &[&v1::Pod], lacks: &[Lack], node: &NodeFacts) -> Verdict {
    let needs: Vec<Need> =
        lacks.iter().map(|lack| Need { resource: lack.resource.clone(), amount: lack.missing() }).collect();
    match choose(pod, active, &needs, node.settings.gates.pod_level_resources) {
        Ok(victims) => {
            let uid = |v: &Victim<'_>| PodUid::new(v.pod.metadata.uid.as_deref().unwrap_or_default());
            // kubelet 1.36: the first thing that lacks is what it is counted by.
            let lacks = lacks.first().map(|lack| lack.resource.clone()).unwrap_or_default();
            Verdict::AdmittedAfter { victims: victims.iter().map(uid).collect(), lacks }
        }
        Err(unmet) => Verdict::rejected(
            "UnexpectedAdmissionError",
            format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to \
                 preempt: no set of running pods found to reclaim resources: {}",
                shown(&unmet)
            ),
        ),
    }
}

/// The victims, best-effort ones first; or what cannot be met even by all together.
fn choose<'a>(
    pod: &v1::Pod,
    active: &[&'a v1::Pod],
    needs: &[Need],
    pod_level: bool,
) -> Result<Vec<Victim<'a>>, Vec<Need>> {
    let of = |class: QosClass| -> Vec<Victim<'a>> {
        let may_go = active.iter().filter(|other| outranks(pod, other) && qos_class(other) == class);
        may_go.map(|pod| Victim { pod, pod_level }).collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let unmet = without(needs, best_effort.iter().chain(&burstable).chain(&guaranteed));
    if !unmet.is_empty() {
        return Err(unmet);
    }
    let guaranteed = nearest(guaranteed, without(needs, best_effort.iter().chain(&burstable)))?;
    let burstable = nearest(burstable, without(needs, best_effort.iter().chain(&guaranteed)))?;
    let best_effort = nearest(best_effort, without(needs, burstable.iter().chain(&guaranteed)))?;
    Ok([best_effort, burstable, guaranteed].concat())
}

/// Whether `other` may have to end for `pod`.
fn outranks(pod: &v1::Pod, other: &v1::Pod) -> bool {
    let priority = |pod: &v1::Pod| pod.spec.as_ref().and_then(|s| s.priority);
    is_critical(pod) && !is_critical(other)
        || priority(pod).zip(priority(other)).is_some_and(|(own, others)| own > others)
}

/// What is still needed once these have ended.
fn without<'v>(needs: &[Need], ended: impl Iterator<Item = &'v Victim<'v>> + Clone) -> Vec<Need> {
    let left = |need: &Need| {
        let freed = ended.clone().fold(0_i64, |sum, victim| sum.saturating_add(victim.frees(&need.resource)));
        Need { resource: need.resource.clone(), amount: need.amount.saturating_sub(freed) }
    };
    needs.iter().map(left).filter(|need| need.amount > 0).collect()
}

/// Takes the pod nearest to what is needed, again and again.
fn nearest(mut pods: Vec<Victim<'_>>, mut needs: Vec<Need>) -> Result<Vec<Victim<'_>>, Vec<Need>> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let key = |(at, victim): (usize, &Victim<'_>)| (distance(&needs, victim), victim.size(), at);
        // kubelet 1.36: of equals the last one.
        let best = pods.iter().enumerate().map(key).min_by(|a, b| {
            let by_distance = a.0.total_cmp(&b.0);
            by_distance.then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2))
        });
        let Some((.., at)) = best else { return Err(needs) };
        let victim = pods.swap_remove(at);
        needs = without(&needs, std::iter::once(&victim));
        chosen.push(victim);
    }
    Ok(chosen)
}

/// How much of each need stays unmet, each of the same weight.
#[expect(clippy::cast_precision_loss, reason = "a comparison of sizes")]
fn distance(needs: &[Need], victim: &Victim<'_>) -> f64 {
    let part = |need: &Need| {
        let left = need.amount.saturating_sub(victim.frees(&need.resource)).max(0);
        (left as f64 / need.amount as f64).powi(2)
    };
    needs.iter().map(part).sum()
}

fn shown(needs: &[Need]) -> String {
    let each: String = needs.iter().map(|need| format!("(res: {}, q: {}), ", need.resource, need.amount)).collect();
    format!("[{each}]")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sample::node;

    fn pod(name: &str, spec: Value) -> v1::Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).expect("a pod")
    }

    fn asking(name: &str, resources: Value) -> v1::Pod {
        pod(name, json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    fn burstable(name: &str, cpu: &str, memory: &str) -> v1::Pod {
        asking(name, json!({"requests": {"cpu": cpu, "memory": memory}}))
    }

    fn guaranteed(name: &str, cpu: &str, memory: &str) -> v1::Pod {
        asking(name, json!({"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}))
    }

    fn critical() -> v1::Pod {
        pod("critical", json!({"priority": 2_000_000_000, "containers": []}))
    }

    fn victims(active: &[v1::Pod], needs: &[(&str, i64)]) -> Result<Vec<String>, String> {
        let needs: Vec<Need> =
            needs.iter().map(|(name, amount)| Need { resource: (*name).to_owned(), amount: *amount }).collect();
        let active: Vec<&v1::Pod> = active.iter().collect();
        choose(&critical(), &active, &needs, true)
            .map(|all| all.iter().filter_map(|v| v.pod.metadata.uid.clone()).collect())
            .map_err(|unmet| shown(&unmet))
    }

    #[test]
    fn few_and_little_go_and_guaranteed_pods_last() {
        let mega = 1 << 20;
        let node = [
            asking("best", json!({})),
            burstable("b-small", "100m", "100Mi"),
            burstable("b-big", "500m", "300Mi"),
            guaranteed("g-small", "100m", "100Mi"),
            guaranteed("g-big", "1", "1Gi"),
        ];
        for (needs, wanted) in [
            // One that is enough, and no more than needed.
            (vec![("cpu", 100)], vec!["b-small"]),
            (vec![("cpu", 300)], vec!["b-big"]),
            (vec![("cpu", 600)], vec!["b-big", "b-small"]),
            (vec![("memory", 300 * mega)], vec!["b-big"]),
            // Guaranteed ones only for what all others together cannot free, and then those are not needed.
            (vec![("cpu", 1000)], vec!["g-big"]),
            (vec![("cpu", 700)], vec!["b-small", "b-big", "g-small"]),
            (vec![("pods", 1)], vec!["best"]),
            (vec![("pods", 1), ("cpu", 100)], vec!["b-small"]),
            (vec![("cpu", 100), ("memory", 300 * mega)], vec!["b-big"]),
            (vec![], vec![]),
        ] {
            let mut got = victims(&node, &needs).expect("there is room");
            let mut wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
            got.sort();
            wanted.sort();
            assert_eq!(got, wanted, "{needs:?}");
        }
    }

    #[test]
    fn what_cannot_be_met_is_named_and_nobody_goes() {
        let node = [burstable("b", "100m", "100Mi")];
        assert_eq!(
            victims(&node, &[("cpu", 150), ("memory", 1), ("pods", 2)]),
            Err("[(res: cpu, q: 50), (res: pods, q: 1), ]".to_owned())
        );
    }

    #[test]
    fn critical_pods_and_those_of_higher_priority_stay() {
        let with = |priority: Value| {
            let mut pod = pod("p", json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
            pod.spec.as_mut().expect("a spec").priority = priority.as_i64().and_then(|p| i32::try_from(p).ok());
            pod
        };
        let mut mirror = with(json!(null));
        mirror.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
        for (other, may_go) in [
            (with(json!(null)), true),
            (with(json!(1_999_999_999)), true),
            (with(json!(2_000_000_000)), false),
            (with(json!(2_000_001_000)), false),
            (mirror, false),
        ] {
            assert_eq!(outranks(&critical(), &other), may_go, "{other:?}");
        }
        let node_critical = with(json!(2_000_001_000));
        assert!(outranks(&node_critical, &critical()), "by priority");
    }

    #[test]
    fn overhead_goes_with_what_is_asked_for() {
        let pod = pod(
            "p",
            json!({
                "overhead": {"cpu": "10m", "memory": "1Mi"},
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}]}),
        );
        let victim = Victim { pod: &pod, pod_level: node().settings.gates.pod_level_resources };
        assert_eq!((victim.frees("cpu"), victim.frees("memory"), victim.frees("pods")), (110, 0, 1));
    }
}
