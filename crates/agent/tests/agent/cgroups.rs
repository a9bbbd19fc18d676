//! Pods and their real cgroups.

use std::time::Duration;

use crate::world::{World, pod};

#[tokio::test(start_paused = true)]
async fn a_pod_whose_cgroup_vanishes_is_killed_and_made_again() {
    let Some(world) = World::with_cgroups("vanish") else { return };
    let tree = world.cgroups.clone().expect("it has one");
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])]), pod("other", &[("app", &["serve"])])]).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    let uid = pod("web", &[("app", &["serve"])]).pod.metadata.uid.clone().unwrap_or_default();
    let path = format!("kubepods/besteffort/pod{uid}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(tree.exists(&path));
    let before = world.runtime.calls().len();
    tree.remove(&path).expect("nothing runs in it: the runtime is made up");
    // Seen by the relist at the latest.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(
        world.runtime.calls()[before..],
        [
            "StopContainer default/web-node-a/app 5",
            "StopPodSandbox default/web-node-a",
            "RunPodSandbox default/web-node-a",
            "CreateContainer default/web-node-a/app",
            "StartContainer default/web-node-a/app",
        ][..],
    );
    assert!(tree.exists(&path));
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn so_is_one_of_which_a_part_vanishes() {
    let Some(world) = World::with_cgroups("part") else { return };
    let tree = world.cgroups.clone().expect("it has one");
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let uid = pod("web", &[("app", &["serve"])]).pod.metadata.uid.clone().unwrap_or_default();
    let path = format!("kubepods/besteffort/pod{uid}");
    let dir = tree.dir("memory", &path).expect("there is such a controller");
    std::fs::remove_dir(dir).expect("empty");
    let sandboxes = || world.runtime.calls().iter().filter(|c| c.starts_with("RunPodSandbox")).count();
    world.until("it is made again", || sandboxes() == 2).await;
    world.until("it is whole", || tree.exists(&path)).await;
    drop(agent);
}
