//! Container statuses, moment by moment.

use rubelet_api::ids::{ContainerId, ContainerName};
use serde_json::{Value, json};

use super::{Bench, LOST, at, condition, container, exited, one, running, staged, two};
use crate::pod::backoff::BackOff;
use crate::pod::container::{EndedByUs, Failure, Launch};
use crate::pod::fact::{Done, Fact, ImageFound, Source};
use crate::pod::kill::KillCause;
use crate::pod::observed::{ContainerState, ObservedResources};
use crate::pod::restart_all::RestartAll;
use crate::pod::spec;
use crate::pod::stage::StopCause;
use crate::pod::step::StepKey;

/// Lets the record believe that the container is started again now.
fn restart(bench: &mut Bench, secs: u64) {
    let key = StepKey::EnsureImage(ContainerName::new("a"));
    bench.record.absorb(Fact::StepStarted(key), at(secs));
}

fn reason(status: &Value) -> Option<&str> {
    container(status, "a")["state"]["waiting"]["reason"].as_str()
}

#[test]
fn an_agent_that_restarts_among_restarting_containers_goes_on() {
    let over = json!({ "exitCode": 137, "reason": "RestartingAllContainers" });
    let given = json!({ "phase": "Running", "containerStatuses": [{
        "name": "a", "image": "busybox", "imageID": "", "ready": false, "restartCount": 1,
        "state": { "waiting": { "reason": "RestartingAllContainers" } }, "lastState": { "terminated": over },
    }] });
    let bench = Bench::with(Source::Api, one("Never"), given);
    let shown = bench.shown(1);
    assert_eq!(shown["phase"], "Running");
    assert_eq!(condition(&shown, "Ready")["reason"], "ContainersNotReady", "it starts over, whatever the policy says");
    assert_eq!(container(&shown, "a")["restartCount"], 1);
}

/// Ends the start that is under way with a started instance.
fn started(bench: &mut Bench, count: u32, secs: u64) {
    let (name, id) = (ContainerName::new("a"), ContainerId::new(format!("a-{count}")));
    let key = StepKey::EnsureImage(name.clone());
    bench.record.absorb(Fact::StepDone { key, outcome: Ok(Done::Image(ImageFound::default())) }, at(secs));
    let steps = [
        (StepKey::CreateContainer(name, count), Done::Container(id.clone())),
        (StepKey::StartContainer(id), Done::Plain),
    ];
    for (key, done) in steps {
        bench.record.absorb(Fact::StepStarted(key.clone()), at(secs));
        bench.record.absorb(Fact::StepDone { key, outcome: Ok(done) }, at(secs));
    }
}

#[test]
fn a_crashing_container_backs_off_and_shows_its_last_end() {
    let end = |count: u32, finished: u64| ContainerState::Exited {
        started_at: Some(at(u64::from(count) * 60).wall),
        finished_at: at(finished).wall,
        code: 7,
        reason: "Error".into(),
        message: String::new(),
    };
    let mut bench = Bench::new(Source::File, one("Always"));
    bench.has("a", 0, end(0, 1)).look(1);
    let shown = bench.publish(1);
    let a = container(&shown, "a");
    assert_eq!(
        (&a["state"]["terminated"]["exitCode"], &a["lastState"]),
        (&json!(7), &json!({})),
        "at first it starts at once"
    );
    restart(&mut bench, 2);
    started(&mut bench, 1, 3);
    bench.has("a", 1, end(1, 61)).look(61);
    let shown = bench.publish(62);
    let a = container(&shown, "a");
    let message = "back-off 10s restarting failed container=a pod=web_default(u-1)";
    assert_eq!(a["state"], json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } }));
    assert_eq!(a["lastState"]["terminated"]["containerID"], "containerd://a-1");
    assert_eq!((&a["containerID"], &a["restartCount"]), (&json!("containerd://a-1"), &json!(1)));
    assert_eq!((&shown["phase"], &a["ready"], &a["started"]), (&json!("Running"), &json!(false), &json!(false)));
    // Until the next one runs, that is what it was.
    assert_eq!(bench.publish(70), shown);
    assert_eq!(bench.publish(71), shown);
    restart(&mut bench, 71);
    assert_eq!(container(&bench.shown(73), "a")["state"], container(&shown, "a")["state"]);
    bench.has("a", 2, ContainerState::Created).look(72);
    assert_eq!(container(&bench.shown(73), "a"), container(&shown, "a"), "one that is about to start is not there yet");
    started(&mut bench, 2, 73);
    bench.has("a", 2, running()).look(122);
    let shown = bench.publish(122);
    let a = container(&shown, "a");
    assert!(a["state"]["running"].is_object());
    assert_eq!(a["lastState"]["terminated"]["containerID"], "containerd://a-1");
    bench.has("a", 2, end(2, 125)).look(125);
    let shown = bench.publish(126);
    assert!(
        container(&shown, "a")["state"]["waiting"]["message"].as_str().is_some_and(|m| m.starts_with("back-off 20s "))
    );
    // An image that is not there any more is what it waits for next; how it crashed is known from before.
    bench.publish(146);
    bench.memory("a").failure =
        Some(Failure { reason: "ErrImageNeverPull".into(), message: "gone".into(), retry_at: None });
    assert!(reason(&bench.shown(144)).is_some_and(|r| r == "CrashLoopBackOff"));
    assert!(reason(&bench.shown(146)).is_some_and(|r| r == "ErrImageNeverPull"));
    bench.memory("a").start_failed = Some((ContainerId::new("a-2"), at(125).wall));
    assert!(reason(&bench.shown(146)).is_some_and(|r| r == "CrashLoopBackOff"));
    // Being stopped, it waits for nothing.
    let shown = bench.stopping(StopCause::Withdrawn).shown(127);
    assert_eq!(container(&shown, "a")["state"]["terminated"]["containerID"], "containerd://a-2");
    assert_eq!(container(&shown, "a")["lastState"]["terminated"]["containerID"], "containerd://a-1");
}

