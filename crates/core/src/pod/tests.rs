//! Whole lives of pods in virtual time.

mod claims;
mod deleted;
mod drivers;
mod guests;
mod inputs;
mod properties;
mod resizes;
mod shown;
mod world;

use serde_json::json;
use world::{Life, World};

use super::fact::ProbeAnswer;
use super::{ContainerState, EvictOrder, Fact, Order, Stage};

#[test]
fn containers_start_in_their_order_after_the_sandbox() {
    let mut world = World::new(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    world.run_until(20);
    assert_eq!(world.log, ["1.0 sandbox 0", "1.0 start a 0", "1.0 start b 0"]);
}

#[test]
fn a_crash_is_restarted_at_once_and_then_later_and_later() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.lives.insert("a", vec![Life::For(0, 1)]);
    world.run_until(900);
    let starts: Vec<&str> =
        world.log.iter().filter(|l| l.contains("start")).map(|l| l.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(starts, ["1.0", "1.0", "11.0", "31.0", "71.0", "151.0", "311.0", "611.0"]);
    let back_offs: Vec<&String> = world.events.iter().filter(|e| e.contains("Back")).collect();
    assert_eq!(back_offs[0], "1.0 BackOff a: Back-off restarting failed container a in pod web_default(u-1)");
    assert_eq!(back_offs.len(), 7);
    assert_eq!(world.runtime.containers.len(), 1, "the newest that ended is kept");
}

#[test]
fn init_containers_end_before_the_next_and_sidecars_run_along() {
    let mut world = World::new(json!({
        "initContainers": [{"name": "one"}, {"name": "side", "restartPolicy": "Always"}, {"name": "two"}],
        "containers": [{"name": "main"}],
    }));
    world.lives.insert("one", vec![Life::For(2, 0)]);
    world.lives.insert("two", vec![Life::For(3, 0)]);
    world.run_until(20);
    assert_eq!(
        world.log,
        [
            "1.0 sandbox 0",
            "1.0 start one 0",
            "3.0 end one 0",
            "3.0 start side 0",
            "3.0 start two 0",
            "6.0 end two 0",
            "6.0 start main 0"
        ]
    );
    world.log.clear();
    world.tell(Fact::Withdrawn);
    world.run_until(30);
    assert_eq!(
        world.log,
        [
            "20.0 stop main 2",
            "20.0 end main 143",
            "20.0 stop side 2",
            "20.0 end side 143",
            "20.0 stop sandbox s0",
            "20.0 remove main",
            "20.0 remove one",
            "20.0 remove side",
            "20.0 remove two"
        ]
    );
    assert!(world.record.is_gone());
}

#[test]
fn a_node_that_goes_down_stops_a_pod_in_order_and_keeps_what_it_has() {
    let mut world = World::new(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "main"}],
        "terminationGracePeriodSeconds": 20,
    }));
    world.run_until(5);
    world.log.clear();
    world.tell(Fact::Order(Order::ShutDown { grace_secs: Some(7) }));
    world.run_until(400);
    let all = ["5.0 stop main 7", "5.0 end main 143", "5.0 stop side 7", "5.0 end side 143", "5.0 stop sandbox s0"];
    assert_eq!(world.log, all);
    assert_eq!(world.runtime.has_cgroup, Some(true), "nothing is given back");
    let status = serde_json::to_value(&world.status).unwrap();
    let told = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(
        (&status["phase"], &status["reason"], &status["message"]),
        (&json!("Failed"), &json!("Terminated"), &json!(told))
    );
    world.tell(Fact::Withdrawn);
    world.run_until(500);
    assert!(world.record.is_gone());
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut world = World::new(json!({
        "restartPolicy": "Never", "initContainers": [{"name": "one"}], "containers": [{"name": "main"}],
    }));
    world.lives.insert("one", vec![Life::For(1, 4)]);
    world.run_until(20);
    assert_eq!(world.log, ["1.0 sandbox 0", "1.0 start one 0", "2.0 end one 4", "2.0 stop sandbox s0"]);
    assert_eq!(world.record.stage().as_str(), "Cleaning");
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_pod_completes_and_keeps_its_containers() {
    let mut world = World::new(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]}));
    world.lives.insert("a", vec![Life::For(1, 0)]);
    world.lives.insert("b", vec![Life::For(2, 3), Life::For(1, 0)]);
    world.run_until(60);
    assert_eq!(
        world.log,
        [
            "1.0 sandbox 0",
            "1.0 start a 0",
            "1.0 start b 0",
            "2.0 end a 0",
            "3.0 end b 3",
            "3.0 start b 1",
            "4.0 end b 0",
            "4.0 stop sandbox s0",
            "4.0 remove b"
        ]
    );
    assert_eq!(world.status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(world.runtime.containers.len(), 2);
    world.tell(Fact::Withdrawn);
    world.run_until(61);
    assert!(world.record.is_gone());
}

