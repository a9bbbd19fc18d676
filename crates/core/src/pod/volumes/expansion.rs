//! A claim that has grown: when the node has its part to do, and what the claim's status says of it.

use rubelet_api::v1;
use serde_json::{Map, Value, json};

use crate::pod::needs::Claim;
use crate::resources::amount::Amount;

const STORAGE: &str = "storage";
/// `status.allocatedResourceStatuses.storage` while the node works on it, and when it gave up.
const IN_PROGRESS: &str = "NodeResizeInProgress";
const INFEASIBLE: &str = "NodeResizeInfeasible";
/// Conditions that speak of growing.
const RESIZE_CONDITIONS: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];
const NODE_ERROR: &str = "NodeResizeError";

/// The size that the volume has, where its claim does not have it yet and it is up to the node; as written, and in bytes.
pub fn wanted(claim: &Claim) -> Option<(String, i64)> {
    let has = claim.volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE)?;
    let status = claim.claim.status.as_ref()?;
    let told = status.capacity.as_ref()?.get(STORAGE)?;
    let is_larger = Amount::of(has) > Amount::of(told);
    (is_larger && may_node_go_on(status)).then(|| (has.0.clone(), Amount::of(has).units()))
}

/// kubelet 1.36: not while the controller is at it, nor after somebody found that it cannot be.
fn may_node_go_on(status: &v1::PersistentVolumeClaimStatus) -> bool {
    let stands = status.allocated_resource_statuses.as_ref().and_then(|all| all.get(STORAGE));
    matches!(stands.map(String::as_str), None | Some("" | "NodeResizePending" | IN_PROGRESS))
}

/// What is changed in the claim before the driver is asked; `None`: nothing.
pub fn started(claim: &v1::PersistentVolumeClaim) -> Option<Value> {
    let status = claim.status.as_ref()?;
    let stands = status.allocated_resource_statuses.as_ref()?.get(STORAGE)?;
    (stands != IN_PROGRESS).then(|| patch(claim, json!({"allocatedResourceStatuses": {STORAGE: IN_PROGRESS}})))
}

/// What is changed when it has its new size.
pub fn finished(claim: &v1::PersistentVolumeClaim, size: &str) -> Value {
    let kept = conditions(claim, |c| !RESIZE_CONDITIONS.contains(&c.type_.as_str()));
    let mut status = Map::new();
    status.insert("capacity".to_owned(), json!({STORAGE: size}));
    status.insert("conditions".to_owned(), if kept.is_empty() { Value::Null } else { Value::Array(kept) });
    if claim.status.as_ref().is_some_and(|s| s.allocated_resource_statuses.is_some()) {
        status.insert("allocatedResourceStatuses".to_owned(), json!({STORAGE: null}));
    }
    patch(claim, Value::Object(status))
}

/// What is changed when the driver refused for good: `message` is its word, `now` the API's time.
pub fn failed(claim: &v1::PersistentVolumeClaim, message: &str, now: &str, is_infeasible: bool) -> Value {
    let mut all = conditions(claim, |c| c.type_ != NODE_ERROR);
    all.push(json!({
        "type": NODE_ERROR,
        "status": "True",
        "lastTransitionTime": now,
        "message": format!("failed to expand pvc with {message}"),
    }));
    let mut status = Map::new();
    status.insert("conditions".to_owned(), Value::Array(all));
    if is_infeasible {
        status.insert("allocatedResourceStatuses".to_owned(), json!({STORAGE: INFEASIBLE}));
    }
    patch(claim, Value::Object(status))
}

/// Of this very version of the claim.
fn patch(claim: &v1::PersistentVolumeClaim, status: Value) -> Value {
    json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status})
}

fn conditions(
    claim: &v1::PersistentVolumeClaim,
    is_kept: impl Fn(&v1::PersistentVolumeClaimCondition) -> bool,
) -> Vec<Value> {
    let all = claim.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.filter(|c| is_kept(c)).filter_map(|c| rubelet_api::tree::to_tree(c).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(capacity: &str, status: Value) -> Claim {
        let mut all = json!({"capacity": {"storage": "1Gi"}});
        for (key, value) in status.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let claim = json!({"metadata": {"name": "c", "resourceVersion": "7"}, "status": all});
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": capacity}}});
        Claim {
            claim: serde_json::from_value(claim).expect("a claim"),
            volume: serde_json::from_value(volume).expect("a volume"),
        }
    }

    #[test]
    fn the_node_expands_what_the_controller_has_left_to_it() {
        let stands = |word: &str| json!({"allocatedResourceStatuses": {"storage": word}});
        let grown = Some(("2Gi".to_owned(), 2 << 30));
        for (capacity, status, is_wanted) in [
            ("1Gi", json!({}), None),
            ("1024Mi", json!({}), None),
            ("512Mi", json!({}), None),
            ("2Gi", json!({}), grown.clone()),
            ("2Gi", stands("NodeResizePending"), grown.clone()),
            ("2Gi", stands("NodeResizeInProgress"), grown),
            ("2Gi", stands("NodeResizeInfeasible"), None),
            ("2Gi", stands("ControllerResizeInProgress"), None),
        ] {
            assert_eq!(wanted(&claim(capacity, status.clone())), is_wanted, "{capacity} {status}");
        }
    }

    #[test]
    fn the_claim_says_what_became_of_it() {
        let pending = json!({"type": "FileSystemResizePending", "status": "True"});
        let other = json!({"type": "ModifyingVolume", "status": "True"});
        let of = claim(
            "2Gi",
            json!({"allocatedResourceStatuses": {"storage": "NodeResizePending"}, "conditions": [pending, other]}),
        )
        .claim;
        assert_eq!(
            started(&of),
            Some(json!({"metadata": {"resourceVersion": "7"},
                "status": {"allocatedResourceStatuses": {"storage": "NodeResizeInProgress"}}}))
        );
        assert_eq!(
            finished(&of, "2Gi"),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"capacity": {"storage": "2Gi"},
                "conditions": [{"type": "ModifyingVolume", "status": "True"}],
                "allocatedResourceStatuses": {"storage": null}}})
        );
        let failed = failed(&of, "no space", "2026-01-01T00:00:00Z", true);
        assert_eq!(failed["status"]["allocatedResourceStatuses"]["storage"], "NodeResizeInfeasible");
        assert_eq!(failed["status"]["conditions"][2]["message"], "failed to expand pvc with no space");
        let plain = claim("2Gi", json!({})).claim;
        assert_eq!(started(&plain), None);
        assert_eq!(finished(&plain, "2Gi")["status"], json!({"capacity": {"storage": "2Gi"}, "conditions": null}));
    }
}
