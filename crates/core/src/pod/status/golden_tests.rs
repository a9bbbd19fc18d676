//! What the real kubelet showed of each recorded pod, and what we show of the same.
//!
//! A recording has no answers of the runtime, so what the runtime showed is taken from the recorded container statuses (ids, states,
//! exit codes, users), the sandbox from the recorded calls. The whole status is compared.

use std::path::PathBuf;
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;
use serde_json::{Map, Value, json};

use crate::node::NodeFacts;
use crate::now::{Mono, Now, Wall};
use crate::pod::backoff::BackOff;
use crate::pod::container::EndedByUs;
use crate::pod::fact::{Done, Fact, ImageFound, ProbeAnswer, Source, StepFailure};
use crate::pod::kill::KillCause;
use crate::pod::observed::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
use crate::pod::record::PodRecord;
use crate::pod::spec;
use crate::pod::stage::{Cleaning, Stage, StopCause, Stopping};
use crate::pod::step::{ProbeKind, StepKey};

const POD_IP: &str = "10.87.0.77";
const HOST_IP: &str = "192.0.2.7";
/// The cgroup's "no limit", read back as if it were the pod's: upstream shows it in a cluster once a pod has run for a while. We show
/// what the pod set.
const NO_LIMIT: &str = "9007199254740988Ki";

struct Recording {
    name: String,
    is_static: bool,
    shown: Value,
    calls: Vec<Value>,
    api: Vec<Value>,
}

