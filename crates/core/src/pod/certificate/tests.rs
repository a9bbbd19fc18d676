use rubelet_api::v1;
use serde_json::{Value, json};

use super::*;
use crate::pod::Source;
use crate::pod::needs::{Inputs, Need, needs};
use crate::pod::step::VolumeKind;
use crate::pod::volumes::{self, View};
use crate::sample;

const CHAIN: &str = "words\n-----BEGIN CERTIFICATE-----\nQUFB\n-----END CERTIFICATE-----\nbetween\n\
                     -----BEGIN CERTIFICATE-----\nQkJC\n-----END CERTIFICATE-----";
const CLEAN: &str = "-----BEGIN CERTIFICATE-----\nQUFB\n-----END CERTIFICATE-----\n\
                     -----BEGIN CERTIFICATE-----\nQkJC\n-----END CERTIFICATE-----\n";

/// So many seconds after the test's beginning.
fn at(secs: u64) -> Wall {
    later("2026-01-01T00:00:00Z".parse().expect("a time"), Duration::from_secs(secs))
}

fn request(name: &str, key: &str, made_at: u64) -> Request {
    Request::new(name.into(), key.into(), at(made_at), 0.0)
}

fn condition(type_: &str, reason: &str, message: &str) -> Condition {
    Condition { type_: type_.into(), reason: reason.into(), message: message.into() }
}

fn with(condition: Condition) -> Seen {
    Seen {
        conditions: vec![condition],
        chain: CHAIN.into(),
        begin_refresh_at: Some(at(3000)),
        not_after: Some(at(5000)),
    }
}

/// Issued, to be renewed at 3000, ending at 5000.
fn issued() -> Standing {
    let waiting = Standing::default().requested(request("req-1", "KEY1", 0));
    waiting.seen("ns", &with(condition("Issued", "", "")), 0.0).0
}

fn told(events: &[PodEvent]) -> Vec<(&str, &str)> {
    events.iter().map(|e| (e.reason.as_str(), e.message.as_str())).collect()
}

#[test]
fn a_certificate_is_requested_and_waited_for() {
    let standing = Standing::default();
    assert_eq!(standing.task(at(0)), Task::Request);
    assert_eq!(standing.got(), Got::Failed("credential bundle is not issued yet".into()));
    let first = request("req-1", "KEY1", 0);
    let standing = standing.requested(first.clone());
    assert_eq!(standing.task(at(9999)), Task::Watch(first.clone()));
    assert_eq!(standing.got(), Got::Failed("credential bundle is not issued yet".into()));
    for nothing in [
        Seen::default(),
        with(condition("Other", "", "")),
        Seen { not_after: None, ..with(condition("Issued", "", "")) },
    ] {
        assert_eq!(standing.clone().seen("ns", &nothing, 0.0), (standing.clone(), None), "{nothing:?}");
    }
    let Got::Certificate(got) = issued().got() else { panic!("{:?}", issued().got()) };
    assert_eq!((&*got.key, got.chain.as_str()), ("KEY1", CLEAN));
    assert!(!format!("{got:?} {:?}", issued().requested(first)).contains("KEY1"), "keys stay secret");
}

#[test]
fn a_certificate_is_renewed_and_serves_until_then() {
    let standing = issued();
    assert_eq!(standing.task(at(2999)), Task::WaitUntil(at(3000)));
    assert_eq!(standing.task(at(3000)), Task::Request);
    let standing = standing.requested(request("req-2", "KEY2", 3000));
    assert!(matches!(standing.task(at(3001)), Task::Watch(r) if r.name == "req-2"));
    assert!(matches!(standing.got(), Got::Certificate(old) if &*old.key == "KEY1"));
    let (renewed, event) =
        standing.seen("ns", &Seen { begin_refresh_at: Some(at(6000)), ..with(condition("Issued", "", "")) }, 0.5);
    assert!(event.is_none() && matches!(renewed.got(), Got::Certificate(new) if &*new.key == "KEY2"));
    assert_eq!(renewed.task(at(6000)), Task::WaitUntil(at(6150)), "renewals are spread over five minutes");
}

