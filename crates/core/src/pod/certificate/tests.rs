use super::*;

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