#[test]
fn a_container_that_does_not_start_says_why() {
    let mut bench = Bench::new(Source::File, staged("Always"));
    let why = Failure { reason: "ImagePullBackOff".into(), message: "Back-off pulling image".into(), retry_at: None };
    assert_eq!(container(&bench.shown(1), "a")["state"], json!({ "waiting": { "reason": "PodInitializing" } }));
    bench.memory("first").failure = Some(why);
    let expected = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } });
    assert_eq!(container(&bench.shown(1), "first")["state"], expected);
    assert_eq!(container(&bench.shown(1), "last")["state"], json!({ "waiting": { "reason": "PodInitializing" } }));
    // One that was created and could not be started.
    let why = Failure { reason: "RunContainerError".into(), message: "no such file".into(), retry_at: None };
    let mut bench = Bench::new(Source::File, one("Always"));
    let end = ContainerState::Exited {
        started_at: None,
        finished_at: at(6).wall,
        code: 128,
        reason: "StartError".into(),
        message: "failed to create containerd task".into(),
    };
    bench.memory("a").failure = Some(why);
    let shown = bench.has("a", 0, end).look(7).shown(7);
    let a = container(&shown, "a");
    assert_eq!(a["state"], json!({ "waiting": { "reason": "RunContainerError", "message": "no such file" } }));
    let expected = json!({
        "containerID": "containerd://a-0", "exitCode": 128, "reason": "StartError",
        "message": "failed to create containerd task",
        "startedAt": "1970-01-01T00:00:00Z", "finishedAt": "2023-11-14T22:13:26Z",
    });
    assert_eq!(a["lastState"]["terminated"], expected);
    assert_eq!(shown["phase"], "Running", "it was started once");
}

#[test]
fn a_container_runs_when_its_post_start_hook_is_over() {
    let mut bench = Bench::new(Source::File, one("Always"));
    bench.has("a", 0, running()).look(6);
    let id = ContainerId::new("a-0");
    bench.memory("a").launch = Some(Launch::Hook { id });
    let shown = bench.shown(6);
    assert_eq!(container(&shown, "a")["state"], json!({ "waiting": { "reason": "ContainerCreating" } }));
    assert_eq!((&shown["phase"], &container(&shown, "a")["containerID"]), (&json!("Pending"), &Value::Null));
    let shown = bench.stopping(StopCause::Withdrawn).shown(6);
    assert!(container(&shown, "a")["state"]["running"].is_object(), "nobody waits for it when the pod is stopped");
    bench.record.stage = crate::pod::stage::Stage::Active;
    bench.memory("a").launch = None;
    assert_eq!(bench.shown(6)["phase"], "Running");
}