#[test]
fn what_is_denied_or_failed_stays_so_and_is_told() {
    let renewing = || issued().requested(request("req-1", "KEY2", 3000));
    let first = || Standing::default().requested(request("req-1", "KEY1", 0));
    for (before, type_, event, got) in [
        (
            first(),
            "Denied",
            "PodCertificateRequest ns/req-1 was denied, reason=\"R\", message=\"no \\\"x\\\"\"",
            "permanently denied: reason=\"R\" message=\"no \\\"x\\\"\"",
        ),
        (
            renewing(),
            "Denied",
            "PodCertificateRequest ns/req-1 was denied, reason=\"R\", message=\"no \\\"x\\\"\"",
            "permanently denied: reason=\"R\" message=\"no \\\"x\\\"\"",
        ),
        (
            first(),
            "Failed",
            "PodCertificateRequest ns/req-1 failed, reason=\"R\", message=\"no \\\"x\\\"\"",
            "permanently failed: reason=\"R\" message=\"no \\\"x\\\"\"",
        ),
        (
            renewing(),
            "Failed",
            "PodCertificateRequest ns/req-1 failed, reason=\"R\", message=\"no \\\"x\\\"\"",
            "permanently failed: reason=\"R\" message=\"no \\\"x\\\"\"",
        ),
    ] {
        let (after, told) = before.seen("ns", &with(condition(type_, "R", "no \"x\"")), 0.0);
        let told = told.expect("an event");
        assert_eq!((told.type_, told.reason.as_str(), told.message.as_str()), ("Warning", type_, event));
        assert_eq!(after.got(), Got::Failed(format!("PodCertificateRequest was {got}")));
        assert_eq!(after.task(at(9999)), Task::Nothing);
        assert_eq!(after.clone().requested(request("req-9", "K", 0)), after);
    }
}

#[test]
fn a_deleted_request_is_made_anew() {
    assert_eq!(Standing::default().requested(request("a", "K", 0)).deleted(), Standing::Unrequested);
    assert_eq!(issued().requested(request("b", "K", 3000)).deleted(), issued());
    assert_eq!(issued().deleted(), issued());
    assert_eq!(request("a", "K", 7).missing_until(), at(607));
    assert_eq!(Request::new("a".into(), "K".into(), at(0), 1.0).missing_until(), at(900));
}

#[test]
fn age_is_told_once_and_shown() {
    let overdue = ("CertificateOverdueForRefresh", "PodCertificate refresh overdue");
    let expired = ("CertificateExpired", "PodCertificate expired");
    for mut standing in [issued(), issued().requested(request("req-2", "K", 3000))] {
        for (secs, wanted, word, next) in [
            (3600, vec![], "fresh", Some(at(3600))),
            (3601, vec![overdue], "overdue_for_refresh", Some(at(5000))),
            (5000, vec![], "overdue_for_refresh", Some(at(5000))),
            (5001, vec![expired], "expired", None),
            (9999, vec![], "expired", None),
        ] {
            assert_eq!(told(&standing.remarks(at(secs))), wanted, "at {secs}");
            assert_eq!((standing.phase().word(at(secs)), standing.remark_at()), (word, next), "at {secs}");
        }
        assert!(matches!(standing.got(), Got::Certificate(_)), "an old one serves, too");
        assert_eq!(standing.deleted().remarks(at(10_000)), [], "nor after another request");
    }
    let of =
        |type_| Standing::default().requested(request("r", "K", 0)).seen("ns", &with(condition(type_, "", "")), 0.0).0;
    for (standing, word) in
        [(Standing::default(), "not_yet_issued"), (of("Denied"), "denied"), (of("Failed"), "failed")]
    {
        assert_eq!(standing.phase().word(at(9999)), word);
    }
}

