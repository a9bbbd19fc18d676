//! Ephemeral containers: guests in a running pod.

use rubelet_api::v1;
use rubelet_proto::cri::NamespaceMode;
use serde_json::{Value, json};

use super::world::{Life, World};
use crate::pod::{EvictOrder, Fact, Order};

fn spec(guests: Value) -> Value {
    json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "main"}], "ephemeralContainers": guests})
}

/// The status of an ephemeral container.
fn guest(world: &World, name: &str) -> v1::ContainerStatus {
    let all = world.status.ephemeral_container_statuses.iter().flatten();
    all.clone()
        .find(|s| s.name == name)
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {:?}", all.collect::<Vec<_>>()))
}

fn waits(world: &World, name: &str) -> (String, String) {
    let waiting = guest(world, name).state.and_then(|s| s.waiting).unwrap_or_default();
    (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
}

#[test]
fn a_guest_is_started_in_the_pod_that_runs_and_stops_with_it() {
    let mut world = World::new(spec(json!([])));
    world.run_until(5);
    world.want(spec(json!([{"name": "dbg", "targetContainerName": "main"}])));
    world.run_until(9);
    assert_eq!(world.log, ["1.0 sandbox 0", "1.0 start main 0", "5.0 start dbg 0"]);
    let namespaces = |nth: usize| {
        let linux = world.created[nth].config.linux.clone().unwrap_or_default();
        linux.security_context.and_then(|s| s.namespace_options).unwrap_or_default()
    };
    assert_eq!(namespaces(0).pid(), NamespaceMode::Container);
    assert_eq!((namespaces(1).pid(), namespaces(1).target_id.as_str()), (NamespaceMode::Target, "main-101"));
    let status = guest(&world, "dbg");
    assert!(status.state.is_some_and(|s| s.running.is_some()));
    assert_eq!((status.ready, status.started, status.restart_count), (false, None, 0));
    let told: Vec<&String> = world.events.iter().filter(|e| e.contains("dbg")).collect();
    let image = "Container image \"busybox\" already present on machine and can be accessed by the pod";
    assert_eq!(
        told,
        [
            &format!("5.0 Pulled dbg: {image}"),
            "5.0 Created dbg: Container created",
            "5.0 Started dbg: Container started"
        ]
    );

    world.withdraw();
    world.run_until(20);
    let stops: Vec<&String> = world.log.iter().filter(|l| l.contains("stop")).collect();
    assert_eq!(stops, ["9.0 stop dbg 3", "9.0 stop main 3", "9.0 stop sandbox s0"]);
    assert!(world.events.contains(&"9.0 Killing dbg: Stopping container dbg".to_owned()), "{:?}", world.events);
    assert!(world.record.is_gone());
}

#[test]
fn it_waits_for_no_init_container() {
    let mut both = spec(json!([{"name": "dbg", "targetContainerName": "first"}]));
    both["initContainers"] = json!([{"name": "first"}]);
    let mut world = World::new(both);
    world.run_until(60);
    assert_eq!(world.running(), ["dbg", "first"]);
    assert_eq!(world.status.phase.as_deref(), Some("Pending"));
}

#[test]
fn it_is_never_started_again() {
    let guests = || spec(json!([{"name": "dbg"}]));
    let mut world = World::new(guests());
    world.lives.insert("dbg", vec![Life::For(3, 1)]);
    world.run_until(600);
    assert_eq!(world.log.iter().filter(|l| l.contains("start dbg")).count(), 1);
    assert_eq!(guest(&world, "dbg").state.and_then(|s| s.terminated).map(|t| t.exit_code), Some(1));
    assert_eq!(world.status.phase.as_deref(), Some("Running"));

    // Nor by the next agent, nor in another sandbox, nor when nothing is left of it but what the logs tell.
    let mut next = World::over(world.runtime.clone(), guests());
    next.run_until(60);
    assert_eq!(next.log, [""; 0]);
    next.runtime.sandboxes[0].is_ready = false;
    next.look();
    next.run_until(120);
    let starts: Vec<&String> = next.log.iter().filter(|l| l.contains("start")).collect();
    assert_eq!(starts, ["60.0 start main 1"]);
    next.runtime.containers.retain(|c| c.name.as_str() != "dbg");
    next.look();
    next.run_until(240);
    assert_eq!(next.running(), ["main"]);
    let mut last = World::over(next.runtime.clone(), guests());
    last.tell(Fact::LogCounts(vec![(rubelet_api::ids::ContainerName::new("dbg"), 1)]));
    last.run_until(60);
    assert_eq!(last.running(), ["main"]);
}

#[test]
fn a_guest_whose_target_is_not_there_says_so_and_comes_later() {
    let mut both = spec(json!([{"name": "dbg", "targetContainerName": "main"}]));
    both["initContainers"] = json!([{"name": "first"}]);
    let mut world = World::new(both);
    world.lives.insert("first", vec![Life::For(30, 0)]);
    world.run_until(20);
    assert_eq!(
        waits(&world, "dbg"),
        ("CreateContainerConfigError".to_owned(), "unable to find target container main".to_owned())
    );
    let line = "1.0 Failed dbg: Error: unable to find target container main";
    assert!(world.events.iter().any(|e| e == line), "{:#?}", world.events);
    world.run_until(60);
    assert_eq!(world.running(), ["dbg", "main"]);
    assert_eq!(world.created.last().map(|c| c.container.as_str()), Some("dbg"));
}

#[test]
fn a_guest_that_cannot_be_made_is_tried_again_and_holds_up_nobody() {
    let mut world = World::new(spec(json!([{"name": "dbg"}])));
    world.failing = vec![("CreateContainer(\"dbg\"", "no such device")];
    world.run_until(25);
    assert_eq!(world.running(), ["main"]);
    assert_eq!(waits(&world, "dbg"), ("CreateContainerError".to_owned(), "no such device".to_owned()));
    world.failing.clear();
    world.run_until(40);
    assert_eq!(world.running(), ["dbg", "main"]);
}

#[test]
fn a_pod_that_is_done_or_evicted_takes_its_guests_along() {
    let mut done = spec(json!([{"name": "dbg"}]));
    done["restartPolicy"] = json!("Never");
    let mut world = World::new(done);
    world.lives.insert("main", vec![Life::For(5, 0)]);
    world.run_until(30);
    assert_eq!((world.status.phase.as_deref(), world.running()), (Some("Succeeded"), Vec::<&str>::new()));
    let ends: Vec<&String> = world.log.iter().filter(|l| l.contains("stop dbg")).collect();
    assert_eq!(ends, ["6.0 stop dbg 3"]);

    let mut world = World::new(spec(json!([{"name": "dbg"}])));
    world.run_until(10);
    let (reason, message) = ("Evicted".to_owned(), "low".to_owned());
    let order = EvictOrder { grace_secs: Some(1), reason, message, ..EvictOrder::default() };
    world.tell(Fact::Order(Order::Evict(order)));
    world.run_until(20);
    assert_eq!((world.status.phase.as_deref(), world.running()), (Some("Failed"), Vec::<&str>::new()));
}
