//! A machine that goes down.

use std::time::{Duration, Instant};

use rubelet_agent::care::Care;
use rubelet_agent::shutdown::Shutdown;
use rubelet_core::shutdown::{Period, Periods};
use serde_json::{Value, json};

use crate::logind::Logind;
use crate::told::Told;
use crate::world::{World, container, pod, pod_of};

/// Time is real here: the other side of the bus is a thread.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited a minute for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn of_priority(name: &str, priority: i32, words: &[&str]) -> rubelet_agent::sources::DesiredPod {
    let spec = json!({"containers": [container("app", words)], "terminationGracePeriodSeconds": 30});
    let mut desired = pod_of(name, spec);
    let mut pod = (*desired.pod).clone();
    pod.spec.as_mut().expect("it has one").priority = Some(priority);
    desired.pod = std::sync::Arc::new(pod);
    desired
}

#[tokio::test]
async fn the_machine_waits_for_its_pods_group_after_group_and_takes_no_new_ones() {
    let (told, _listening) = Told::listen();
    let mut world = World::new();
    let logind = Logind::on(world.path());
    let state = world.path().join("root/graceful_node_shutdown_state");
    let periods = [Period { priority: 0, secs: 3 }, Period { priority: 1000, secs: 20 }];
    world.care = Care {
        shutdown: Some(Shutdown {
            periods: Periods::of(periods.to_vec(), Duration::ZERO, Duration::ZERO),
            logind: logind.places.clone(),
            state: state.clone(),
        }),
        ..Care::off()
    };
    let agent = world.agent().await;
    let pods = || vec![of_priority("low", 5, &["stubborn"]), of_priority("high", 1000, &["serve"])];
    agent.wants(pods()).await;
    until("both run", || world.runtime.running().len() == 2).await;
    until("the machine has to wait", || logind.is_held()).await;
    until("it is listened to", || logind.calls().iter().any(|c| c.starts_with("AddMatch"))).await;
    let conf = std::fs::read_to_string(logind.places.conf_dir.join("99-kubelet.conf")).expect("written");
    assert_eq!(conf, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=23\n");
    assert!(logind.calls().iter().any(|c| c.starts_with("KillUnit") && c.contains("systemd-logind.service")));

    logind.prepare(true);
    until("the node says so", || *agent.ground.agent.is_shutting_down.borrow()).await;
    let mut more = pods();
    more.push(pod("late", &[("app", &["serve"])]));
    agent.wants(more).await;
    let reason = |name: &str| agent.shown(name).and_then(|s| s.reason);
    until("nobody is let in", || reason("late-node-a").as_deref() == Some("NodeShutdown")).await;
    until("all has ended", || !logind.is_held()).await;
    assert_eq!(world.runtime.running(), Vec::new());
    let calls = world.runtime.calls();
    let stops: Vec<&String> = calls.iter().filter(|c| c.starts_with("StopContainer")).collect();
    assert_eq!(stops, ["StopContainer default/low-node-a/app 3", "StopContainer default/high-node-a/app 20"]);
    let status = agent.shown("high-node-a").expect("it is shown");
    let message = "Pod was terminated in response to imminent node shutdown.";
    let told_of = (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref());
    assert_eq!(told_of, (Some("Failed"), Some("Terminated"), Some(message)));
    assert!(told.has("node-a Shutdown: Shutdown manager detected shutdown event"));
    let state: Value = serde_json::from_slice(&std::fs::read(&state).expect("written")).expect("JSON");
    assert!(state["startTime"].as_str() < state["endTime"].as_str(), "{state}");

    logind.prepare(false);
    until("it would wait again", || logind.is_held()).await;
    assert!(!*agent.ground.agent.is_shutting_down.borrow());
    assert!(told.has("Shutdown manager detected shutdown cancellation"));
}
