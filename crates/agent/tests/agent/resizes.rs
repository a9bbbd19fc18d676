//! Pods of an API server that get other sizes while they run, down to real cgroups.

use std::time::Duration;

use rubelet_agent::sources::DesiredPod;
use rubelet_core::pod::Source;
use rubelet_host::cgroup::Version;
use serde_json::json;

use crate::told::Told;
use crate::world::{Agent, World, container, pod_of};

fn sized(name: &str, cpu: &str, memory: &str) -> DesiredPod {
    let mut app = container("app", &["serve"]);
    let amounts = json!({"cpu": cpu, "memory": memory});
    app["resources"] = json!({"requests": amounts, "limits": amounts});
    pod_of(name, json!({"uid": format!("uid-{name}"), "containers": [app]}))
}

fn pending(agent: &Agent, name: &str) -> Option<String> {
    let status = agent.shown(name)?;
    let all = status.conditions.unwrap_or_default();
    all.into_iter().find(|c| c.type_ == "PodResizePending").and_then(|c| c.reason)
}

fn updates(world: &World) -> Vec<String> {
    world.runtime.calls().into_iter().filter(|c| c.starts_with("UpdateContainer")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_resized_while_it_runs() {
    let Some(world) = World::with_cgroups("resize") else { return };
    let (told, _listening) = Told::listen();
    let tree = world.cgroups.clone().expect("it has one");
    let agent = world.agent_of(vec![Source::Api]).await;
    let is_v1 = tree.version() == Version::V1;
    let held = || {
        let (quota, limit) =
            if is_v1 { ("cpu.cfs_quota_us", "memory.limit_in_bytes") } else { ("cpu.max", "memory.max") };
        let read = |controller, file| {
            let dir = tree.dir(controller, "kubepods/poduid-web").expect("there is such a controller");
            std::fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned()
        };
        [read("cpu", quota), read("memory", limit)]
    };
    let quota = |us: &str| if is_v1 { us.to_owned() } else { format!("{us} 100000") };
    agent.wants_of(Source::Api, vec![sized("web", "500m", "64Mi")]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    assert_eq!(held(), [quota("50000"), "67108864".to_owned()]);

    agent.wants_of(Source::Api, vec![sized("web", "1", "128Mi")]).await;
    world.until("it is told", || told.has("ResizeCompleted")).await;
    assert_eq!(held(), [quota("100000"), "134217728".to_owned()]);
    assert_eq!(
        updates(&world),
        [
            "UpdateContainerResources default/web-node-a/app 512 50000 134217728",
            "UpdateContainerResources default/web-node-a/app 1024 100000 134217728"
        ]
    );

    // What is in use is not taken away.
    world.runtime.uses("default/web-node-a/app", 100 << 20);
    agent.wants_of(Source::Api, vec![sized("web", "1", "64Mi")]).await;
    world.until("it is refused", || told.has("ResizeError")).await;
    let words = "cannot decrease memory limits: attempting to set container \\\"app\\\" memory limit (67108864) below current usage (104857600)";
    assert!(told.has(words), "{:?}", told.lines().last());
    assert_eq!((held()[1].as_str(), updates(&world).len()), ("134217728", 2));
    world.runtime.uses("default/web-node-a/app", 1 << 20);
    world.until("it works", || held()[1] == "67108864").await;
    assert_eq!(world.runtime.calls().iter().filter(|c| c.starts_with("StartContainer")).count(), 1);
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_for_room_and_counts_only_when_it_is_granted() {
    let world = World::new();
    let agent = world.agent_of(vec![Source::Api]).await;
    let both = |a: &str, b: &str| vec![sized("a", a, "64Mi"), sized("b", b, "64Mi")];
    agent.wants_of(Source::Api, both("2", "1")).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    agent.wants_of(Source::Api, both("2", "3")).await;
    world.until("it waits", || pending(&agent, "b-node-a").as_deref() == Some("Deferred")).await;
    assert_eq!(updates(&world), [""; 0]);
    // A third one still fits beside what they have.
    let mut three = both("2", "3");
    three.push(sized("c", "1", "64Mi"));
    agent.wants_of(Source::Api, three.clone()).await;
    world.until("the third one runs", || world.runtime.running().len() == 3).await;
    three[0] = sized("a", "500m", "64Mi");
    agent.wants_of(Source::Api, three.clone()).await;
    world.until("a is smaller", || updates(&world).len() == 1).await;
    assert_eq!(pending(&agent, "b-node-a").as_deref(), Some("Deferred"));
    three.pop();
    agent.wants_of(Source::Api, three).await;
    world.until("b is bigger", || pending(&agent, "b-node-a").is_none()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = updates(&world);
    assert_eq!(
        all.last().map(String::as_str),
        Some("UpdateContainerResources default/b-node-a/app 3072 300000 67108864")
    );
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_of_another_size_is_another_pod() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![sized("web", "1", "64Mi")]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    agent.wants(vec![sized("web", "2", "64Mi")]).await;
    let starts = || world.runtime.calls().iter().filter(|c| c.starts_with("RunPodSandbox")).count();
    world.until("it is replaced", || starts() == 2 && world.runtime.running().len() == 1).await;
    assert_eq!(updates(&world), [""; 0]);
    drop(agent);
}
