use std::time::Duration;

use rubelet_proto::dra_health::{DeviceHealth, DeviceIdentifier, HealthStatus};
use serde_json::{Value, json};

use super::*;
use crate::now::Mono;

fn pod(spec: Value, status: Value) -> v1::Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "p1"}, "spec": spec, "status": status}),
    )
    .expect("a pod")
}

/// One claim by its name, one from a template, one that was left out.
fn three() -> v1::Pod {
    pod(
        json!({"containers": [
                {"name": "all", "resources": {"claims": [{"name": "own"}, {"name": "made"}]}},
                {"name": "one", "resources": {"claims": [{"name": "own", "request": "big"}]}},
                {"name": "none"}],
            "resourceClaims": [{"name": "own", "resourceClaimName": "c-own"},
                {"name": "made", "resourceClaimTemplateName": "t"}, {"name": "left", "resourceClaimTemplateName": "t"}]}),
        json!({"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "web-made-x1"}, {"name": "left"}]}),
    )
}

fn name(claim: &str) -> ObjectName {
    ObjectName { namespace: "ns".to_owned(), name: claim.to_owned() }
}

fn device(name: &str, requests: &[&str], cdi: &[&str]) -> Device {
    let owned = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
    Device { pool: "pool".to_owned(), name: name.to_owned(), share: None, requests: owned(requests), cdi: owned(cdi) }
}

fn facts(owner: Option<&str>, reserved: &[&str], drivers: Option<&[&str]>) -> ClaimFacts {
    ClaimFacts {
        uid: "u1".to_owned(),
        owner: owner.map(str::to_owned),
        reserved_for: reserved.iter().map(|s| (*s).to_owned()).collect(),
        drivers: drivers.map(|all| all.iter().map(|s| (*s).to_owned()).collect()),
    }
}

#[test]
fn the_service_is_the_drivers_first_that_we_speak() {
    let of = |offered: &[&str]| {
        let offered: Vec<String> = offered.iter().map(|s| (*s).to_owned()).collect();
        service("d", "/d.sock", &offered)
    };
    assert_eq!(of(&["v1.DRAPlugin"]), Ok("v1.DRAPlugin"));
    assert_eq!(of(&["v9.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAPlugin"]), Ok("v1beta1.DRAPlugin"));
    let head = "invalid supported gRPC versions of DRA driver plugin d at endpoint /d.sock: ";
    assert_eq!(
        of(&["1.0.0"]),
        Err(format!(
            "{head}none of services supported by the plugin ([\"1.0.0\"]) are supported by the kubelet ([\"v1.DRAPlugin\" \"v1beta1.DRAPlugin\"])"
        ))
    );
    assert_eq!(of(&[]), Err(format!("{head}empty list of supported gRPC services (aka supported versions)")));
}

#[test]
fn claims_are_called_as_the_pod_says_or_as_they_were_made() {
    let of = |pod: &v1::Pod| {
        named(pod, true).map(|all| all.into_iter().map(|n| (n.claim, n.is_generated)).collect::<Vec<_>>())
    };
    let wanted = vec![("c-own".to_owned(), false), ("web-made-x1".to_owned(), true)];
    assert_eq!(of(&three()), Ok(wanted));
    let early = pod(
        json!({"containers": [], "resourceClaims": [{"name": "made", "resourceClaimTemplateName": "t"}]}),
        json!({}),
    );
    assert_eq!(of(&early), Err("pod \"ns/web\": ResourceClaim not created yet".to_owned()));
    let empty = pod(json!({"containers": [], "resourceClaims": [{"name": "made"}]}), json!({}));
    let words = "pod \"ns/web\", spec.resourceClaim \"made\": none of the supported fields are set";
    assert_eq!(of(&empty), Err(words.to_owned()));
}

#[test]
fn a_claim_says_who_may_use_it() {
    let object = json!({"metadata": {"name": "c", "uid": "u1", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "other", "uid": "p0"},
            {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p1", "controller": true}]},
        "spec": {}, "status": {"reservedFor": [{"resource": "pods", "name": "web", "uid": "p1"}],
            "allocation": {"devices": {"results": [{"driver": "d", "pool": "a", "device": "0", "request": "r"},
                {"driver": "e", "pool": "a", "device": "1", "request": "r"}]}}}});
    let known = ClaimFacts::of(&serde_json::from_value(object).expect("a claim"));
    assert_eq!(known, facts(Some("p1"), &["p1"], Some(&["d", "e"])));
    assert!(known.is_ready_for("p1") && !known.is_ready_for("p0"));
    let fresh = json!({"metadata": {"name": "c", "uid": "u1"}, "spec": {}});
    assert_eq!(ClaimFacts::of(&serde_json::from_value(fresh).expect("a claim")), facts(None, &[], None));
}

#[test]
fn what_is_not_the_pods_is_refused_in_upstreams_words() {
    let own = Named { claim: "c".to_owned(), is_generated: false };
    let made = Named { claim: "c".to_owned(), is_generated: true };
    let wish = |facts: ClaimFacts, named: &Named| facts.wish(&three(), named).map(|wish| wish.drivers.len());
    for (facts, named, wanted) in [
        (facts(None, &["p1"], Some(&["d"])), &own, Ok(1)),
        (facts(Some("p1"), &["p1"], Some(&[])), &made, Ok(0)),
        (
            facts(None, &["p1"], Some(&["d"])),
            &made,
            Err("ResourceClaim ns/c was not created for Pod ns/web (Pod is not owner)"),
        ),
        (facts(None, &["p2"], Some(&["d"])), &own, Err("pod web (p1) is not allowed to use ResourceClaim c (u1)")),
        (facts(None, &["p1"], None), &own, Err("ResourceClaim c: not allocated")),
    ] {
        assert_eq!(wish(facts, named), wanted.map_err(str::to_owned));
    }
}

/// Two pods with one claim: `c-own` of two drivers.
fn begun() -> (Claims, Vec<Wish>) {
    let drivers = ["d".to_owned(), "e".to_owned()].into();
    (Claims::default(), vec![Wish { claim: name("c-own"), uid: "u1".to_owned(), drivers }])
}

#[test]
fn drivers_are_asked_once_for_all_pods_of_a_claim() {
    let (mut claims, wishes) = begun();
    let (one, two) = (PodUid::new("p1"), PodUid::new("p2"));
    let asked = BTreeMap::from([("u1".to_owned(), name("c-own"))]);
    let both = Batches::from([("d".to_owned(), asked.clone()), ("e".to_owned(), asked.clone())]);
    assert_eq!(claims.begin(&one, &wishes), Ok(both.clone()));
    assert_eq!(claims.begin(&one, &wishes), Ok(both.clone()), "again while they have not answered");
    claims.give(&name("c-own"), "d", vec![device("0", &[], &["v/c=0"])]);
    claims.prepared(&wishes);
    assert_eq!(claims.begin(&two, &wishes), Ok(Batches::new()));
    assert_eq!(claims.in_use(), BTreeMap::from([("<any>", 1), ("d", 1), ("e", 1)]));
    assert_eq!(claims.leave(&one), Batches::new(), "the other still uses it");
    claims.left(&one);
    assert_eq!(claims.pods(), BTreeSet::from([two.clone()]));
    assert_eq!(claims.leave(&two), both);
    assert_eq!(claims.begin(&two, &wishes), Ok(both), "a claim that was half taken back is prepared anew");
    claims.left(&two);
    assert_eq!((claims.held().count(), claims.in_use()), (0, BTreeMap::from([("<any>", 0)])));
}

#[test]
fn another_claim_of_the_same_name_waits_for_the_first() {
    let (mut claims, wishes) = begun();
    claims.begin(&PodUid::new("p0"), &wishes).expect("the first");
    let other = vec![Wish { uid: "u2".to_owned(), ..wishes[0].clone() }];
    let words =
        "old ResourceClaim with same name c-own and different UID u1 still exists (previous pod force-deleted?!)";
    assert_eq!(claims.begin(&PodUid::new("p1"), &other), Err(words.to_owned()));
    assert_eq!(claims.pods(), BTreeSet::from([PodUid::new("p0")]));
}

#[test]
fn a_driver_answers_for_all_claims() {
    let asked = BTreeMap::from([("u1".to_owned(), name("a")), ("u2".to_owned(), name("b"))]);
    let check = |answers: &[(&str, &str)]| {
        let answers: Vec<(String, &str)> = answers.iter().map(|(uid, error)| ((*uid).to_owned(), *error)).collect();
        check_answer("NodePrepareResources", &asked, answers.iter().map(|(uid, error)| (uid, *error)))
    };
    assert_eq!(check(&[("u1", ""), ("u2", "")]), Ok(()));
    for (answers, words) in [
        (&[("u1", "")][..], "NodePrepareResources skipped 1 ResourceClaims"),
        (&[("u1", ""), ("u3", "")], "NodePrepareResources returned result for unknown claim UID u3"),
        (&[("u1", ""), ("u2", "no room")], "NodePrepareResources failed for ResourceClaim b: no room"),
    ] {
        assert_eq!(check(answers), Err(words.to_owned()));
    }
}

/// All of the pod's claims with devices.
fn given() -> Claims {
    let (mut claims, mut wishes) = begun();
    wishes.push(Wish { claim: name("web-made-x1"), uid: "u2".to_owned(), drivers: ["d".to_owned()].into() });
    claims.begin(&PodUid::new("p1"), &wishes).expect("they are free");
    claims.give(
        &name("c-own"),
        "d",
        vec![device("0", &["big"], &["v/c=big"]), device("1", &["small"], &["v/c=small", "v/c=more"])],
    );
    claims.give(&name("c-own"), "e", vec![device("9", &[], &["w/c=9"])]);
    claims.give(&name("web-made-x1"), "d", vec![device("2", &["r"], &[])]);
    claims
}

#[test]
fn a_container_gets_the_devices_of_the_requests_that_it_names() {
    let (pod, claims) = (three(), given());
    let of = |nth: usize| claims.cdi_devices(&pod, &pod.spec.as_ref().expect("a spec").containers[nth], true);
    assert_eq!(
        of(0),
        Ok(vec!["v/c=big".to_owned(), "v/c=small".to_owned(), "v/c=more".to_owned(), "w/c=9".to_owned()])
    );
    assert_eq!(of(1), Ok(vec!["v/c=big".to_owned(), "w/c=9".to_owned()]));
    assert_eq!(of(2), Ok(Vec::new()));
    let words = "internal error: unable to get claim info for ResourceClaim c-own in namespace ns";
    let container = &pod.spec.as_ref().expect("a spec").containers[1];
    assert_eq!(Claims::default().cdi_devices(&pod, container, true), Err(words.to_owned()));
    let mut config =
        cri::ContainerConfig { cdi_devices: vec![cri::CdiDevice { name: "p/q=1".to_owned() }], ..Default::default() };
    fill_container(&mut config, vec!["v/c=big".to_owned(), "p/q=1".to_owned()]);
    let names: Vec<&str> = config.cdi_devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["v/c=big", "p/q=1"]);
}

#[test]
fn monitoring_is_told_of_each_device_of_a_claim() {
    let (pod, claims) = (three(), given());
    let shown = claims.shown(&pod, &pod.spec.as_ref().expect("a spec").containers[0], true);
    let claims: Vec<(&str, usize)> = shown.iter().map(|c| (c.claim_name.as_str(), c.claim_resources.len())).collect();
    assert_eq!(claims, [("c-own", 3), ("web-made-x1", 1)]);
    let one = &shown[0].claim_resources[1];
    assert_eq!((one.driver_name.as_str(), one.pool_name.as_str(), one.device_name.as_str()), ("d", "pool", "1"));
    assert_eq!(one.cdi_devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["v/c=small", "v/c=more"]);
}

#[test]
fn extended_resources_by_a_claim_are_the_containers_that_asked() {
    let pod = pod(
        json!({"containers": [{"name": "a", "resources": {"requests": {"example.com/gpu": "1"}}}, {"name": "b"}]}),
        json!({"extendedResourceClaimStatus": {"resourceClaimName": "web-ext", "requestMappings": [
            {"containerName": "a", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}]}}),
    );
    let all = named(&pod, true).expect("named");
    assert_eq!(all, [Named { claim: "web-ext".to_owned(), is_generated: false }]);
    assert_eq!(named(&pod, false), Ok(Vec::new()));
    assert!(is_extended(&pod, "a", "example.com/gpu") && !is_extended(&pod, "b", "example.com/gpu"));
    let mut claims = Claims::default();
    let wish = Wish { claim: name("web-ext"), uid: "u".to_owned(), drivers: ["d".to_owned()].into() };
    claims.begin(&PodUid::new("p1"), &[wish]).expect("it is free");
    claims.give(&name("web-ext"), "d", vec![device("0", &["container-0-request-0"], &["v/c=0"])]);
    let containers = &pod.spec.as_ref().expect("a spec").containers;
    assert_eq!(claims.cdi_devices(&pod, &containers[0], true), Ok(vec!["v/c=0".to_owned()]));
    assert_eq!(claims.cdi_devices(&pod, &containers[0], false), Ok(Vec::new()));
    assert_eq!(claims.cdi_devices(&pod, &containers[1], true), Ok(Vec::new()));
    assert_eq!(claims.shown(&pod, &containers[0], true).len(), 1);
}

#[test]
fn what_a_driver_says_of_its_devices_holds_for_a_while() {
    let (pod, claims) = (three(), given());
    let now = Mono(Duration::from_secs(100));
    let later = |secs| now + Duration::from_secs(secs);
    let word = |device: &str, health: HealthStatus, message: &str, timeout| DeviceHealth {
        device: Some(DeviceIdentifier { pool_name: "pool".to_owned(), device_name: device.to_owned() }),
        health: health.into(),
        last_updated_time: 0,
        health_check_timeout_seconds: timeout,
        message: message.to_owned(),
    };
    let mut health = Health::default();
    let shown = |health: &Health, messages| {
        let all = claims.health(&pod, health, messages);
        let of = |status: &v1::ResourceStatus| {
            let all = status.resources.iter().flatten().map(|one| {
                format!(
                    "{}={}{}",
                    one.resource_id,
                    one.health.clone().unwrap_or_default(),
                    one.message.clone().unwrap_or_default()
                )
            });
            format!("{} {}", status.name, all.collect::<Vec<_>>().join(" "))
        };
        all.iter().flat_map(|(name, all)| all.iter().map(move |one| format!("{name}: {}", of(one)))).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&health, true),
        [
            "all: claim:made d/pool/2=Unknown",
            "all: claim:own v/c=big=Unknown v/c=small=Unknown w/c=9=Unknown",
            "one: claim:own/big v/c=big=Unknown w/c=9=Unknown",
        ]
    );
    let told = [word("0", HealthStatus::Healthy, "", 0), word("1", HealthStatus::Unhealthy, "hot", 5)];
    let changed = health.told("d", &told, now);
    assert_eq!(changed.len(), 2);
    assert_eq!(claims.pods_with("d", &changed), BTreeSet::from([PodUid::new("p1")]));
    assert!(health.told("d", &told, now).is_empty(), "nothing new");
    assert_eq!(shown(&health, true)[1], "all: claim:own v/c=big=Healthy v/c=small=Unhealthyhot w/c=9=Unknown");
    assert_eq!(shown(&health, false)[1], "all: claim:own v/c=big=Healthy v/c=small=Unhealthy w/c=9=Unknown");
    assert_eq!(health.expires_at(), Some(later(5)));
    assert!(health.expire(later(4)).is_empty());
    let over = health.expire(later(5));
    assert_eq!(over, BTreeSet::from([("d".to_owned(), ("pool".to_owned(), "1".to_owned()))]));
    assert_eq!(shown(&health, true)[1], "all: claim:own v/c=big=Healthy v/c=small=Unknown w/c=9=Unknown");
    assert!(health.forget("d") && !health.forget("d"));
    let long = "x".repeat(2000);
    health.told("d", &[word("0", HealthStatus::Unhealthy, &long, 0)], now);
    assert!(shown(&health, true)[1].contains(&format!("v/c=big=Unhealthy{}... ", "x".repeat(1021))));
}
