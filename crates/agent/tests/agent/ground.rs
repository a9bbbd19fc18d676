//! What a pod stands on is taken away under it.

use std::fs;

use serde_json::json;

use crate::world::{World, container, pod_of};

#[tokio::test(start_paused = true)]
async fn a_directory_that_somebody_removed_is_made_again_with_its_volumes() {
    let world = World::new();
    let agent = world.agent().await;
    let mut app = container("app", &["serve"]);
    app["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    let volumes = json!([{"name": "work", "emptyDir": {}}]);
    agent.wants(vec![pod_of("web", json!({"containers": [app], "volumes": volumes}))]).await;
    let starts = || world.runtime.calls().iter().filter(|c| c.starts_with("StartContainer")).count();
    world.until("it runs", || starts() == 1).await;

    let dirs = world.pod_dirs();
    let uid = dirs.first().unwrap();
    let dir = world.path().join("root/pods").join(uid);
    let was_there = ["etc-hosts", "volumes/kubernetes.io~empty-dir/work", "containers/app"];
    assert!(was_there.iter().all(|name| dir.join(name).exists()));
    // All of it, and what volumes in memory would leave of it.
    for (round, gone) in [dir.clone(), dir.join("plugins")].into_iter().enumerate() {
        fs::remove_dir_all(gone).unwrap();
        world.runtime.crash("default/web-node-a/app", 1);
        world.until("it runs again", || starts() == 2 + round).await;
        assert!(was_there.iter().all(|name| dir.join(name).exists()), "{round}");
        let shown = || agent.shown("web-node-a").and_then(|s| s.container_statuses).unwrap_or_default();
        world.until("it is shown", || shown().first().is_some_and(|c| c.restart_count == 1 + round as i32)).await;
    }
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}