#[test]
fn a_container_that_vanished_was_running() {
    let mut bench = Bench::new(Source::File, one("Always"));
    bench.has("a", 2, running()).look(6).publish(6);
    bench.observed.containers.clear();
    let shown = bench.look(7).publish(7);
    let a = container(&shown, "a");
    let expected = json!({ "terminated": {
        "exitCode": 137, "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was deleted.  The container used to be Running",
    } });
    assert_eq!((&a["lastState"], &a["restartCount"]), (&expected, &json!(3)));
    assert_eq!(a["state"], json!({ "waiting": { "reason": "ContainerCreating" } }));
    assert_eq!(shown["phase"], "Running");
    assert_eq!(bench.publish(8), shown, "it is counted once");
    // Of a pod that is deleted it is not the next that is told of.
    let mut bench = Bench::new(Source::Api, one("Always"));
    bench.has("a", 2, running()).look(6).publish(6);
    let mut pod = crate::sample::pod(one("Always"));
    pod.metadata.deletion_timestamp = Some(super::super::time(at(7).wall));
    bench.record.absorb(Fact::Desired(pod.into()), at(7));
    bench.observed.containers.clear();
    assert_eq!(container(&bench.look(7).shown(7), "a")["restartCount"], 2);
    // One that had ended before it vanished stays what it was.
    let mut bench = Bench::new(Source::File, one("Never"));
    bench.has("a", 0, exited(3)).look(6).publish(6);
    bench.observed.containers.clear();
    assert_eq!(container(&bench.look(7).shown(7), "a")["state"]["terminated"]["exitCode"], 3);
}

#[test]
fn a_container_in_an_unknown_state_has_ended_if_it_ran() {
    let mut bench = Bench::new(Source::File, one("Always"));
    bench.has("a", 0, running()).look(6).publish(6);
    for secs in [7, 8] {
        let shown = bench.has("a", 0, ContainerState::Unknown).look(secs).publish(secs);
        let a = container(&shown, "a");
        let expected = json!({ "exitCode": 137, "reason": "ContainerStatusUnknown", "message": LOST });
        assert_eq!((&a["state"]["terminated"], &a["restartCount"]), (&expected, &json!(1)), "at {secs}");
        assert_eq!(shown["phase"], "Running");
    }
}

#[test]
fn what_never_started_in_a_pod_that_ended_has_failed() {
    let evicted = || StopCause::Failed { reason: "Evicted".into(), message: "low".into(), disruption: None };
    let mut bench = Bench::new(Source::Api, two("Always"));
    bench.has("a", 0, running()).look(6).publish(6);
    let shown = bench.has("a", 0, exited(0)).look(7).cleaning(evicted()).shown(8);
    let expected = json!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown", "message": LOST } });
    assert_eq!(container(&shown, "b")["state"], expected);
    assert_eq!(container(&shown, "a")["state"]["terminated"]["exitCode"], 0);
    // Before the pod is initialized, only the init containers that had their turn.
    let mut bench = Bench::new(Source::Api, staged("Always"));
    bench.has("first", 0, exited(0)).has("side", 0, running()).look(6).publish(6);
    bench.observed.containers.retain(|c| c.name.as_str() == "first");
    let shown = bench.look(7).cleaning(evicted()).shown(8);
    assert_eq!(container(&shown, "side")["state"], expected);
    for waits in ["last", "a"] {
        assert_eq!(container(&shown, waits)["state"], json!({ "waiting": { "reason": "PodInitializing" } }), "{waits}");
    }
    assert_eq!(shown["phase"], "Failed");
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let mut bench = Bench::new(Source::Api, staged("Never"));
    let shown = bench.has("first", 0, exited(1)).look(6).cleaning(StopCause::Completed { has_failed: true }).shown(8);
    assert_eq!(shown["phase"], "Failed");
    assert_eq!(condition(&shown, "Ready")["reason"], "PodFailed");
    assert_eq!(condition(&shown, "Initialized")["message"], "containers with incomplete status: [first side last]");
    assert_eq!(container(&shown, "a")["state"], json!({ "waiting": { "reason": "PodInitializing" } }));
}

#[test]
fn init_containers_that_were_removed_have_done_their_work() {
    let mut bench = Bench::new(Source::File, staged("Always"));
    let shown = bench.has("side", 0, running()).has("a", 0, running()).look(6).shown(6);
    let first = container(&shown, "first");
    assert_eq!((&first["state"]["terminated"]["exitCode"], &first["ready"]), (&json!(0), &json!(true)));
    assert!(
        first["state"]["terminated"]["message"].as_str().is_some_and(|m| m.ends_with("treat it as exited normally"))
    );
    assert_eq!(condition(&shown, "Initialized")["status"], "True");
    assert_eq!(condition(&shown, "Ready")["status"], "True");
}

