use rubelet_core::now::Wall;

use super::*;

fn sandbox(is_ready: bool) -> ObservedSandbox {
    ObservedSandbox {
        id: SandboxId::new("s"),
        attempt: 0,
        is_ready,
        created_at: Wall::UNIX_EPOCH,
        ips: if is_ready { vec!["10.0.0.1".parse().expect("an address")] } else { Vec::new() },
        is_host_network: false,
    }
}

fn seen(at: Instant, is_ready: bool, pid: Option<u32>) -> Vec<Sighting> {
    vec![Sighting { at, seen: Seen::Sandbox(sandbox(is_ready), pid) }]
}

fn listed(at: Instant, rows: &[(&str, bool)]) -> Listed {
    let sandboxes = rows.iter().map(|(id, ready)| (SandboxId::new(id), *ready)).collect();
    Listed { at: Some(at), sandboxes, ..Listed::default() }
}

#[test]
fn an_older_look_that_answers_late_changes_nothing() {
    let (early, late) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let mut view = View::default();
    assert!(view.take(seen(late, false, None)));
    assert!(!view.take(seen(early, true, None)));
    assert!(!view.observed().sandboxes[0].is_ready);
    let gone = Sighting { at: late, seen: Seen::SandboxGone(SandboxId::new("s")) };
    assert!(view.take(vec![gone]));
    assert!(!view.take(seen(early, true, None)), "what is gone came back by an old look");
    assert!(view.is_empty());
}

#[test]
fn a_stopped_sandbox_keeps_its_addresses() {
    let now = Instant::now();
    let mut view = View::default();
    view.take(seen(now, true, None));
    view.take(seen(now, false, None));
    assert_eq!(view.ips(), sandbox(true).ips);
}

#[test]
fn a_relist_asks_only_for_what_it_shows_otherwise() {
    let (before, now, after) =
        (Instant::now(), Instant::now() + Duration::from_secs(1), Instant::now() + Duration::from_secs(2));
    let mut view = View::default();
    view.take(seen(now, true, None));
    assert_eq!(view.differences(&listed(after, &[("s", true)])), []);
    assert_eq!(view.differences(&listed(after, &[("s", false)])), [Ask::Sandbox(SandboxId::new("s"))]);
    assert_eq!(view.differences(&listed(after, &[])), [Ask::Sandbox(SandboxId::new("s"))]);
    assert_eq!(view.differences(&listed(before, &[])), [], "it was seen after the relist began");
    assert_eq!(view.differences(&listed(after, &[("s", true), ("t", false)])), [Ask::Sandbox(SandboxId::new("t"))]);
    assert_eq!(view.differences(&Listed::default()), [], "nobody listed anything");
}

#[test]
fn each_process_is_watched_once() {
    let now = Instant::now();
    let mut view = View::default();
    view.take(seen(now, true, Some(7)));
    assert_eq!(view.unwatched(), [(Ask::SandboxEnded(SandboxId::new("s")), 7)]);
    view.take(seen(now, true, Some(7)));
    assert_eq!(view.unwatched(), []);
}
