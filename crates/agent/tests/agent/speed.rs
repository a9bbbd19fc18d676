//! How long things take in virtual time, and what an agent at rest costs.

use std::time::Duration;

use rubelet_testkit::Temper;
use tokio::time::Instant;

use crate::world::{World, pod};

/// A runtime in which each verb takes between 3 and 12 ms.
fn world() -> World {
    World::with(Temper::default())
}

#[tokio::test(start_paused = true)]
async fn a_pod_starts_at_the_runtimes_own_speed() {
    let world = world();
    let agent = world.agent().await;
    let before = Instant::now();
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    // Sandbox, look, image, create, look, start: six verbs, and the grid of the wait.
    assert!(before.elapsed() <= Duration::from_millis(6 * 12 + 50), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_noticed_at_once() {
    let world = world();
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.settle().await;
    let before = Instant::now();
    world.runtime.crash("default/web-node-a/app", 1);
    world.until("it runs again", || world.runtime.running().len() == 1).await;
    assert!(before.elapsed() <= Duration::from_millis(200), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_rest_only_the_lists_are_read() {
    let world = world();
    let agent = world.agent().await;
    agent.wants((0..30).map(|n| pod(&format!("p{n}"), &[("app", &["serve"])])).collect()).await;
    world.until("all run", || world.runtime.running().len() == 30).await;
    world.settle().await;
    let (before, shown) = (world.runtime.verbs(), *agent.ground.agent.picture.version().borrow());
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Two lists every ten seconds, a status every thirty.
    let verbs = world.runtime.verbs() - before;
    assert!(verbs <= 2 * 61 + 21, "{verbs} calls in ten minutes");
    assert_eq!(*agent.ground.agent.picture.version().borrow(), shown, "nothing changed and something was published");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_waits_for_nothing() {
    let world = world();
    let agent = world.agent().await;
    agent.wants((0..30).map(|n| pod(&format!("p{n}"), &[("app", &["serve"])])).collect()).await;
    world.until("all run", || world.runtime.running().len() == 30).await;
    world.settle().await;
    drop(agent);
    let before = Instant::now();
    let _agent = world.agent().await;
    // Two lists and two looks for each pod, sixteen pods at once.
    assert!(before.elapsed() <= Duration::from_millis(250), "{:?}", before.elapsed());
}
