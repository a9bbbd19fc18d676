use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::*;

fn wish() -> Wish {
    Wish {
        names: vec!["node-a.example".to_owned()],
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        ..Wish::of_client("node-a")
    }
}

fn made(names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:node-a");
    params.not_before = rcgen::date_time_ymd(2026, 11, 24);
    params.not_after = rcgen::date_time_ymd(2051, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn a_certificate_says_what_it_is_for() {
    let found = Certificate::of_der(&made(&["node-a.example", "10.0.0.1", "fd00::1", "more"])).unwrap();
    assert_eq!(found.not_before, "2026-11-24T00:00:00Z".parse().unwrap());
    // Beyond 2049 time is written otherwise.
    assert_eq!(found.not_after, "2051-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(found.common_name, "system:node:node-a");
    assert_eq!(found.organizations, ["system:nodes"]);
    assert_eq!(found.names, ["node-a.example", "more"]);
    assert!(found.fulfils(&wish()));
    for less in [&["node-a.example", "10.0.0.1"][..], &["10.0.0.1", "fd00::1"]] {
        assert!(!Certificate::of_der(&made(less)).unwrap().fulfils(&wish()));
    }
    assert!(!found.fulfils(&Wish::of_client("node-b")));
    assert!(Certificate::of_der(&made(&[])).unwrap().names.is_empty());
}

#[test]
fn renewal_is_late_in_its_life() {
    let mut certificate = Certificate::of_der(&made(&[])).unwrap();
    certificate.not_after = "2026-11-24T10:00:00Z".parse().unwrap();
    assert_eq!(certificate.renew_at(0.0), "2026-11-24T07:00:00Z".parse().unwrap());
    assert_eq!(certificate.renew_at(1.0), "2026-11-24T09:00:00Z".parse().unwrap());
    assert!(certificate.is_over("2026-11-24T10:00:01Z".parse().unwrap()));
    assert!(!certificate.is_over(certificate.renew_at(1.0)));
}

#[test]
fn a_server_needs_an_address() {
    let of = |names: &[&str], addresses: &[&str], enough| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Wish::of_server("a", names, addresses, enough)
    };
    assert!(of(&["a"], &["10.0.0.1"], false).is_some());
    assert!(of(&["a"], &[], false).is_none());
    assert!(of(&["a"], &[], true).is_some());
    assert!(of(&[], &[], true).is_none());
}

#[test]
fn waits_grow_to_half_a_minute() {
    let waits: Vec<u64> = (1..8).map(|failures| retry_after(failures, 0.0).as_secs()).collect();
    assert_eq!(waits, [2, 4, 8, 16, 32, 32, 32]);
    assert_eq!(retry_after(1, 1.0), Duration::from_millis(2200));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Certificate::of_der(&bytes);
    }

    #[test]
    fn a_broken_certificate_is_refused_or_read(at in 0usize..400, byte in any::<u8>()) {
        let mut der = made(&["node-a.example"]);
        let at = at % der.len();
        der[at] = byte;
        let _ = Certificate::of_der(&der);
        prop_assert!(Certificate::of_der(&der[..der.len() / 2]).is_none());
    }
}
