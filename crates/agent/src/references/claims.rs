//! Claims and the volumes that they are bound to. A node may read them one at a time, and not watch them.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::Path;
use rubelet_apiserver::backoff::{Backoff, Chance, Growth};
use rubelet_core::pod::needs::{Claim, Got, ObjectName};

use super::fetch::{Teller, Tools, refusal_text};

/// kubelet 1.36 protects claims in use by this finalizer: without it a claim that goes must not be mounted.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// How long an unbound claim, or a server that does not answer, is left alone.
const AGAIN: Growth = Growth { first: Duration::from_millis(300), most: Duration::from_secs(10), jitter: 0.2 };

/// Asks until the claim is bound and its volume is known. What is bound stays bound; what may grow is asked for now and then.
pub(super) async fn follow(of: ObjectName, tools: &Tools, teller: &Teller) {
    let mut backoff = Backoff::new(AGAIN, tools.seed());
    loop {
        match fetch(&of, tools).await {
            Ok(claim) => {
                let may_grow = claim.volume.spec.as_ref().is_some_and(|s| s.csi.is_some());
                teller.tell(Got::Claim(Arc::new(claim.clone()))).await;
                return if may_grow {
                    follow_growth(&of, claim, tools, teller).await
                };
            }
            Err(why) => {
                teller.tell(Got::Failed(format!("error processing PVC {}/{}: {why}", of.namespace, of.name))).await;
            }
        }
        tokio::time::sleep(backoff.fail()).await;
    }
}

/// kubelet 1.36 asks with each sync of the pod, every 60 to 90 s: a node may not watch claims. Only what matters to the pod is told.
async fn follow_growth(of: &ObjectName, mut known: Claim, tools: &Tools, teller: &Teller) {
    let mut chance = Chance::new(tools.seed());
    loop {
        tokio::time::sleep(tools.period.mul_f64(1.0 + chance.share() / 2.0)).await;
        match fetch(of, tools).await {
            Ok(fresh) if is_same(&fresh, &known) => {}
            Ok(fresh) => {
                known = fresh.clone();
                teller.tell(Got::Claim(Arc::new(fresh))).await;
            }
            // It is mounted all the same.
            Err(why) => tracing::debug!(namespace = of.namespace, claim = of.name, why, "a bound claim is not told of"),
        }
    }
}

fn is_same(one: &Claim, other: &Claim) -> bool {
    one.claim.status == other.claim.status && one.claim.spec == other.claim.spec && one.volume.spec == other.volume.spec
}

async fn fetch(of: &ObjectName, tools: &Tools) -> Result<Claim, String> {
    let path = Path::to::<v1::PersistentVolumeClaim>(&of.namespace, &of.name);
    let claim: v1::PersistentVolumeClaim = tools
        .client
        .get(&path)
        .await
        .map_err(|e| format!("failed to fetch PVC from API server: {}", refusal_text(&e)))?;
    let name = volume_name(&claim)?;
    let volume: v1::PersistentVolume = tools
        .client
        .get(&Path::to_cluster::<v1::PersistentVolume>(&name))
        .await
        .map_err(|e| format!("failed to fetch PV {name} from API server: {}", refusal_text(&e)))?;
    check_bound(&volume, &name, claim.metadata.uid.as_deref().unwrap_or_default())?;
    Ok(Claim { claim, volume })
}

fn volume_name(claim: &v1::PersistentVolumeClaim) -> Result<String, String> {
    let is_protected = claim.metadata.finalizers.iter().flatten().any(|f| f == PROTECTION);
    if claim.metadata.deletion_timestamp.is_some() && !is_protected {
        return Err("PVC is being deleted".to_owned());
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound".to_owned());
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|name| !name.is_empty());
    name.ok_or_else(|| "PVC has empty pvc.Spec.VolumeName".to_owned())
}

fn check_bound(volume: &v1::PersistentVolume, name: &str, claim_uid: &str) -> Result<(), String> {
    let Some(bound) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let uid = bound.uid.as_deref().unwrap_or_default();
    if uid == claim_uid {
        Ok(())
    } else {
        Err(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {uid} does not point to claim.UID {claim_uid}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_bound_claim_has_a_volume() {
        let of = |metadata: serde_json::Value, phase: &str, name: &str| {
            let claim = json!({"metadata": metadata, "spec": {"volumeName": name}, "status": {"phase": phase}});
            volume_name(&serde_json::from_value(claim).expect("a claim"))
        };
        assert_eq!(of(json!({}), "Bound", "pv-1"), Ok("pv-1".to_owned()));
        assert_eq!(of(json!({}), "Pending", ""), Err("PVC is not bound".to_owned()));
        assert_eq!(of(json!({}), "Bound", ""), Err("PVC has empty pvc.Spec.VolumeName".to_owned()));
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(of(going, "Bound", "pv-1"), Err("PVC is being deleted".to_owned()));
        let kept = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [PROTECTION]});
        assert_eq!(of(kept, "Bound", "pv-1"), Ok("pv-1".to_owned()));
    }

    #[test]
    fn a_volume_points_back_at_its_claim() {
        let volume = |spec: serde_json::Value| serde_json::from_value(json!({"spec": spec})).expect("a volume");
        assert_eq!(check_bound(&volume(json!({"claimRef": {"uid": "1"}})), "pv", "1"), Ok(()));
        let other = check_bound(&volume(json!({"claimRef": {"uid": "2"}})), "pv", "1").unwrap_err();
        assert!(other.ends_with("ClaimRef.UID 2 does not point to claim.UID 1"), "{other}");
        assert!(check_bound(&volume(json!({})), "pv", "1").is_err());
    }
}