/// A pod with one certificate, as the second source of its volume.
fn certified(spec: Value) -> v1::Pod {
    let certificate = json!({"podCertificate": {"signerName": "a/s", "keyType": "ED25519", "credentialBundlePath": "b",
        "keyPath": "own/key", "certificateChainPath": "own//chain", "maxExpirationSeconds": 7200,
        "userAnnotations": {"a/b": "c"}}});
    let mut all = json!({"serviceAccountName": "robot", "volumes": [{"name": "v", "projected": {"defaultMode": 0o444,
        "sources": [{"downwardAPI": {}}, certificate]}}]});
    spec.as_object().expect("fields").iter().for_each(|(field, value)| all[field] = value.clone());
    sample::pod_with(json!({}), all)
}

fn wanted() -> CertificateNeed {
    CertificateNeed {
        pod: ObjectName { namespace: "default".into(), name: "web".into() },
        pod_uid: "u-1".into(),
        account: "robot".into(),
        place: ("v".into(), 1),
        signer: "a/s".into(),
        key_type: "ED25519".into(),
        expiration_secs_max: Some(7200),
        annotations: BTreeMap::from([("a/b".into(), "c".into())]),
    }
}

#[test]
fn a_pod_needs_its_certificates_where_the_gate_is_on() {
    for (is_on, source, is_needed) in
        [(true, Source::Api, true), (false, Source::Api, false), (true, Source::File, false)]
    {
        let mut node = sample::node();
        node.settings.has_api_server = true;
        node.settings.gates.pod_certificate_request = is_on;
        let needs = needs(&certified(json!({})), source, &node, &Inputs::default());
        assert_eq!(needs.contains(&Need::Certificate(Box::new(wanted()))), is_needed, "{is_on} {source:?}");
    }
}

#[test]
fn a_volume_has_the_files_of_its_certificate() {
    let plan = |spec: Value, is_on: bool, inputs: &Inputs| {
        let pod = certified(spec);
        let mut node = sample::node();
        node.settings.gates.pod_certificate_request = is_on;
        let view = View { pod: &pod, node: &node, pod_ips: &[], inputs };
        volumes::plan(&view, &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0]).kind
    };
    let known = |got: Got| Inputs::new(BTreeMap::from([(Need::Certificate(Box::new(wanted())), got)]));
    for (spec, mode, owner) in [
        (json!({}), 0o444, None),
        (json!({"securityContext": {"fsGroup": 7}}), 0o600, None),
        (json!({"securityContext": {"runAsUser": 5}}), 0o600, Some(5)),
    ] {
        let VolumeKind::Files { files, .. } = plan(spec.clone(), true, &known(issued().got())) else {
            panic!("{spec}")
        };
        let files: Vec<_> = files
            .iter()
            .map(|f| (f.path.as_str(), std::str::from_utf8(&f.content).unwrap()))
            .zip(files.iter().map(|f| (f.mode, f.owner)))
            .collect();
        let bundle = format!("KEY1{CLEAN}");
        let texts = [("b", bundle.as_str()), ("own/chain", CLEAN), ("own/key", "KEY1")];
        assert_eq!(files, texts.map(|text| (text, (mode, owner))), "{spec}");
    }
    for (is_on, inputs, why) in [
        (true, known(Standing::default().got()), "credential bundle is not issued yet"),
        (false, known(issued().got()), "unimplemented: podCertificate needs the feature gate PodCertificateRequest"),
        (
            true,
            Inputs::new(BTreeMap::new()),
            "the podCertificate source of a projected volume refers to an object that has not been fetched yet",
        ),
        (
            true,
            Inputs::of(Source::File),
            "the podCertificate source of a projected volume needs an API server, no kubeClient defined",
        ),
    ] {
        assert_eq!(plan(json!({}), is_on, &inputs), VolumeKind::Refused { message: why.to_owned() });
    }
}
