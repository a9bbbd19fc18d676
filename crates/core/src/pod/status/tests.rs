//! Phases and conditions, moment by moment.

mod containers;

use std::sync::Arc;

use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;
use serde_json::{Value, json};

use crate::node::NodeFacts;
use crate::now::{Mono, Now, Wall};
use crate::pod::fact::{Fact, Source};
use crate::pod::observed::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
use crate::pod::record::PodRecord;
use crate::pod::stage::{Cleaning, Stage, StopCause, Stopping};

fn at(secs: u64) -> Now {
    let wall = Wall::new(1_700_000_000 + i64::try_from(secs).expect("small"), 0).expect("a time");
    Now { mono: Mono::from_secs(secs), wall }
}

/// A record under test, and what the runtime has of it.
struct Bench {
    record: PodRecord,
    node: NodeFacts,
    observed: Observed,
}

impl Bench {
    fn new(source: Source, spec: Value) -> Self {
        Self::with(source, spec, json!({}))
    }

    /// `given` is the status that came with the pod.
    fn with(source: Source, spec: Value, given: Value) -> Self {
        let mut pod = crate::sample::pod(spec);
        pod.status = (given != json!({})).then(|| serde_json::from_value(given).expect("a status"));
        let mut node = crate::sample::node();
        node.runtime.name = "containerd".into();
        let sandbox = ObservedSandbox {
            id: SandboxId::new("s0"),
            attempt: 0,
            is_ready: true,
            created_at: at(0).wall,
            ips: vec!["10.0.0.9".parse().expect("an address")],
            is_host_network: false,
        };
        let observed = Observed { sandboxes: vec![sandbox], containers: Vec::new(), has_cgroup: None };
        let mut bench = Self { record: PodRecord::new(source, Arc::new(pod)), node, observed };
        bench.look(0);
        bench.record.stage = Stage::Active;
        bench
    }

    /// The instance `name` with that restart count, made `count` minutes after the start.
    fn has(&mut self, name: &str, count: u32, state: ContainerState) -> &mut Self {
        let id = ContainerId::new(format!("{name}-{count}"));
        let instance = ObservedContainer {
            id: id.clone(),
            name: ContainerName::new(name),
            sandbox: SandboxId::new("s0"),
            restart_count: count,
            hash: None,
            created_at: at(u64::from(count) * 60).wall,
            state,
            image: "docker.io/library/busybox:latest".into(),
            image_ref: "sha256:1".into(),
            user: None,
            resources: None,
            stop_signal: None,
            recursive_read_only: Vec::new(),
        };
        self.observed.containers.retain(|c| c.id != id);
        self.observed.containers.push(instance);
        self
    }

    fn look(&mut self, secs: u64) -> &mut Self {
        self.record.absorb(Fact::Observed(self.observed.clone()), at(secs));
        self
    }

    fn stopping(&mut self, cause: StopCause) -> &mut Self {
        self.record.stage = Stage::Stopping(Stopping {
            cause,
            began: Some(at(1)),
            grace_secs: 30,
            is_withdrawn: false,
            is_overdue: false,
        });
        self
    }

    fn cleaning(&mut self, cause: StopCause) -> &mut Self {
        self.observed.sandboxes.iter_mut().for_each(|s| s.is_ready = false);
        self.look(1);
        self.record.stage = Stage::Cleaning(Cleaning {
            cause,
            is_withdrawn: false,
            is_unmounted: false,
            has_no_cgroup: false,
            has_no_dirs: false,
        });
        self
    }

    fn status(&self, secs: u64) -> v1::PodStatus {
        self.record.status(&self.node, at(secs))
    }

    fn shown(&self, secs: u64) -> Value {
        serde_json::to_value(self.status(secs)).expect("JSON")
    }

    /// Renders, and remembers it as what was told.
    fn publish(&mut self, secs: u64) -> Value {
        let status = self.status(secs);
        self.record.absorb(Fact::Published { status: std::sync::Arc::new(status.clone()), events: 0 }, at(secs));
        serde_json::to_value(status).expect("JSON")
    }