#[test]
fn a_stubborn_container_gets_its_grace_and_the_hook_counts_in_it() {
    let mut world = World::new(json!({
        "terminationGracePeriodSeconds": 10,
        "containers": [{"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}],
    }));
    world.lives.insert("a", vec![Life::Stubborn]);
    world.hook_secs = 4;
    world.run_until(5);
    world.log.clear();
    world.tell(Fact::Withdrawn);
    world.run_until(60);
    assert_eq!(world.log, ["5.0 PreStop a", "9.0 stop a 6", "15.0 end a 137", "15.0 stop sandbox s0", "15.0 remove a"]);
    // One that takes longer than the grace is waited for no more; it goes on until the container has ended, and with it.
    let mut world = World::new(json!({
        "terminationGracePeriodSeconds": 10,
        "containers": [{"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}],
    }));
    world.lives.insert("a", vec![Life::Stubborn]);
    world.hook_secs = 100;
    world.run_until(5);
    world.log.clear();
    world.tell(Fact::Withdrawn);
    world.run_until(60);
    assert_eq!(
        world.log,
        [
            "5.0 PreStop a",
            "15.0 stop a 2",
            "17.0 end a 137",
            "17.0 cancel RunHook",
            "17.0 stop sandbox s0",
            "17.0 remove a"
        ]
    );
    let failures: Vec<&String> = world.events.iter().filter(|e| e.contains("PreStop")).collect();
    assert_eq!(failures, ["17.0 FailedPreStopHook a: PreStopHook failed"]);
    assert!(world.record.is_gone());
}

#[test]
fn a_sidecar_is_left_alone_while_the_last_regular_container_is_ended_for_good() {
    let mut world = World::new(json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
        "initContainers": [{
            "name": "side", "restartPolicy": "Always",
            "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1, "initialDelaySeconds": 2, "failureThreshold": 1},
        }],
        "containers": [{
            "name": "main", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
            "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1, "initialDelaySeconds": 5, "failureThreshold": 1},
        }],
    }));
    world.hook_secs = 20;
    world.lives.insert("side", vec![Life::For(7, 1)]);
    world.run_until(5);
    world.probes.insert("main Liveness".into(), ProbeAnswer::Failure("no".into()));
    world.run_until(7);
    world.probes.insert("side Liveness".into(), ProbeAnswer::Failure("no".into()));
    world.log.clear();
    world.run_until(60);
    let words: Vec<&str> = world.log.iter().filter_map(|l| l.split_once(' ').map(|(_, w)| w)).collect();
    assert_eq!(words, ["end side 1", "stop main 10", "end main 143", "stop sandbox s0"], "{:#?}", world.log);
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_failing_liveness_probe_restarts_the_container() {
    let mut world = World::new(json!({
        "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "a", "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 2, "failureThreshold": 3}}],
    }));
    world.probes.insert("a Liveness".into(), ProbeAnswer::Failure("no".into()));
    world.run_until(12);
    let kill = world.events.iter().find(|e| e.contains("Killing")).expect("it is killed");
    assert!(kill.ends_with("Killing a: Container a failed liveness probe, will be restarted"), "{kill}");
    let words: Vec<&str> = world.log.iter().filter_map(|l| l.split_once(' ').map(|(_, w)| w)).collect();
    assert_eq!(words[..5], ["sandbox 0", "start a 0", "stop a 5", "end a 143", "start a 1"]);
    assert_eq!(world.events.iter().filter(|e| e.contains("Liveness probe failed: no")).count() % 3, 0);
}