#[test]
fn all_containers_restart_together() {
    let rule = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [88] } }]);
    let mut spec = two("Never");
    spec["containers"][0]["restartPolicy"] = "Never".into();
    spec["containers"][0]["restartPolicyRules"] = rule;
    let mut bench = Bench::new(Source::File, spec);
    let shown = bench.has("a", 0, running()).has("b", 0, running()).look(6).publish(6);
    assert_eq!(condition(&shown, "AllContainersRestarting")["status"], "False");
    let shown = bench.has("a", 0, exited(88)).has("b", 0, exited(137)).look(7).publish(7);
    assert_eq!(bench.record.restart_all.as_ref().map(|RestartAll { sources }| sources.len()), Some(1));
    assert_eq!(shown["phase"], "Running");
    let restarting = condition(&shown, "AllContainersRestarting");
    assert_eq!((&restarting["status"], &restarting["reason"]), (&json!("True"), &json!("RestartAllContainersStarted")));
    assert_eq!(restarting["message"], "container exited with restart policy rule");
    bench.observed.containers.retain(|c| c.name.as_str() == "a");
    let shown = bench.look(8).publish(8);
    let b = container(&shown, "b");
    assert_eq!(b["state"]["waiting"]["reason"], "RestartingAllContainers");
    assert_eq!(b["lastState"]["terminated"]["reason"], "RestartingAllContainers");
    assert_eq!((&b["restartCount"], &shown["phase"]), (&json!(1), &json!("Running")));
    assert_eq!(bench.publish(9), shown);
    bench.observed.containers.clear();
    let shown = bench.look(10).publish(10);
    assert_eq!(bench.record.restart_all, None);
    assert_eq!(shown["phase"], "Running", "none has started again yet");
    assert_eq!(container(&shown, "b")["lastState"]["terminated"]["reason"], "RestartingAllContainers");
    assert_eq!(bench.publish(11), shown);
    let shown = bench.has("a", 1, running()).has("b", 1, running()).look(70).shown(70);
    assert_eq!(condition(&shown, "AllContainersRestarting")["status"], "False");
    assert_eq!(container(&shown, "a")["lastState"]["terminated"]["exitCode"], 88);
}

#[test]
fn addresses_are_one_of_each_family_the_nodes_first() {
    let mut bench = Bench::new(Source::File, one("Always"));
    bench.observed.sandboxes[0].ips =
        ["fd00::9", "10.0.0.9", "10.0.0.10"].map(|ip| ip.parse().expect("an address")).into();
    let shown = bench.look(1).shown(1);
    assert_eq!(
        (&shown["podIP"], &shown["podIPs"]),
        (&json!("10.0.0.9"), &json!([{ "ip": "10.0.0.9" }, { "ip": "fd00::9" }]))
    );
    assert_eq!(shown["hostIP"], Value::Null, "standalone");
    let mut spec = one("Always");
    spec["hostNetwork"] = true.into();
    let mut bench = Bench::new(Source::Api, spec);
    assert_eq!(bench.shown(1)["podIP"], Value::Null);
    bench.node.settings.has_api_server = true;
    let shown = bench.shown(1);
    assert_eq!((&shown["podIP"], &shown["hostIP"]), (&json!("192.0.2.7"), &json!("192.0.2.7")));
}

#[test]
fn a_running_containers_resources_are_what_the_runtime_says() {
    let asked = |cpu: &str| json!({ "requests": { "cpu": cpu, "memory": "32Mi" }, "limits": { "cpu": "200m", "memory": "64Mi" } });
    let mut spec = one("Always");
    spec["containers"][0]["resources"] = asked("150m");
    let mut bench = Bench::new(Source::Api, spec.clone());
    bench.has("a", 0, running());
    let has =
        ObservedResources { cpu_period: 100_000, cpu_quota: 20_000, cpu_shares: 102, memory_limit_bytes: 64 << 20 };
    bench.observed.containers[0].resources = Some(has);
    let shown = bench.look(6).shown(6);
    let a = container(&shown, "a");
    assert_eq!(a["resources"], asked("100m"), "the resize is under way");
    assert_eq!(a["allocatedResources"], json!({ "cpu": "150m", "memory": "32Mi" }));
    assert_eq!(shown["allocatedResources"], json!({ "cpu": "150m", "memory": "32Mi" }));
    // The least that there is shows as it was asked for.
    let least = ObservedResources { cpu_period: 100_000, cpu_quota: 1_000, cpu_shares: 2, memory_limit_bytes: 0 };
    bench.observed.containers[0].resources = Some(least);
    let asked_little = json!({ "requests": { "cpu": "1m" }, "limits": { "cpu": "5m" } });
    let mut pod = crate::sample::pod(one("Always"));
    pod.spec.as_mut().expect("a spec").containers[0].resources =
        serde_json::from_value(asked_little.clone()).expect("resources");
    bench.record.absorb(Fact::Desired(pod.into()), at(7));
    bench.record.absorb(Fact::Resize(crate::pod::ResizeVerdict::Granted), at(7));
    assert_eq!(container(&bench.look(7).shown(7), "a")["resources"], asked_little);
    let mut bench = Bench::new(Source::Api, spec);
    let shown = bench.has("a", 0, exited(0)).look(11).shown(11);
    assert_eq!(container(&shown, "a")["resources"], asked("150m"));
}