    fn memory(&mut self, name: &str) -> &mut crate::pod::container::ContainerRecord {
        self.record.containers.get_mut(&ContainerName::new(name)).expect("known")
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(5).wall }
}

fn exited(code: i32) -> ContainerState {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ContainerState::Exited {
        started_at: Some(at(5).wall),
        finished_at: at(10).wall,
        code,
        reason: reason.into(),
        message: String::new(),
    }
}

fn one(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "busybox" }] })
}

fn two(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "busybox" }, { "name": "b", "image": "busybox" }] })
}

/// Two init containers, a sidecar between them, one regular container.
fn staged(policy: &str) -> Value {
    json!({
        "restartPolicy": policy,
        "initContainers": [
            { "name": "first", "image": "busybox" },
            { "name": "side", "image": "busybox", "restartPolicy": "Always" },
            { "name": "last", "image": "busybox" },
        ],
        "containers": [{ "name": "a", "image": "busybox" }],
    })
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    let all = status["conditions"].as_array().expect("conditions");
    all.iter().find(|c| c["type"] == type_).unwrap_or(&Value::Null)
}

fn container<'a>(status: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().flat_map(|l| status[l].as_array().into_iter().flatten());
    all.find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

const LOST: &str = "The container could not be located when the pod was terminated";

#[test]
fn the_phase_follows_from_the_containers() {
    let x = exited;
    type Row = (&'static str, Value, Vec<(&'static str, ContainerState)>, &'static str);
    let table: [Row; 22] = [
        ("nothing yet", one("Always"), vec![], "Pending"),
        ("one of two", two("Always"), vec![("a", running())], "Pending"),
        ("both", two("Always"), vec![("a", running()), ("b", running())], "Running"),
        ("one ended", two("Never"), vec![("a", running()), ("b", x(1))], "Running"),
        ("ended, always", one("Always"), vec![("a", x(0))], "Running"),
        ("failed, on failure", one("OnFailure"), vec![("a", x(1))], "Running"),
        ("mixed, on failure", two("OnFailure"), vec![("a", x(0)), ("b", x(1))], "Running"),
        ("ended before the other began", two("Never"), vec![("a", x(0))], "Pending"),
        ("no state is known", one("Always"), vec![("a", ContainerState::Unknown)], "Pending"),
        ("created only", one("Always"), vec![("a", ContainerState::Created)], "Pending"),
        ("init runs", staged("Always"), vec![("first", running())], "Pending"),
        ("init failed, again", staged("OnFailure"), vec![("first", x(1))], "Pending"),
        ("sidecar runs", staged("Always"), vec![("first", x(0)), ("side", running())], "Pending"),
        (
            "all done, main not yet",
            staged("Always"),
            vec![("first", x(0)), ("side", running()), ("last", x(0))],
            "Pending",
        ),
        (
            "main runs",
            staged("Always"),
            vec![("first", x(0)), ("side", running()), ("last", x(0)), ("a", running())],
            "Running",
        ),
        (
            "sidecar down while main runs",
            staged("Always"),
            vec![("first", x(0)), ("side", x(1)), ("last", x(0)), ("a", running())],
            "Running",
        ),
        (
            "main crashed beside the sidecar",
            staged("Always"),
            vec![("first", x(0)), ("side", running()), ("last", x(0)), ("a", x(1))],
            "Running",
        ),
        (
            "main ended, sidecar still there",
            staged("Never"),
            vec![("first", x(0)), ("side", running()), ("last", x(0)), ("a", x(0))],
            "Running",
        ),
        (
            "a sidecar never started",
            staged("Always"),
            vec![("first", x(0)), ("last", x(0)), ("a", running())],
            "Pending",
        ),
        ("init containers are forgotten", staged("Always"), vec![("side", running()), ("a", running())], "Running"),
        (
            "own policy against the pod's",
            json!({ "restartPolicy": "Never", "containers": [{ "name": "a", "image": "b", "restartPolicy": "Always" }] }),
            vec![("a", x(0))],
            "Running",
        ),
        (
            "a rule against the policy",
            json!({ "restartPolicy": "Never", "containers": [{ "name": "a", "image": "b", "restartPolicy": "Never",
                "restartPolicyRules": [{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }] }] }),
            vec![("a", x(42))],
            "Running",
        ),
    ];
    for (what, spec, containers, phase) in table {
        let mut bench = Bench::new(Source::File, spec);
        for (name, state) in containers {
            bench.has(name, 0, state);
        }
        assert_eq!(bench.look(20).shown(20)["phase"], phase, "{what}");
    }
}

