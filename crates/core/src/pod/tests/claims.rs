//! Resource claims: prepared before the sandbox, taken back before the end is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::world::World;
use crate::pod::needs::{ObjectName, ResourceClaimNeed};
use crate::pod::{Fact, Got, Need};
use crate::resources::claims::ClaimFacts;

fn world() -> World {
    let mut world =
        World::attached(json!({"containers": [{"name": "main", "resources": {"claims": [{"name": "gpu"}]}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}));
    world.node.settings.has_api_server = true;
    world
}

fn known(claim: Option<ClaimFacts>) -> BTreeMap<Need, Got> {
    let name = ObjectName { namespace: "default".into(), name: "g".into() };
    let need = Need::ResourceClaim(ResourceClaimNeed { claim: name, pod_uid: "u-1".into() });
    let services = (Need::Services { namespace: "default".into() }, Got::Services(Arc::default()));
    let claim = match claim {
        Some(claim) => Got::ResourceClaim(Arc::new(claim)),
        None => Got::NotFound("fetch ResourceClaim g: resourceclaims.resource.k8s.io \"g\" not found".to_owned()),
    };
    BTreeMap::from([services, (need, claim)])
}

fn allocated() -> ClaimFacts {
    ClaimFacts {
        uid: "c-1".into(),
        reserved_for: ["u-1".to_owned()].into(),
        drivers: Some(["d".to_owned()].into()),
        ..ClaimFacts::default()
    }
}

#[test]
fn claims_are_prepared_before_the_sandbox_and_taken_back_before_the_end_is_told() {
    let mut world = world();
    world.run_until(2);
    assert_eq!(world.log, [""; 0], "the claim is not known yet");
    world.tell(Fact::Inputs(known(Some(allocated()))));
    world.run_until(4);
    assert_eq!(world.log, ["2.0 prepare g", "2.0 sandbox 0", "2.0 start main 0"]);
    world.failing.push(("ReleaseClaims", "DRA driver d is not registered"));
    world.withdraw();
    world.run_until(30);
    assert!(world.log.iter().any(|l| l.ends_with("failed ReleaseClaims")), "{:?}", world.log);
    assert_eq!(world.status.phase.as_deref(), Some("Running"), "others may not have the device yet");
    world.failing.clear();
    world.run_until(60);
    assert!(world.log.iter().any(|l| l.ends_with("release claims")), "{:?}", world.log);
    assert!(world.record.is_gone());
}

#[test]
fn a_claim_that_cannot_be_had_is_told_and_tried_again_when_something_changes() {
    let mut world = world();
    world.tell(Fact::Inputs(known(None)));
    world.run_until(3);
    let words = "FailedPrepareDynamicResources : Failed to prepare dynamic resources: prepare dynamic resources: ";
    let told = |world: &World, what: &str| world.events.iter().any(|e| e.contains(&format!("{words}{what}")));
    assert!(
        told(&world, "fetch ResourceClaim g: resourceclaims.resource.k8s.io \"g\" not found"),
        "{:?}",
        world.events
    );
    world.tell(Fact::Inputs(known(Some(ClaimFacts { drivers: None, ..allocated() }))));
    world.run_until(3);
    assert!(told(&world, "ResourceClaim g: not allocated"), "{:?}", world.events);
    world.failing.push(("PrepareClaims", "DRA driver d is not registered"));
    world.tell(Fact::Inputs(known(Some(allocated()))));
    world.run_until(300);
    assert!(told(&world, "DRA driver d is not registered"), "{:?}", world.events);
    let tries = world.log.len();
    assert!((5..15).contains(&tries), "it waits longer and longer: {:?}", world.log);
    world.failing.clear();
    // The driver has come.
    world.tell(Fact::Devices(BTreeMap::new()));
    world.run_until(301);
    assert_eq!(world.log[tries..], ["300.0 prepare g", "300.0 sandbox 0", "300.0 start main 0"]);
}

#[test]
fn a_sandbox_that_is_lost_has_the_claims_prepared_again() {
    let mut world = world();
    world.tell(Fact::Inputs(known(Some(allocated()))));
    world.run_until(3);
    world.runtime.sandboxes[0].is_ready = false;
    world.look();
    world.run_until(60);
    let prepared = world.log.iter().filter(|l| l.ends_with("prepare g")).count();
    assert_eq!(prepared, 2, "{:?}", world.log);
}