#[test]
fn the_last_container_that_fails_its_probe_for_good_ends_as_its_pod_does() {
    let probe = json!({"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 3});
    for (kind, others, words, stop) in [
        ("livenessProbe", vec![], "Stopping container a", "stop a 9"),
        ("startupProbe", vec![], "Stopping container a", "stop a 9"),
        ("livenessProbe", vec![Life::For(1, 0)], "Stopping container a", "stop a 9"),
        ("livenessProbe", vec![Life::Forever], "Container a failed liveness probe", "stop a 3"),
    ] {
        let mut a = json!({"name": "a"});
        a[kind] = probe.clone();
        let b = others.iter().map(|_| json!({"name": "b"}));
        let containers: Vec<_> = [a].into_iter().chain(b).collect();
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 9, "containers": containers});
        let mut world = World::new(spec);
        world.lives.insert("b", others.clone());
        // A startup probe is asked no more once it has succeeded.
        world.run_until(if kind == "startupProbe" { 0 } else { 4 });
        let failure = ProbeAnswer::Failure("no".into());
        world.probes.insert(format!("a {}{}", kind[..1].to_uppercase(), &kind[1..kind.len() - 5]), failure);
        world.run_until(8);
        let kill = world.events.iter().find(|e| e.contains("Killing a")).expect("it is killed");
        assert!(kill.ends_with(&format!("Killing a: {words}")), "{kind} {others:?}: {kill}");
        assert!(world.log.iter().any(|line| line.ends_with(stop)), "{kind} {others:?}: {:#?}", world.log);
    }
}

#[test]
fn a_probe_that_fails_because_its_container_ends_is_no_news() {
    let mut world = World::new(json!({
        "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "a", "readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1}}],
    }));
    world.lives.insert("a", vec![Life::Stubborn]);
    world.run_until(10);
    world.probes.insert("a Readiness".into(), ProbeAnswer::Unknown("it has exited".into()));
    world.tell(Fact::Withdrawn);
    world.run_until(60);
    assert!(world.record.is_gone());
    assert!(!world.events.iter().any(|e| e.contains("Unhealthy")), "{:#?}", world.events);
}

#[test]
fn a_lost_sandbox_is_replaced_with_everything_in_it() {
    let mut world =
        World::new(json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "a"}, {"name": "b"}]}));
    world.run_until(5);
    world.log.clear();
    world.runtime.sandboxes[0].is_ready = false;
    world.look();
    world.run_until(20);
    assert_eq!(
        world.log,
        [
            "5.0 stop a 3",
            "5.0 end a 143",
            "5.0 stop b 3",
            "5.0 end b 143",
            "5.0 stop sandbox s0",
            "5.0 sandbox 1",
            "5.0 start a 1",
            "5.0 start b 1"
        ]
    );
    assert_eq!(world.events.iter().filter(|e| e.contains("SandboxChanged")).count(), 1);
    assert_eq!(world.runtime.sandboxes.len(), 2, "its containers are kept, so it is too");
}

#[test]
fn a_pod_that_runs_is_adopted_without_a_touch() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let mut first = World::new(spec.clone());
    first.lives.insert("b", vec![Life::For(3, 1), Life::Forever]);
    first.run_until(40);
    let mut world = World::over(first.runtime.clone(), spec);
    world.run_until(60);
    assert_eq!(world.log, Vec::<String>::new());
    assert_eq!(world.running(), ["a", "b"]);
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn a_container_that_was_created_and_not_started_is_started() {
    let spec = json!({"containers": [{"name": "a"}]});
    let mut first = World::new(spec.clone());
    first.run_until(4);
    first.runtime.containers[0].state = ContainerState::Created;
    let mut world = World::over(first.runtime.clone(), spec);
    world.run_until(60);
    assert_eq!(world.log, ["1.0 start a 0"]);
}

#[test]
fn a_pod_that_takes_too_long_for_the_node_is_told_of_once() {
    let late = "ExceededGracePeriod";
    for (order, grace, secs) in [(true, 30, 45), (true, 1, 10), (false, 30, 0)] {
        let mut world = World::new(json!({"terminationGracePeriodSeconds": grace, "containers": [{"name": "a"}]}));
        world.run_until(5);
        world.failing.push(("StopContainer", "no"));
        if order {
            world.tell(Fact::Order(Order::Evict(EvictOrder { reason: "Evicted".into(), ..EvictOrder::default() })));
        } else {
            world.withdraw();
        }
        let told = |world: &World| world.events.iter().filter(|e| e.contains(late)).count();
        world.run_until(4 + secs);
        assert_eq!(told(&world), 0);
        world.run_until(200);
        assert_eq!(told(&world), usize::from(order), "{:?}", world.events);
    }
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 30, "containers": [{"name": "a"}]}));
    world.run_until(100);
    assert_eq!(
        world.log,
        ["1.0 sandbox 0", "1.0 start a 0", "31.0 stop a 2", "31.0 end a 143", "31.0 stop sandbox s0"]
    );
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
    assert_eq!(world.status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn rules_of_a_container_decide_by_its_exit_code() {
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
        {"name": "b"},
    ]});
    let mut world = World::new(spec);
    world.lives.insert("a", vec![Life::For(2, 42), Life::For(2, 1)]);
    world.run_until(60);
    let starts: Vec<&String> = world.log.iter().filter(|l| l.contains("start a")).collect();
    assert_eq!(starts, ["1.0 start a 0", "3.0 start a 1"]);
    assert_eq!(world.running(), ["b"]);
}