#[test]
fn an_end_is_told_when_nothing_lives_any_more() {
    for (policy, codes, computed, phase) in [
        ("Never", [0, 0], "PodCompleted", "Succeeded"),
        ("Never", [0, 3], "PodFailed", "Failed"),
        ("OnFailure", [0, 0], "PodCompleted", "Succeeded"),
    ] {
        let mut bench = Bench::new(Source::Api, two(policy));
        bench.has("a", 0, running()).has("b", 0, running()).look(6);
        assert_eq!(bench.publish(6)["phase"], "Running");
        bench.has("a", 0, exited(codes[0])).has("b", 0, exited(codes[1])).look(11);
        let cause = StopCause::Completed { has_failed: phase == "Failed" };
        for _ in 0..2 {
            let shown = bench.publish(11);
            assert_eq!(shown["phase"], "Running", "{policy} {codes:?}");
            assert_eq!(condition(&shown, "Ready")["reason"], computed);
            assert_eq!(condition(&shown, "PodReadyToStartContainers")["status"], "True");
            bench.stopping(cause.clone());
        }
        let shown = bench.cleaning(cause).publish(12);
        assert_eq!(shown["phase"], phase, "{policy} {codes:?}");
        assert_eq!(condition(&shown, "PodReadyToStartContainers")["status"], "False");
        assert_eq!(shown["podIP"], "10.0.0.9", "a pod that ended keeps its address");
    }
}

#[test]
fn a_pod_that_is_told_to_go_has_failed_unless_all_succeeded_but_a_static_one_has_not() {
    for (source, code, phase) in [
        (Source::Api, 0, "Succeeded"),
        (Source::Api, 137, "Failed"),
        (Source::File, 137, "Running"),
        (Source::File, 0, "Running"),
    ] {
        let mut bench = Bench::new(source, one("Always"));
        bench.has("a", 0, running()).look(6).publish(6);
        bench.stopping(StopCause::Withdrawn);
        assert_eq!(bench.publish(7)["phase"], "Running");
        bench.has("a", 0, exited(code)).look(8);
        assert_eq!(bench.shown(8)["phase"], "Running");
        let shown = bench.cleaning(StopCause::Withdrawn).publish(9);
        assert_eq!(shown["phase"], phase, "{source:?} {code}");
        assert_eq!(container(&shown, "a")["state"]["terminated"]["exitCode"], code);
    }
}

#[test]
fn a_pod_that_is_ended_says_why_when_it_has_ended() {
    let cause = StopCause::Failed { reason: "DeadlineExceeded".into(), message: "too long".into(), disruption: None };
    let mut bench = Bench::new(Source::Api, one("Always"));
    bench.has("a", 0, running()).look(6).publish(6);
    let shown = bench.stopping(cause.clone()).publish(7);
    assert_eq!((&shown["phase"], &shown["reason"]), (&json!("Running"), &Value::Null));
    assert_eq!(condition(&shown, "Ready")["reason"], "PodFailed");
    assert_eq!(condition(&shown, "DisruptionTarget"), &Value::Null);
    let shown = bench.has("a", 0, exited(137)).look(8).cleaning(cause).publish(9);
    assert_eq!(shown["phase"], "Failed");
    assert_eq!((&shown["reason"], &shown["message"]), (&json!("DeadlineExceeded"), &json!("too long")));
}

