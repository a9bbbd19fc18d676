//! The status that the API server shall have: what the node shows, and what others wrote.

use rubelet_api::v1;

/// kubelet 1.36: types of conditions that the node alone sets; where it sets none, there is none.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    "PodResizePending",
    "PodResizeInProgress",
];
/// Set by the node and by others.
const SHARED: &str = "DisruptionTarget";

/// What the API server has, with what is shown put over it. `is_mirror`: times that the node may have forgotten hold.
pub(super) fn merged(known: &v1::PodStatus, shown: &v1::PodStatus, is_mirror: bool) -> v1::PodStatus {
    let mut status = v1::PodStatus {
        start_time: known.start_time.clone().or_else(|| shown.start_time.clone()),
        // Not the node's.
        nominated_node_name: known.nominated_node_name.clone(),
        resource_claim_statuses: known.resource_claim_statuses.clone(),
        extended_resource_claim_status: known.extended_resource_claim_status.clone(),
        conditions: Some(conditions(known, shown, is_mirror)),
        ..shown.clone()
    };
    if has_ended(known) && !has_ended(shown) {
        // An end stays.
        (status.phase, status.reason, status.message) =
            (known.phase.clone(), known.reason.clone(), known.message.clone());
    }
    if has_ended(&status) {
        unready(&mut status);
    }
    status
}

fn conditions(known: &v1::PodStatus, shown: &v1::PodStatus, is_mirror: bool) -> Vec<v1::PodCondition> {
    let before = known.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<_> = before.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
    for told in shown.conditions.iter().flatten() {
        let old = before.iter().find(|c| c.type_ == told.type_ && c.status == told.status);
        let is_shared = told.type_ == SHARED;
        if !is_shared && !OWN.contains(&told.type_.as_str()) {
            continue;
        }
        let mut condition = told.clone();
        if let Some(since) = old.filter(|_| is_mirror || is_shared).and_then(|c| c.last_transition_time.clone()) {
            condition.last_transition_time = Some(since);
        }
        match conditions.iter_mut().find(|c| c.type_ == told.type_) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

fn has_ended(status: &v1::PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

/// kubelet 1.36: what has ended is not ready, whatever its containers were last.
fn unready(status: &mut v1::PodStatus) {
    let reason = if status.phase.as_deref() == Some("Failed") { "PodFailed" } else { "PodCompleted" };
    let ready = |c: &&mut v1::PodCondition| matches!(c.type_.as_str(), "Ready" | "ContainersReady");
    for condition in status.conditions.iter_mut().flatten().filter(ready).filter(|c| c.status == "True") {
        (condition.status, condition.reason, condition.message) = ("False".to_owned(), Some(reason.to_owned()), None);
    }
}