#[test]
fn all_containers_start_over_when_a_rule_says_so() {
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]},
        {"name": "b"},
    ]});
    let mut world = World::new(spec);
    world.lives.insert("a", vec![Life::For(2, 42), Life::Forever]);
    world.run_until(60);
    let starts: Vec<&String> = world.log.iter().filter(|l| l.contains("start")).collect();
    assert_eq!(starts, ["1.0 start a 0", "1.0 start b 0", "3.0 start a 1", "3.0 start b 1"]);
    assert_eq!(world.running(), ["a", "b"]);
}

#[test]
fn a_sidecar_or_an_init_container_can_say_so_too() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    for (source, policy, lives, wanted) in [
        (
            "side",
            "Always",
            vec![Life::For(3, 42), Life::Forever],
            ["first 0", "side 0", "a 0", "first 1", "side 1", "a 1"].as_slice(),
        ),
        ("first", "Never", vec![Life::For(1, 42), Life::For(1, 0)], &["first 0", "first 1", "side 0", "a 0"]),
    ] {
        let mut spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
            "initContainers": [{"name": "first"}, {"name": "side", "restartPolicy": "Always"}]});
        let at = if source == "first" { 0 } else { 1 };
        spec["initContainers"][at]["restartPolicy"] = policy.into();
        spec["initContainers"][at]["restartPolicyRules"] = rules.clone();
        let mut world = World::new(spec);
        world.lives.insert("first", vec![Life::For(1, 0)]);
        world.lives.insert(source, lives);
        world.run_until(60);
        let starts: Vec<&str> =
            world.log.iter().filter_map(|line| line.split_once(" start ")).map(|(_, what)| what).collect();
        assert_eq!(starts, wanted, "{source}");
        assert_eq!(world.running(), ["a", "side"], "{source}");
    }
}

#[test]
fn what_fails_is_tried_again() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.failing = vec![("CreateSandbox", "no network")];
    world.run_until(5);
    assert!(
        world.events.iter().any(|e| e.ends_with("FailedCreatePodSandBox : Failed to create pod sandbox: no network"))
    );
    world.failing = vec![("CreateContainer", "no such device")];
    world.run_until(40);
    let failures = world.log.iter().filter(|l| l.contains("failed CreateContainer")).count();
    assert!((3..=5).contains(&failures), "{:?}", world.log);
    world.failing.clear();
    world.run_until(60);
    assert_eq!(world.running(), ["a"]);
    assert!(matches!(world.record.stage(), Stage::Active));
}

#[test]
fn a_pod_whose_cgroup_vanished_is_killed_and_made_again() {
    let mut world = World::new(json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "a"}]}));
    world.run_until(10);
    world.runtime.has_cgroup = Some(false);
    world.look();
    world.run_until(20);
    let since = |w: &World| w.log.iter().filter(|l| l.starts_with("10.0")).cloned().collect::<Vec<_>>();
    assert_eq!(
        since(&world),
        ["10.0 stop a 7", "10.0 end a 143", "10.0 stop sandbox s0", "10.0 sandbox 1", "10.0 start a 1"]
    );
    assert_eq!(world.runtime.has_cgroup, Some(true));
}

#[test]
fn what_may_not_run_twice_has_failed_when_its_cgroup_vanishes() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    world.run_until(10);
    world.runtime.has_cgroup = Some(false);
    world.look();
    world.run_until(60);
    assert!(world.log.iter().all(|l| !l.contains("sandbox 1")), "{:#?}", world.log);
    assert_eq!((world.status.phase.as_deref(), world.running()), (Some("Failed"), Vec::<&str>::new()));
}

#[test]
fn what_may_not_run_twice_and_cannot_be_started_has_failed() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]}));
    world.failing = vec![("StartContainer(\"a", "no such program")];
    world.lives.insert("b", vec![Life::For(5, 0)]);
    world.run_until(60);
    let starts: Vec<&String> = world.log.iter().filter(|l| l.contains("Start") || l.contains("start")).collect();
    assert_eq!(starts, ["1.0 failed StartContainer(\"a-101\")", "1.0 start b 0"]);
    assert_eq!((world.status.phase.as_deref(), world.running()), (Some("Failed"), Vec::<&str>::new()));
}