#[test]
fn an_evicted_pod_is_a_target_of_disruption_before_it_has_ended() {
    let evicted = |disruption: Option<&str>| {
        let (reason, message) = ("Evicted".to_owned(), "The node was low on resource: memory. ".to_owned());
        let cause = StopCause::Failed { reason, message, disruption: disruption.map(str::to_owned) };
        Bench::new(Source::Api, one("Always")).has("a", 0, running()).look(6).stopping(cause).shown(7)
    };
    let shown = evicted(Some("The node needs it gone."));
    let expected = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
        "message": "The node needs it gone.", "lastTransitionTime": "2023-11-14T22:13:27Z",
    });
    assert_eq!(shown["conditions"][0], expected);
    assert_eq!(shown["conditions"].as_array().map(Vec::len), Some(6));
    // One that goes for what it did itself is none.
    assert_eq!(evicted(None)["conditions"].as_array().map(Vec::len), Some(5));
}

#[test]
fn a_phase_that_ends_stays() {
    let ended = json!({ "phase": "Failed", "reason": "Evicted", "message": "low" });
    let bench = {
        let mut bench = Bench::with(Source::Api, one("Always"), ended);
        bench.has("a", 0, running()).look(6);
        bench
    };
    let shown = bench.shown(6);
    assert_eq!(
        (&shown["phase"], &shown["reason"], &shown["message"]),
        (&json!("Failed"), &json!("Evicted"), &json!("low"))
    );
    assert_eq!(condition(&shown, "Ready")["reason"], "PodFailed");
    // A static pod's too, although only we have ever told of it.
    let mut bench = Bench::new(Source::File, one("Never"));
    bench.has("a", 0, exited(0)).look(6).cleaning(StopCause::Completed { has_failed: false }).publish(7);
    bench.has("a", 1, exited(1)).look(70);
    assert_eq!(bench.shown(71)["phase"], "Succeeded");
}

#[test]
fn a_rejected_pod_says_why_and_nothing_else() {
    let mut bench = Bench::new(Source::File, staged("Always"));
    bench.stopping(StopCause::Rejected {
        reason: "OutOfcpu".into(),
        message: "Node didn't have enough resource: cpu".into(),
    });
    let expected = json!({
        "phase": "Failed", "reason": "OutOfcpu", "qosClass": "BestEffort", "startTime": "2023-11-14T22:13:20Z",
        "message": "Pod was rejected: Node didn't have enough resource: cpu",
    });
    assert_eq!(bench.shown(3), expected);
    assert_eq!(
        bench.cleaning(StopCause::Rejected { reason: "x".into(), message: "Pod was rejected: y".into() }).shown(3)["message"],
        "Pod was rejected: y"
    );
}

