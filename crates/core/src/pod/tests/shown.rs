//! What is shown of a pod through its life: nothing flickers, an end comes last.

use rubelet_api::v1;
use serde_json::{Value, json};

use super::world::{Life, World};
use crate::pod::fact::{Fact, ProbeAnswer};

/// `<seconds> <phase>, sandbox or not | <container> <state> <restarts> …`, one line for each change of these.
fn life(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (at, status) in &world.shown {
        let line = line(status);
        if lines.last().is_none_or(|l| l.split_once(' ').is_none_or(|(_, before)| before != line)) {
            lines.push(format!("{} {line}", at.as_secs()));
        }
    }
    lines
}

fn line(status: &v1::PodStatus) -> String {
    let status = serde_json::to_value(status).expect("JSON");
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    let is = |type_: &str| conditions().any(|c| c["type"] == type_ && c["status"] == "True");
    let mut words = vec![status["phase"].as_str().unwrap_or_default().to_owned()];
    words.extend(is("PodReadyToStartContainers").then(|| "sandbox".to_owned()));
    words.extend(is("Ready").then(|| "ready".to_owned()));
    for list in ["initContainerStatuses", "containerStatuses"] {
        words.extend(status[list].as_array().into_iter().flatten().map(container));
    }
    words.join(" ")
}

fn container(status: &Value) -> String {
    let state = &status["state"];
    let what = if let Some(waiting) = state["waiting"].as_object() {
        waiting["reason"].as_str().unwrap_or("?").to_owned()
    } else if let Some(ended) = state["terminated"].as_object() {
        format!("exit-{}", ended["exitCode"])
    } else {
        "runs".to_owned()
    };
    let last = &status["lastState"]["terminated"]["exitCode"];
    let last = if last.is_null() { String::new() } else { format!(",last-{last}") };
    format!("{}:{what},{}{last}", status["name"].as_str().unwrap_or("?"), status["restartCount"])
}

#[test]
fn a_crashing_pod_shows_its_back_off_at_once_and_nothing_between() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.lives.insert("a", vec![Life::For(2, 7)]);
    world.run_until(50);
    assert_eq!(
        life(&world),
        [
            "1 Pending a:ContainerCreating,0",
            "1 Pending sandbox a:ContainerCreating,0",
            "1 Running sandbox ready a:runs,0",
            "3 Running sandbox a:exit-7,0",
            "3 Running sandbox ready a:runs,1,last-7",
            "5 Running sandbox a:CrashLoopBackOff,1,last-7",
            "15 Running sandbox ready a:runs,2,last-7",
            "17 Running sandbox a:CrashLoopBackOff,2,last-7",
            "37 Running sandbox ready a:runs,3,last-7",
            "39 Running sandbox a:CrashLoopBackOff,3,last-7",
        ]
    );
}

#[test]
fn a_pod_that_completes_says_so_after_its_sandbox_is_down() {
    let mut world = World::new(json!({
        "restartPolicy": "OnFailure", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
    }));
    world.lives.insert("i", vec![Life::For(2, 0)]);
    world.lives.insert("a", vec![Life::For(3, 1), Life::For(4, 0)]);
    world.run_until(50);
    assert_eq!(
        life(&world),
        [
            "1 Pending i:PodInitializing,0 a:PodInitializing,0",
            "1 Pending sandbox i:PodInitializing,0 a:PodInitializing,0",
            "1 Pending sandbox i:runs,0 a:PodInitializing,0",
            "3 Pending sandbox i:exit-0,0 a:PodInitializing,0",
            "3 Running sandbox ready i:exit-0,0 a:runs,0",
            "6 Running sandbox i:exit-0,0 a:exit-1,0",
            "6 Running sandbox ready i:exit-0,0 a:runs,1,last-1",
            "10 Running sandbox i:exit-0,0 a:exit-0,1,last-1",
            "10 Succeeded i:exit-0,0 a:exit-0,1,last-1",
        ]
    );
}

#[test]
fn no_end_is_shown_that_the_policy_would_leave_at_that() {
    let probe = json!({"exec": {"command": ["x"]}, "periodSeconds": 2, "failureThreshold": 1});
    let mut world = World::new(json!({
        "restartPolicy": "OnFailure", "containers": [{"name": "a", "livenessProbe": probe}],
    }));
    world.end_code = 0;
    world.run_until(5);
    world.probes.insert("a Liveness".into(), ProbeAnswer::Failure("no".into()));
    world.run_until(8);
    world.probes.clear();
    world.run_until(20);
    assert_eq!(
        life(&world),
        [
            "1 Pending a:ContainerCreating,0",
            "1 Pending sandbox a:ContainerCreating,0",
            "1 Running sandbox ready a:runs,0",
            "6 Running sandbox a:ContainerCreating,0,last-0",
            "6 Running sandbox ready a:runs,1,last-0",
            "7 Running sandbox a:ContainerCreating,1,last-0",
            "7 Running sandbox ready a:runs,2,last-0",
        ]
    );
}

