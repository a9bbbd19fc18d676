//! Pods of an API server that are deleted there.

use std::sync::Arc;

use serde_json::json;

use super::world::{Life, World};
use crate::pod::{Fact, PodRecord, Source, Stage, Standing};

fn deleted(world: &World, grace_secs: i64) -> Fact {
    let mut pod = (**world.record.pod()).clone();
    pod.metadata.deletion_timestamp = Some(rubelet_api::meta::Time(world.now().wall));
    pod.metadata.deletion_grace_period_seconds = Some(grace_secs);
    Fact::Desired(Arc::new(pod))
}

#[test]
fn its_end_is_shown_when_nothing_lives_and_it_is_reclaimed_when_nothing_is_used() {
    let mut world = World::attached(json!({"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 30}));
    world.run_until(20);
    world.log.clear();
    assert_eq!(world.record.stage().standing(), Standing::Wanted);
    world.tell(deleted(&world, 30));
    assert_eq!(world.record.stage().standing(), Standing::Leaving);
    world.run_until(40);
    assert!(world.record.is_gone() && world.record.stage().standing() == Standing::Reclaimed);
    assert_eq!(world.status.phase.as_deref(), Some("Failed"), "it was killed by a signal");
    assert_eq!(world.log[0], "20.0 stop a 30");
}

#[test]
fn a_shorter_grace_counts_and_a_longer_does_not() {
    let mut world = World::attached(json!({"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 30}));
    world.lives.insert("a", vec![Life::Stubborn]);
    world.run_until(20);
    world.tell(deleted(&world, 30));
    world.run_until(25);
    world.tell(deleted(&world, 3));
    world.run_until(26);
    world.tell(deleted(&world, 100));
    world.run_until(40);
    assert!(world.log.contains(&"28.0 end a 137".to_owned()), "{:?}", world.log);
}

#[test]
fn one_that_comes_with_its_end_starts_nothing() {
    let mut world = World::attached(json!({"containers": [{"name": "a"}]}));
    let Fact::Desired(pod) = deleted(&world, 30) else { panic!("a pod") };
    world.record = PodRecord::new(Source::Api, pod);
    world.look();
    assert!(matches!(world.record.stage(), Stage::Stopping(_) | Stage::Cleaning(_)), "{:?}", world.record.stage());
    world.run_until(20);
    assert!(world.record.is_gone() && !world.log.iter().any(|l| l.contains("start") || l.contains("sandbox")));
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
}

#[test]
fn one_that_ended_goes_without_a_new_word() {
    let mut world = World::attached(json!({"containers": [{"name": "a"}], "restartPolicy": "Never"}));
    world.lives.insert("a", vec![Life::For(1, 0)]);
    world.run_until(20);
    let before = world.status.clone();
    assert_eq!(before.phase.as_deref(), Some("Succeeded"));
    assert_eq!(world.record.stage().standing(), Standing::Wanted);
    world.tell(deleted(&world, 30));
    assert_eq!(world.record.stage().standing(), Standing::Reclaimed, "nothing was in use any more");
    world.run_until(30);
    assert!(world.record.is_gone());
    assert_eq!(world.status, before);
}
