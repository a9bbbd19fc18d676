//! The agent dies by SIGKILL and comes back: nothing restarts, nothing flips.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, container, pod, pod_at, pod_of};

#[tokio::test(start_paused = true)]
async fn a_running_pod_goes_on_under_a_new_agent() {
    let world = World::new();
    let web = || vec![pod("web", &[("app", &["serve"]), ("side", &["serve"])])];
    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("both containers run", || world.runtime.running().len() == 2).await;
    world.until("ready", || ready(&agent, "web-node-a")).await;
    let calls = world.runtime.calls();
    drop(agent);

    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("ready again", || ready(&agent, "web-node-a")).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.runtime.calls(), calls, "the new agent touched a pod that was as wanted");
}

#[tokio::test(start_paused = true)]
async fn arguments_edited_while_the_agent_was_dead_take_effect() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["old"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    drop(agent);

    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["new"])])]).await;
    let new = vec![("default/web-node-a/app".to_owned(), vec!["new".to_owned()])];
    world.until("the new version runs", || world.runtime.running() == new).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_the_running_configuration_decides() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let calls = world.runtime.calls();
    drop(agent);
    std::fs::remove_dir_all(world.path().join("root/rubelet")).expect("the ledger is there");

    // The same manifest under another UID, as another version of the agent would give it.
    let mut desired = pod("web", &[("app", &["serve"])]);
    let mut other = (*desired.pod).clone();
    other.metadata.uid = Some("0123456789abcdef0123456789abcdef".into());
    desired.pod = std::sync::Arc::new(other);
    let agent = world.agent().await;
    agent.wants(vec![desired]).await;
    world.until("ready again", || ready(&agent, "web-node-a")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.runtime.calls(), calls, "a pod that runs as wanted was restarted");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_is_not_absent() {
    let world = World::new();
    let web = || vec![pod("web", &[("app", &["serve"])])];
    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let calls = world.runtime.calls();
    drop(agent);

    for verb in ["ContainerStatus", "PodSandboxStatus"] {
        world.runtime.fail(verb, 20);
    }
    let agent = world.agent().await;
    agent.wants(web()).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.runtime.calls(), calls, "the agent acted on a pod that it had not seen");
    world.runtime.crash("default/web-node-a/app", 1);
    world.until("it runs again", || world.runtime.running().len() == 1).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_done_is_not_done_again() {
    let world = World::new();
    let job = || {
        let containers = [container("job", &["exits", "100", "0"])];
        vec![pod_of("job", json!({"restartPolicy": "OnFailure", "containers": containers}))]
    };
    let agent = world.agent().await;
    agent.wants(job()).await;
    world.settle().await;
    let starts = || world.runtime.calls().iter().filter(|c| c.starts_with("StartContainer")).count();
    assert_eq!(starts(), 1);
    drop(agent);
    let agent = world.agent().await;
    agent.wants(job()).await;
    world.settle().await;
    assert_eq!(starts(), 1, "{:#?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn restart_counts_go_on_from_the_logs() {
    let world = World::new();
    let web = || vec![pod("web", &[("app", &["serve"])])];
    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    world.runtime.crash("default/web-node-a/app", 1);
    world.until("it runs again", || world.runtime.running().len() == 1).await;
    drop(agent);
    // The runtime loses everything, as after a crash of the node whose state was in memory.
    world.runtime.forget();

    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("it runs a third time", || world.runtime.running().len() == 1).await;
    assert_eq!(world.runtime.log_names(), ["app/2.log"]);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_moves_to_another_file_is_the_same_pod() {
    let world = World::new();
    let at = |path: &str| vec![pod_at(path, "web", json!({"containers": [container("app", &["serve"])]}))];
    let agent = world.agent().await;
    agent.wants(at("/manifests/web.yaml")).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let calls = world.runtime.calls();
    agent.wants(at("/manifests/10-web.yaml")).await;
    world.settle().await;
    drop(agent);
    let agent = world.agent().await;
    agent.wants(at("/manifests/20-web.yaml")).await;
    world.settle().await;
    assert_eq!(world.runtime.calls(), calls, "renaming a file restarted a pod");
}

#[tokio::test(start_paused = true)]
async fn a_crash_restarts_at_once_and_then_backs_off() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    world.runtime.crash("default/web-node-a/app", 1);
    world.until("it runs again", || world.runtime.running().len() == 1).await;
    world.until("the count is shown", || restarts(&agent, "web-node-a") == Some(1)).await;
    world.runtime.crash("default/web-node-a/app", 1);
    world.until("back-off is shown", || waiting(&agent, "web-node-a").as_deref() == Some("CrashLoopBackOff")).await;
    world.until("it runs a third time", || world.runtime.running().len() == 1).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

fn ready(agent: &crate::world::Agent, name: &str) -> bool {
    let status = agent.shown(name);
    let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn restarts(agent: &crate::world::Agent, name: &str) -> Option<i32> {
    Some(agent.shown(name)?.container_statuses?.first()?.restart_count)
}

fn waiting(agent: &crate::world::Agent, name: &str) -> Option<String> {
    agent.shown(name)?.container_statuses?.first()?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}