#[test]
fn a_hook_is_waited_for_and_a_stop_is_shown_when_it_is_over() {
    let hooks = json!({"postStart": {"exec": {"command": ["x"]}}});
    let mut world = World::new(json!({
        "terminationGracePeriodSeconds": 5, "containers": [{"name": "a", "lifecycle": hooks}, {"name": "b"}],
    }));
    world.hook_secs = 4;
    world.lives.insert("b", vec![Life::Stubborn]);
    world.run_until(20);
    world.tell(Fact::Withdrawn);
    world.run_until(40);
    let life = life(&world);
    assert_eq!(
        life,
        [
            "1 Pending a:ContainerCreating,0 b:ContainerCreating,0",
            "1 Pending sandbox a:ContainerCreating,0 b:ContainerCreating,0",
            "5 Pending sandbox a:runs,0 b:ContainerCreating,0",
            "5 Running sandbox ready a:runs,0 b:runs,0",
            "20 Running sandbox a:exit-143,0 b:runs,0",
            "25 Running sandbox a:exit-143,0 b:exit-137,0",
            "25 Running a:exit-143,0 b:exit-137,0",
        ],
        "{life:#?}"
    );
}

#[test]
fn what_cannot_be_created_says_why() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.failing.push(("CreateContainer", "no such thing"));
    world.run_until(60);
    assert_eq!(
        life(&world),
        [
            "1 Pending a:ContainerCreating,0",
            "1 Pending sandbox a:ContainerCreating,0",
            "1 Pending sandbox a:CreateContainerError,0",
        ]
    );
}

#[test]
fn what_cannot_be_started_says_so_until_it_backs_off() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.failing.push(("StartContainer", "no such file"));
    world.run_until(60);
    assert_eq!(
        life(&world),
        [
            "1 Pending a:ContainerCreating,0",
            "1 Pending sandbox a:ContainerCreating,0",
            "1 Pending sandbox a:RunContainerError,0",
            "1 Pending sandbox a:CrashLoopBackOff,1",
            "11 Pending sandbox a:CrashLoopBackOff,2",
            "31 Pending sandbox a:CrashLoopBackOff,3",
        ]
    );
}

/// What holds of every status, whatever came before.
fn check(world: &World) {
    let mut ended: Option<&str> = None;
    for (at, status) in &world.shown {
        let phase = status.phase.as_deref().unwrap_or_default();
        assert!(ended.is_none_or(|e| e == phase), "{phase} after {ended:?} at {at:?}");
        ended = ["Failed", "Succeeded"].into_iter().find(|e| *e == phase).or(ended);
        for container in status.container_statuses.iter().flatten() {
            let state = container.state.as_ref().expect("a state");
            let states = [state.running.is_some(), state.waiting.is_some(), state.terminated.is_some()];
            assert_eq!(states.iter().filter(|s| **s).count(), 1, "{container:?} at {at:?}");
            assert!(!container.ready || state.running.is_some(), "{container:?} at {at:?}");
            assert!(ended.is_none() || state.running.is_none(), "{container:?} runs in a pod that ended, at {at:?}");
        }
    }
}

#[test]
fn a_phase_that_ends_is_the_last_and_nothing_runs_in_it() {
    for policy in ["Always", "OnFailure", "Never"] {
        for code in [0, 1] {
            for withdrawn_at in [1, 2, 4, 9, 30] {
                let mut world = World::new(json!({
                    "restartPolicy": policy, "activeDeadlineSeconds": 20,
                    "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                    "containers": [{"name": "a"}, {"name": "b"}],
                }));
                world.lives.insert("i", vec![Life::For(2, code), Life::For(1, 0)]);
                world.lives.insert("a", vec![Life::For(3, code)]);
                world.lives.insert("b", vec![Life::For(1, 1), Life::For(2, 0)]);
                world.run_until(withdrawn_at);
                world.withdraw();
                world.run_until(60);
                check(&world);
                assert!(world.record.is_gone(), "{:#?}", life(&world));
            }
        }
    }
}
