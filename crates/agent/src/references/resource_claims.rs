//! ResourceClaims. A node may read them one at a time, and not watch them.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::groups::resource_v1::ResourceClaim;
use rubelet_apiserver::Path;
use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_core::pod::needs::{Got, ResourceClaimNeed};
use rubelet_core::resources::claims::ClaimFacts;

use super::fetch::{Teller, Tools, refusal_text};

/// How long a claim that the pod may not use yet is left alone.
const AGAIN: Growth = Growth { first: Duration::from_millis(500), most: Duration::from_secs(30), jitter: 0.2 };

/// Asks until the pod may use the claim: it keeps what it has then.
pub(super) async fn follow(of: ResourceClaimNeed, tools: &Tools, teller: &Teller) {
    let path = Path::to::<ResourceClaim>(&of.claim.namespace, &of.claim.name);
    let mut backoff = Backoff::new(AGAIN, tools.seed());
    loop {
        match tools.client.get::<ResourceClaim>(&path).await {
            Ok(claim) => {
                let facts = ClaimFacts::of(&claim);
                let is_ready = facts.is_ready_for(&of.pod_uid);
                teller.tell(Got::ResourceClaim(Arc::new(facts))).await;
                if is_ready {
                    return;
                }
            }
            // kubelet 1.36: the words.
            Err(error) => {
                teller
                    .tell(Got::Failed(format!("fetch ResourceClaim {}: {}", of.claim.name, refusal_text(&error))))
                    .await;
            }
        }
        tokio::time::sleep(backoff.fail()).await;
    }
}