#[test]
fn nothing_is_made_up_before_the_first_look() {
    let old = json!({ "phase": "Running", "containerStatuses": [{ "name": "a", "image": "x", "imageID": "y", "ready": true,
        "restartCount": 4, "lastState": {}, "state": { "running": {} } }] });
    let pod = crate::sample::pod(one("Always"));
    let mut known = pod.clone();
    known.status = serde_json::from_value(old.clone()).expect("a status");
    let node = crate::sample::node();
    let status = PodRecord::new(Source::Api, Arc::new(known)).status(&node, at(1));
    assert_eq!(serde_json::to_value(status).expect("JSON"), old);
    let status = PodRecord::new(Source::File, Arc::new(pod)).status(&node, at(1));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn conditions_keep_the_time_since_when_they_hold() {
    let mut bench = Bench::new(Source::File, one("Always"));
    let first = bench.publish(2);
    assert_eq!(condition(&first, "Ready")["lastTransitionTime"], "2023-11-14T22:13:22Z");
    let second = bench.has("a", 0, running()).look(6).publish(7);
    let times = |s: &Value| -> Vec<String> {
        let types = ["PodScheduled", "Initialized", "PodReadyToStartContainers", "Ready", "ContainersReady"];
        types
            .iter()
            .map(|t| condition(s, t)["lastTransitionTime"].as_str().expect("a time")[17..19].to_owned())
            .collect()
    };
    assert_eq!(times(&second), ["22", "22", "22", "27", "27"]);
    let third = bench.publish(9);
    assert_eq!(third, second, "nothing happened, nothing changes");
    assert_eq!(times(&bench.has("a", 0, exited(1)).look(11).publish(11)), ["22", "22", "22", "31", "31"]);
    assert_eq!(third["startTime"], "2023-11-14T22:13:20Z");
}

#[test]
fn conditions_say_what_is_not_ready() {
    let mut bench = Bench::new(Source::File, staged("Always"));
    bench.has("first", 0, exited(0)).has("side", 0, running()).look(6);
    let shown = bench.shown(6);
    let of = |type_: &str| {
        let c = condition(&shown, type_);
        (
            c["status"].as_str().unwrap_or_default(),
            c["reason"].as_str().unwrap_or_default(),
            c["message"].as_str().unwrap_or_default(),
        )
    };
    assert_eq!(of("Initialized"), ("False", "ContainersNotInitialized", "containers with incomplete status: [last]"));
    assert_eq!(of("Ready"), ("False", "ContainersNotReady", "containers with unready status: [a]"));
    assert_eq!(of("ContainersReady"), of("Ready"));
    let shown = bench.has("last", 0, exited(0)).has("a", 0, running()).has("side", 0, exited(1)).look(8).shown(8);
    assert_eq!(condition(&shown, "Initialized")["status"], "True", "a sidecar that restarts takes nothing back");
    assert_eq!(condition(&shown, "Ready")["message"], "containers with unready status: [side]");
}

#[test]
fn readiness_gates_are_others_conditions() {
    let mut spec = one("Always");
    spec["readinessGates"] = json!([{ "conditionType": "x/one" }, { "conditionType": "x/two" }]);
    let given =
        json!({ "conditions": [{ "type": "x/one", "status": "False" }, { "type": "Ready", "status": "True" }] });
    let mut bench = Bench::with(Source::Api, spec, given);
    let shown = bench.has("a", 0, running()).look(6).shown(6);
    assert_eq!(condition(&shown, "ContainersReady")["status"], "True");
    let ready = condition(&shown, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ReadinessGatesNotReady")));
    let expected = "the status of pod readiness gate \"x/one\" is not \"True\", but False, \
                    corresponding condition of pod readiness gate \"x/two\" does not exist.";
    assert_eq!(ready["message"], expected);
    let types: Vec<&str> =
        shown["conditions"].as_array().expect("a list").iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(
        types,
        ["x/one", "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    );
}

#[test]
fn a_sandbox_is_there_when_it_can_take_containers() {
    let shown = |change: fn(&mut Bench)| {
        let mut bench = Bench::new(Source::File, one("Always"));
        change(&mut bench);
        bench.look(1);
        condition(&bench.shown(1), "PodReadyToStartContainers")["status"] == "True"
    };
    assert!(shown(|_| {}));
    assert!(!shown(|b| b.observed.sandboxes[0].is_ready = false));
    assert!(!shown(|b| b.observed.sandboxes[0].ips.clear()));
    assert!(!shown(|b| b.observed.sandboxes[0].is_host_network = true));
    assert!(
        !shown(|b| b.observed.sandboxes.push(ObservedSandbox { attempt: 1, ..b.observed.sandboxes[0].clone() })),
        "two"
    );
    assert!(!shown(|b| b.observed.sandboxes.clear()));
    assert!(shown(|b| {
        b.observed.sandboxes.clear();
        b.record.sandbox.awaited = Some((SandboxId::new("s1"), at(1).mono));
    }));
}

#[test]
fn a_sidecar_that_comes_up_again_takes_nothing_back() {
    let mut spec = staged("Always");
    spec["initContainers"][1]["startupProbe"] = json!({ "exec": { "command": ["true"] } });
    let mut bench = Bench::new(Source::File, spec);
    bench.has("first", 0, exited(0)).has("side", 0, running()).has("last", 0, exited(0)).look(6);
    assert_eq!(container(&bench.shown(6), "side")["started"], false);
    assert_eq!(bench.shown(6)["phase"], "Pending");
    let shown = bench.has("a", 0, running()).look(7).shown(7);
    assert_eq!((&shown["phase"], &condition(&shown, "Initialized")["status"]), (&json!("Running"), &json!("True")));
    assert_eq!(condition(&shown, "Ready")["message"], "containers with unready status: [side]");
}