#[test]
fn a_pods_resources_are_its_hungriest_moment_or_its_own() {
    let mut spec = staged("Always");
    spec["initContainers"][1]["resources"] = json!({ "requests": { "cpu": "200m" } });
    spec["initContainers"][2]["resources"] = json!({ "requests": { "cpu": "1.5", "memory": "1Gi" } });
    spec["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "0.25", "memory": "64Mi" }, "limits": { "memory": "128Mi" } });
    let shown = Bench::new(Source::File, spec.clone()).shown(1);
    assert_eq!(shown["allocatedResources"], json!({ "cpu": "1700m", "memory": "1Gi" }));
    assert_eq!(shown["resources"]["limits"], json!({ "memory": "128Mi" }));
    spec["resources"] = json!({ "requests": { "cpu": "2" }, "limits": { "cpu": "2" } });
    spec["overhead"] = json!({ "cpu": "100m", "memory": "16Mi" });
    let shown = Bench::new(Source::File, spec).shown(1);
    let expected =
        json!({ "requests": { "cpu": "2100m", "memory": "1040Mi" }, "limits": { "cpu": "2100m", "memory": "144Mi" } });
    assert_eq!(shown["resources"], expected);
}

#[test]
fn ephemeral_containers_are_shown_and_count_for_nothing() {
    let mut spec = one("Always");
    spec["ephemeralContainers"] = json!([{ "name": "dbg", "image": "busybox" }]);
    let mut bench = Bench::new(Source::Api, spec);
    let shown = bench.has("a", 0, running()).look(6).shown(6);
    assert_eq!(shown["phase"], "Running");
    assert_eq!(container(&shown, "dbg")["state"], json!({ "waiting": { "reason": "ContainerCreating" } }));
    let shown = bench.has("dbg", 0, exited(1)).look(7).shown(7);
    assert_eq!((&shown["phase"], &condition(&shown, "Ready")["status"]), (&json!("Running"), &json!("True")));
    assert_eq!(container(&shown, "dbg")["started"], Value::Null);
}

#[test]
fn how_long_a_dead_container_stays_down_follows_from_who_ended_it() {
    let wait = |bench: &Bench, secs: u64| {
        let wanted = spec::find(&bench.record.pod, "a").expect("there");
        bench
            .record
            .crash_wait(&wanted, &bench.node, at(secs))
            .map(|(until, delay)| (until.as_second() - at(0).wall.as_second(), delay.as_secs()))
    };
    let mut bench = Bench::new(Source::File, one("OnFailure"));
    bench.has("a", 0, exited(1)).look(10);
    assert_eq!(wait(&bench, 10), None, "no restart has counted yet");
    bench.memory("a").back_off = Some(BackOff::next(None, at(9).wall, at(9).wall));
    assert_eq!(wait(&bench, 10), Some((20, 10)));
    assert_eq!(wait(&bench, 20), None, "the wait is over");
    bench.memory("a").launch = Some(Launch::Create { image: Box::default() });
    assert_eq!(wait(&bench, 10), None, "it is being started");
    bench.memory("a").launch = None;
    let by_us = |earlier_end| {
        Some(EndedByUs { id: ContainerId::new("a-0"), cause: KillCause::Probe, decided: at(9).wall, earlier_end })
    };
    bench.memory("a").ended_by_us = by_us(None);
    assert_eq!(wait(&bench, 10), None, "ended by us, and no other before it");
    bench.memory("a").ended_by_us = by_us(Some(at(4).wall));
    assert_eq!(wait(&bench, 10), Some((14, 10)), "it counts by the one before it");
    bench.memory("a").ended_by_us = None;
    bench.has("a", 0, exited(0)).look(10);
    assert_eq!(wait(&bench, 10), None, "it does not run again");
}
