//! Critical pods that find no room.

use std::sync::Arc;

use rubelet_agent::sources::DesiredPod;
use rubelet_core::pod::Source;
use serde_json::json;

use crate::told::Told;
use crate::world::{World, container, pod_of};

/// A pod as an API server gives it.
fn of(name: &str, cpu: &str, priority: i32, words: &[&str]) -> DesiredPod {
    let mut app = container("app", words);
    app["resources"] = json!({"requests": {"cpu": cpu}});
    let mut desired = pod_of(name, json!({"uid": format!("uid-{name}"), "containers": [app]}));
    let mut pod = (*desired.pod).clone();
    pod.metadata.annotations = None;
    pod.spec.as_mut().expect("it has one").priority = Some(priority);
    desired.pod = Arc::new(pod);
    desired
}

/// The node has 4 CPUs.
#[tokio::test(start_paused = true)]
async fn a_critical_pod_begins_when_others_have_ended_for_it() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    let agent = world.agent_of(vec![Source::Api]).await;
    let runs = |name: &str| world.runtime.running().iter().any(|(container, _)| container.contains(name));
    let mut pods = vec![of("big", "3", 0, &["serve"]), of("small", "500m", 0, &["stubborn"])];
    agent.wants_of(Source::Api, pods.clone()).await;
    world.until("both run", || runs("big") && runs("small")).await;

    pods.push(of("critical", "1", 2_000_000_000, &["serve"]));
    agent.wants_of(Source::Api, pods.clone()).await;
    world.until("the critical one runs", || runs("critical")).await;
    assert!(!runs("small") && runs("big"), "{:?}", world.runtime.running());
    let small = agent.shown("small-node-a").expect("it is still wanted");
    let words = "Preempted in order to admit critical pod";
    assert_eq!(
        (small.phase.as_deref(), small.reason.as_deref(), small.message.as_deref()),
        (Some("Failed"), Some("Preempting"), Some(words))
    );
    let conditions = small.conditions.unwrap_or_default();
    let condition = conditions.iter().find(|c| c.type_ == "DisruptionTarget").expect("it is one");
    assert_eq!(
        (condition.reason.as_deref(), condition.message.as_deref()),
        (Some("TerminationByKubelet"), Some("Pod was preempted by Kubelet to accommodate a critical pod."))
    );
    assert!(told.has(&format!("Preempting: {words}")), "{:?}", told.lines());

    // What is left is as little for the next one, and nobody ends for one that is not critical.
    pods.push(of("late", "1", 1000, &["serve"]));
    agent.wants_of(Source::Api, pods).await;
    world.until("it is refused", || agent.shown("late-node-a").is_some_and(|s| s.reason.is_some())).await;
    assert_eq!(agent.shown("late-node-a").and_then(|s| s.reason).as_deref(), Some("OutOfcpu"));
    assert!(runs("big") && runs("critical"));
}
