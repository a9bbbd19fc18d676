//! Where the agent itself breaks, it breaks for one pod, and mends itself.

use std::time::Duration;

use serde_json::json;

use crate::told::Told;
use crate::world::{World, container, pod, pod_of};

const ODD: &str = "default/odd-node-a";

fn starts(world: &World, name: &str) -> usize {
    let line = format!("StartContainer default/{name}-node-a/app");
    world.runtime.calls().iter().filter(|c| **c == line).count()
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_replaced_and_others_do_not_notice() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    told.break_on(|line| line.starts_with(ODD) && line.contains("Started"));
    let agent = world.agent().await;
    agent.wants(vec![pod("odd", &[("app", &["serve"])]), pod("web", &[("app", &["serve"])])]).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let started = |name: &str| agent.shown(name).is_some_and(|s| s.phase.as_deref() == Some("Running"));
    assert!(!started("odd-node-a"), "its worker is dead");
    assert!(started("web-node-a"));
    world.until("another worker took over", || started("odd-node-a")).await;
    assert_eq!((starts(&world, "odd"), starts(&world, "web")), (1, 1), "what ran went on");
    assert_eq!(agent.ground.agent.pulse.check(), Ok(()));

    // The new one works: it starts the container again, here too after one that panics while telling of it.
    world.runtime.crash("default/odd-node-a/app", 1);
    world.until("it runs again", || starts(&world, "odd") == 2).await;
    told.mend();
    world
        .until("it is shown", || {
            let containers = agent.shown("odd-node-a").and_then(|s| s.container_statuses).unwrap_or_default();
            containers.first().is_some_and(|c| c.ready && c.restart_count == 1)
        })
        .await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it is gone", || world.pod_dirs().len() == 1).await;
    assert_eq!(starts(&world, "web"), 1);
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_worker_was_told_is_not_forgotten() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("odd", &[("app", &["old"])])]).await;
    world.until("it runs", || starts(&world, "odd") == 1).await;
    told.break_on(|line| line.starts_with(ODD) && line.contains("Killing"));
    agent.wants(vec![pod("odd", &[("app", &["new"])])]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    told.mend();
    let new = vec![("default/odd-node-a/app".to_owned(), vec!["new".to_owned()])];
    world.until("the new one runs", || world.runtime.running() == new).await;
    told.break_on(|line| line.starts_with(ODD) && line.contains("Killing"));
    agent.wants(Vec::new()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    told.mend();
    world.until("it is gone", || world.pod_dirs().is_empty()).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_not_let_in_stays_out() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    let port = |name: &str| {
        let mut app = container("app", &["serve"]);
        app["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        pod_of(name, json!({"containers": [app]}))
    };
    told.break_on(|line| line.starts_with(ODD));
    let agent = world.agent().await;
    agent.wants(vec![port("web"), port("odd")]).await;
    world.until("web runs", || starts(&world, "web") == 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    told.mend();
    world.settle().await;
    let shown = agent.shown("odd-node-a").expect("shown");
    assert_eq!((shown.phase.as_deref(), shown.reason.as_deref()), (Some("Failed"), Some("NodePorts")));
    assert_eq!(starts(&world, "odd"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_or_look_that_panics_is_one_that_failed() {
    // A container is looked at when it was started.
    for (verb, wanted) in
        [("RunPodSandbox", 0), ("CreateContainer", 0), ("PodSandboxStatus", 0), ("ContainerStatus", 1)]
    {
        let world = World::new();
        world.runtime.panic_on(verb, ODD);
        let agent = world.agent().await;
        agent.wants(vec![pod("odd", &[("app", &["serve"])]), pod("web", &[("app", &["serve"])])]).await;
        world.until("web runs", || starts(&world, "web") == 1).await;
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(starts(&world, "odd"), wanted, "{verb}");
        world.runtime.calm();
        world
            .until("odd runs", || {
                let containers = agent.shown("odd-node-a").and_then(|s| s.container_statuses).unwrap_or_default();
                containers.first().is_some_and(|c| c.ready)
            })
            .await;
        assert_eq!(world.runtime.running().len(), 2, "{verb}");
        assert_eq!((starts(&world, "web"), starts(&world, "odd")), (1, 1), "{verb}");
        assert_eq!(world.runtime.violations(), Vec::<String>::new(), "{verb}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_look_that_panicked_the_pod_is_looked_at_again() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("odd", &[("app", &["serve"])])]).await;
    world.until("it runs", || starts(&world, "odd") == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.runtime.panic_on("ContainerStatus", ODD);
    world.runtime.crash("default/odd-node-a/app", 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(starts(&world, "odd"), 1);
    world.runtime.calm();
    world.until("it runs again", || starts(&world, "odd") == 2).await;
}
