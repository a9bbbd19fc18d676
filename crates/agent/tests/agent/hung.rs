//! A runtime that does not answer about one pod marks that pod, and nothing else.

use std::time::Duration;

use rubelet_api::v1;
use tokio::time::Instant;

use crate::told::Told;
use crate::world::{Agent, REQUEST_TIMEOUT, World, pod};

const SLOW: &str = "default/slow-node-a";

/// Waits in virtual time; at every moment the node is well.
async fn until_and_well(what: &str, secs_max: u64, agent: &Agent, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        assert_eq!(agent.ground.agent.pulse.check(), Ok(()), "{what}");
        if condition() {
            return start.elapsed();
        }
        assert!(start.elapsed().as_secs() <= secs_max, "waited {secs_max} s for: {what}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn waiting(status: &v1::PodStatus) -> Option<(String, String)> {
    let state = status.container_statuses.as_ref()?.first()?.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    Some((waiting.reason.clone().unwrap_or_default(), waiting.message.clone().unwrap_or_default()))
}

fn runs(world: &World, name: &str) -> bool {
    world.runtime.running().iter().any(|(path, _)| *path == format!("default/{name}-node-a/app"))
}

/// What hangs, after how long at most it is told of, in which event and in which waiting reason.
const STARTS: [(&str, u64, &str, &str); 4] = [
    (
        "RunPodSandbox",
        240,
        "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        "ContainerCreating",
    ),
    ("CreateContainer", 120, "Failed: Error: context deadline exceeded", "CreateContainerError"),
    ("StartContainer", 120, "Failed: Error: context deadline exceeded", "RunContainerError"),
    ("ContainerStatus", 600, "", "ContainerCreating"),
];

#[tokio::test(start_paused = true)]
async fn a_pod_whose_start_hangs_says_so_and_others_go_on() {
    for (verb, secs, event, reason) in STARTS {
        let (told, _listening) = Told::listen();
        let world = World::new();
        world.runtime.hang(verb, SLOW);
        let agent = world.agent().await;
        let slow = || pod("slow", &[("app", &["serve"])]);
        agent.wants(vec![slow(), pod("web", &[("app", &["serve"])])]).await;
        until_and_well(&format!("{verb}: web runs"), 2, &agent, || runs(&world, "web")).await;
        let line = format!("default/slow-node-a {event}");
        until_and_well(&format!("{verb}: it is told"), secs + 1, &agent, || event.is_empty() || told.has(&line)).await;
        let shown = agent.shown("slow-node-a").and_then(|s| waiting(&s)).unwrap_or_default();
        assert_eq!(shown.0, reason, "{verb}: {shown:?}");

        // For half an hour and longer: others come, end, start again and go.
        agent.wants(vec![slow(), pod("web", &[("app", &["serve"])]), pod("new", &[("app", &["serve"])])]).await;
        until_and_well(&format!("{verb}: new runs"), 2, &agent, || runs(&world, "new")).await;
        world.runtime.crash("default/web-node-a/app", 1);
        until_and_well(&format!("{verb}: web runs again"), 12, &agent, || runs(&world, "web")).await;
        agent.wants(vec![slow(), pod("new", &[("app", &["serve"])])]).await;
        until_and_well(&format!("{verb}: web is gone"), 8, &agent, || !runs(&world, "web")).await;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(agent.ground.agent.pulse.check(), Ok(()), "{verb}");
        }

        world.runtime.unhang();
        until_and_well(&format!("{verb}: slow runs at last"), 400, &agent, || {
            let ready = agent.shown("slow-node-a").and_then(|s| s.container_statuses).unwrap_or_default();
            runs(&world, "slow") && ready.first().is_some_and(|c| c.ready)
        })
        .await;
        assert_eq!(world.runtime.violations(), Vec::<String>::new(), "{verb}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_end_hangs_says_so_and_its_name_stays_taken() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("slow", &[("app", &["old"])]), pod("web", &[("app", &["serve"])])]).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    world.runtime.hang("StopContainer", SLOW);
    agent.wants(vec![pod("slow", &[("app", &["new"])]), pod("web", &[("app", &["other"])])]).await;
    let other = ("default/web-node-a/app".to_owned(), vec!["other".to_owned()]);
    until_and_well("web is replaced", 10, &agent, || world.runtime.running().contains(&other)).await;
    let line = "default/slow-node-a FailedKillPod: error killing pod: rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    // Its grace is 5 s.
    until_and_well("it is told", REQUEST_TIMEOUT.as_secs() + 6, &agent, || told.has(line)).await;
    let old = ("default/slow-node-a/app".to_owned(), vec!["old".to_owned()]);
    assert!(world.runtime.running().contains(&old), "the new one waits");
    world.runtime.unhang();
    let new = ("default/slow-node-a/app".to_owned(), vec!["new".to_owned()]);
    until_and_well("the new one runs", 300, &agent, || world.runtime.running().contains(&new)).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

/// Restarts the agent of two pods while the runtime does not tell of one of them; what was done to pods since then.
async fn restarted(forget: impl FnOnce(&World)) -> Vec<String> {
    let world = World::new();
    let wanted = || vec![pod("slow", &[("app", &["serve"])]), pod("web", &[("app", &["serve"])])];
    let agent = world.agent().await;
    agent.wants(wanted()).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    drop(agent);
    forget(&world);
    world.runtime.hang("ContainerStatus", SLOW);
    let before = world.runtime.calls().len();
    let start = Instant::now();
    let agent = world.agent().await;
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    let mut more = wanted();
    more.push(pod("new", &[("app", &["serve"])]));
    agent.wants(more).await;
    until_and_well("new runs", 2, &agent, || runs(&world, "new")).await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(agent.ground.agent.pulse.check(), Ok(()));
    }
    world.runtime.unhang();
    until_and_well("slow is known", 600, &agent, || {
        let shown = agent.shown("slow-node-a").and_then(|s| s.container_statuses).unwrap_or_default();
        shown.first().is_some_and(|c| c.ready)
    })
    .await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
    world.runtime.calls()[before..].iter().filter(|c| !c.contains("new")).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn an_agent_starts_although_the_runtime_does_not_tell_of_one_pod() {
    assert_eq!(restarted(|_| {}).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn it_does_so_where_pods_must_be_compared() {
    // As after another kubelet: nobody wrote down what the pods were started from.
    let forget = |world: &World| std::fs::remove_file(world.path().join("root/rubelet/ledger.json")).expect("there");
    assert_eq!(restarted(forget).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_come_round_is_not_well() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    until_and_well("it runs", 2, &agent, || runs(&world, "web")).await;
    let pulse = agent.ground.agent.pulse.clone();
    drop(agent);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(pulse.check(), Ok(()));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(pulse.check(), Err("sync Loop took longer than expected".to_owned()));
}