fn recordings() -> Vec<Recording> {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut all = Vec::new();
    for folder in ["pods", "pods-v2", "cluster"] {
        let dir = top.join(folder);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{} cannot be listed: {e}", dir.display()));
        for entry in entries.map(|e| e.expect("an entry").path()) {
            let Ok(text) = std::fs::read_to_string(entry.join("pod.json")) else { continue };
            let lines = |file: &str| -> Vec<Value> {
                let text = std::fs::read_to_string(entry.join(file)).unwrap_or_default();
                text.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
            };
            all.push(Recording {
                name: entry.strip_prefix(&top).expect("below").display().to_string(),
                is_static: folder != "cluster",
                shown: serde_json::from_str(&text).expect("pod.json is JSON"),
                calls: lines("calls.jsonl"),
                api: lines("api.jsonl"),
            });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn at(secs: u64) -> Now {
    let wall = Wall::new(1_700_000_000 + i64::try_from(secs).expect("small"), 123_456_789).expect("a time");
    Now { mono: Mono::from_secs(secs), wall }
}

fn wall(secs: u64) -> Wall {
    at(secs).wall
}

const LATER: u64 = 100;

impl Recording {
    fn status(&self) -> &Value {
        &self.shown["status"]
    }

    /// The pod as its source gave it: without what the kubelet made of it, and without placeholders.
    fn pod(&self) -> v1::Pod {
        let mut metadata = self.shown["metadata"].clone();
        metadata.as_object_mut().expect("an object").retain(|key, _| {
            matches!(key.as_str(), "name" | "namespace" | "uid" | "generation" | "annotations" | "labels")
        });
        let mut given = json!({ "metadata": metadata, "spec": self.shown["spec"] });
        let foreign: Vec<Value> = items(&self.status()["conditions"])
            .filter(|c| c["type"].as_str().is_some_and(|t| t.contains('/')))
            .cloned()
            .collect();
        if !foreign.is_empty() {
            given["status"] = json!({ "conditions": foreign });
        }
        serde_json::from_value(given).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The body of the first status patch.
    fn first_word(&self) -> Value {
        let is_status =
            |call: &Value| call["verb"] == "patch" && call["uri"].as_str().is_some_and(|u| u.ends_with("/status"));
        let first = self.api.iter().find(|call| is_status(call)).unwrap_or_else(|| panic!("{}: no patch", self.name));
        let mut status = first["body"]["status"].clone();
        without_nulls(&mut status);
        status
    }

    fn called(&self, method: &str) -> bool {
        self.calls.iter().any(|c| c["method"] == method && c["stage"] == "run")
    }

    fn observed(&self) -> Observed {
        let is_host_network = self.shown["spec"]["hostNetwork"] == true;
        let sandbox = ObservedSandbox {
            id: SandboxId::new("sandbox"),
            attempt: 0,
            is_ready: !self.called("StopPodSandbox"),
            created_at: wall(1),
            ips: if is_host_network { vec![] } else { vec![POD_IP.parse().expect("an address")] },
            is_host_network,
        };
        let all = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
        let statuses = all.iter().flat_map(|list| items(&self.status()[list]));
        Observed {
            sandboxes: if self.called("RunPodSandbox") { vec![sandbox] } else { vec![] },
            containers: statuses.flat_map(|s| instances(s, LATER)).collect(),
            has_cgroup: None,
        }
    }

    fn record(&self) -> PodRecord {
        let source = if self.is_static { Source::File } else { Source::Api };
        let mut record = PodRecord::new(source, Arc::new(self.pod()));
        record.absorb(Fact::Observed(Observed::default()), at(0));
        record.stage = Stage::Active;
        record.absorb(Fact::Observed(self.observed()), at(LATER));
        self.fail(&mut record);
        self.back_off(&mut record);
        answer_probes(&mut record);
        if let Some(cause) = self.cause() {
            record.stage = Stage::Cleaning(Cleaning {
                cause,
                is_withdrawn: false,
                is_unmounted: false,
                has_no_cgroup: false,
                has_no_dirs: false,
            });
        }
        record
    }

    /// Steps that failed: what the container waits for was said by the one that looks for its image or by the one that creates it.
    fn fail(&self, record: &mut PodRecord) {
        for status in items(&self.status()["containerStatuses"]) {
            let waiting = &status["state"]["waiting"];
            let (Some(reason), Some(message)) = (waiting["reason"].as_str(), waiting["message"].as_str()) else {
                continue;
            };
            let name = ContainerName::new(status["name"].as_str().expect("a name"));
            let key = match reason {
                "CreateContainerConfigError" => StepKey::CreateContainer(name, 0),
                "ErrImageNeverPull" | "InvalidImageName" => StepKey::EnsureImage(name),
                "CrashLoopBackOff" => continue,
                other => panic!("{}: nothing says {other}", self.name),
            };
            let failure = StepFailure { reason: reason.to_owned(), message: message.to_owned() };
            record.absorb(Fact::StepStarted(key.clone()), at(LATER));
            record.absorb(Fact::StepDone { key, outcome: Err(failure) }, at(LATER));
        }
    }

    /// Each restart but the first of a container that we ended counts.
    fn back_off(&self, record: &mut PodRecord) {
        for status in items(&self.status()["containerStatuses"]) {
            let (name, restarts) =
                (status["name"].as_str().expect("a name"), status["restartCount"].as_u64().unwrap_or(0));
            let newest = record.newest(name).map(|c| c.id.clone());
            let is_ours = self.called("StopContainer");
            let Some(container) = record.containers.get_mut(&ContainerName::new(name)) else { continue };
            for _ in u64::from(is_ours)..restarts {
                container.back_off = Some(BackOff::next(container.back_off, wall(LATER), wall(LATER)));
            }
            container.ended_by_us = newest.filter(|_| is_ours).map(|id| EndedByUs {
                id,
                cause: KillCause::Probe,
                decided: wall(LATER),
                earlier_end: Some(wall(LATER - 3)),
            });
        }
    }

    fn cause(&self) -> Option<StopCause> {
        let text = |key: &str| self.status()[key].as_str().map(str::to_owned);
        match (text("phase")?.as_str(), text("reason"), text("message")) {
            ("Failed", Some(reason), Some(message)) if reason == "DeadlineExceeded" => {
                Some(StopCause::Failed { reason, message, disruption: None })
            }
            ("Failed", Some(reason), Some(message)) => {
                let message = message.strip_prefix("Pod was rejected: ").expect("its words").to_owned();
                Some(StopCause::Rejected { reason, message })
            }
            ("Failed", ..) => Some(StopCause::Completed { has_failed: true }),
            ("Succeeded", ..) => Some(StopCause::Completed { has_failed: false }),
            _ => None,
        }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The instances that a container status tells of.
fn instances(status: &Value, now: u64) -> Vec<ObservedContainer> {
    let Some(id) = status["containerID"].as_str() else { return Vec::new() };
    let restarts = u32::try_from(status["restartCount"].as_u64().unwrap_or(0)).expect("small");
    let state = &status["state"];
    let last = &status["lastState"]["terminated"];
    let newest = if state["running"].is_object() {
        ContainerState::Running { started_at: wall(now - 4) }
    } else if state["terminated"].is_object() {
        exited(&state["terminated"], now - 1)
    } else {
        exited(last, now - 1)
    };
    let one = |id: &str, restarts: u32, created: u64, state: ContainerState| ObservedContainer {
        id: ContainerId::new(id.trim_start_matches("containerd://")),
        name: ContainerName::new(status["name"].as_str().expect("a name")),
        sandbox: SandboxId::new("sandbox"),
        restart_count: restarts,
        hash: None,
        created_at: wall(created),
        state,
        image: status["image"].as_str().unwrap_or_default().to_owned(),
        image_ref: status["imageID"].as_str().unwrap_or_default().to_owned(),
        user: serde_json::from_value(status["user"].clone()).expect("a user"),
        resources: None,
        stop_signal: Some("SIGTERM".to_owned()),
        recursive_read_only: Vec::new(),
    };
    let mut all = vec![one(id, restarts, now - 5, newest)];
    if let Some(before) = last["containerID"].as_str().filter(|before| *before != id) {
        all.push(one(before, restarts - 1, now - 20, exited(last, now - 12)));
    }
    all
}

fn exited(ended: &Value, at: u64) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(wall(at - 1)),
        finished_at: wall(at),
        code: i32::try_from(ended["exitCode"].as_i64().expect("a code")).expect("small"),
        reason: ended["reason"].as_str().unwrap_or_default().to_owned(),
        message: ended["message"].as_str().unwrap_or_default().to_owned(),
    }
}

/// The recordings wait until all probes succeed.
fn answer_probes(record: &mut PodRecord) {
    let running: Vec<ContainerId> = record
        .observed
        .iter()
        .flat_map(|o| &o.containers)
        .filter(|c| c.state.is_running())
        .map(|c| c.id.clone())
        .collect();
    for id in running {
        for kind in [ProbeKind::Startup, ProbeKind::Readiness] {
            let key = StepKey::Probe(id.clone(), kind);
            record.absorb(Fact::StepStarted(key.clone()), at(LATER));
            let outcome = Ok(Done::Probe(ProbeAnswer::Success));
            record.absorb(Fact::StepDone { key, outcome }, at(LATER));
        }
    }
}

fn node(recording: &Recording) -> NodeFacts {
    let mut node = crate::sample::node();
    node.runtime.name = "containerd".into();
    node.settings.has_api_server = !recording.is_static;
    node.ips = vec![HOST_IP.parse().expect("an address")];
    node
}

/// Our status with the recording's names for times and addresses.
fn named(mut status: Value, pod_ip: &str) -> Value {
    fn walk(value: &mut Value, pod_ip: &str) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    if matches!(key.as_str(), "startTime" | "startedAt" | "finishedAt" | "lastTransitionTime") {
                        let text = value.as_str().expect("a time");
                        assert!(text.len() == "2023-11-14T22:13:20Z".len() && text.ends_with('Z'), "{key}: {text}");
                        *value = "<time>".into();
                    } else {
                        walk(value, pod_ip);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, pod_ip)),
            Value::String(text) if text == pod_ip => *text = "<podIP>".into(),
            Value::String(text) if text == HOST_IP => *text = "<hostIP>".into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    walk(&mut status, pod_ip);
    status
}

/// Deliberate differences, taken out of what was recorded.
fn expected(recording: &Recording) -> Value {
    let mut status = recording.status().clone();
    without_nulls(&mut status);
    let map = status.as_object_mut().expect("an object");
    // 2. The cgroup's "no limit" is no limit of the pod.
    if map.get("resources") == Some(&json!({ "limits": { "memory": NO_LIMIT } })) {
        map.insert("resources".into(), json!({}));
    }
    // 3. Between two restarts upstream shows the dead instance or the back-off, by its own lag; we show the back-off at once.
    let is_running = map.get("phase") == Some(&json!("Running"));
    for status in map.get_mut("containerStatuses").and_then(Value::as_array_mut).into_iter().flatten() {
        if is_running && status["restartCount"] != 0 && status["state"]["terminated"].is_object() {
            status["lastState"] = status["state"].take();
            status["state"] =
                json!({ "waiting": { "reason": "CrashLoopBackOff", "message": back_off_words(recording, status) } });
        }
    }
    status
}

/// 1. A condition's time that is not there: the server writes the null.
fn without_nulls(status: &mut Value) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition.as_object_mut().expect("an object").retain(|_, v| !v.is_null());
    }
}

/// What upstream says after so many restarts, in those recordings that show it.
fn back_off_words(recording: &Recording, status: &Value) -> String {
    let metadata = &recording.shown["metadata"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    format!(
        "back-off {}s restarting failed container={} pod={}_{}({})",
        10 << (status["restartCount"].as_u64().expect("a number") - 1),
        text(&status["name"]),
        text(&metadata["name"]),
        text(&metadata["namespace"]),
        text(&metadata["uid"])
    )
}

#[test]
fn every_recorded_status_is_rendered_alike() {
    let all = recordings();
    let mut trouble = String::new();
    for recording in &all {
        let record = recording.record();
        let status = record.status(&node(recording), at(LATER));
        let ours = named(serde_json::to_value(&status).expect("JSON"), POD_IP);
        let theirs = expected(recording);
        if ours != theirs {
            trouble += &format!("{}\n", recording.name);
            differences(&mut trouble, "", &theirs, &ours);
        }
    }
    assert!(all.len() >= 54, "only {} recordings", all.len());
    assert!(trouble.is_empty(), "\n{trouble}");
}

/// A cluster's kubelet tells of a pod for the first time before anything is there: all but what the API server has already.
#[test]
fn every_recorded_first_word_is_rendered_alike() {
    let (mut compared, mut trouble) = (0, String::new());
    for recording in recordings().into_iter().filter(|r| !r.is_static) {
        let theirs = recording.first_word();
        let mut pod = recording.pod();
        pod.status = None;
        if theirs["observedGeneration"] != json!(pod.metadata.generation) {
            continue; // The pod was changed before it was recorded: what it was at first is not there.
        }
        let mut record = PodRecord::new(Source::Api, Arc::new(pod));
        record.absorb(Fact::Observed(Observed::default()), at(0));
        record.stage = match recording.cause() {
            Some(cause @ StopCause::Rejected { .. }) => {
                Stage::Stopping(Stopping { cause, began: None, grace_secs: 1, is_withdrawn: false, is_overdue: false })
            }
            _ => Stage::Active,
        };
        let status = record.status(&node(&recording), at(1));
        let mut ours = named(serde_json::to_value(&status).expect("JSON"), POD_IP);
        let map = ours.as_object_mut().expect("an object");
        assert_eq!(map.remove("qosClass"), Some(recording.status()["qosClass"].clone()), "{}", recording.name);
        if map["phase"] == "Pending" {
            map.remove("phase");
        }
        if ours != theirs {
            trouble += &format!("{}\n", recording.name);
            differences(&mut trouble, "", &theirs, &ours);
        }
        compared += 1;
    }
    assert!(compared >= 11, "only {compared} compared");
    assert!(trouble.is_empty(), "\n{trouble}");
}

fn differences(into: &mut String, path: &str, theirs: &Value, ours: &Value) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let empty = Map::new();
            let (a, b) = (if a.is_empty() { &empty } else { a }, b);
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(into, &format!("{path}.{key}"), a, b);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differences(into, &format!("{path}[{at}]"), a, b);
            }
        }
        _ if theirs == ours => {}
        _ => *into += &format!("  {path}\n    recorded {theirs}\n    ours     {ours}\n"),
    }
}

#[test]
fn a_created_sandbox_and_found_image_change_nothing_else() {
    // The facts of a start leave the status as it is until a container runs.
    let recording = recordings().into_iter().find(|r| r.name == "pods/01-seed").expect("recorded");
    let mut record = PodRecord::new(Source::File, Arc::new(recording.pod()));
    record.absorb(Fact::Observed(Observed::default()), at(0));
    record.stage = Stage::Active;
    let before = record.status(&node(&recording), at(1));
    let name = ContainerName::new(spec::regulars(&record.pod).next().expect("one").name());
    let key = StepKey::EnsureImage(name);
    record.absorb(Fact::StepStarted(key.clone()), at(1));
    record.absorb(Fact::StepDone { key, outcome: Ok(Done::Image(ImageFound::default())) }, at(1));
    assert_eq!(record.status(&node(&recording), at(1)), before);
}
