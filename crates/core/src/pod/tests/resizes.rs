//! Pods that get other sizes while they run.

use rubelet_api::v1;
use serde_json::{Value, json};

use super::world::{Life, World};
use crate::pod::{Fact, ResizeVerdict, Source};

/// CPU request and limit, memory request and limit.
fn container(name: &str, cpu: [&str; 2], memory: [&str; 2]) -> Value {
    json!({"name": name, "resources": {
        "requests": {"cpu": cpu[0], "memory": memory[0]}, "limits": {"cpu": cpu[1], "memory": memory[1]}}})
}

fn spec(containers: &[Value]) -> Value {
    json!({"terminationGracePeriodSeconds": 3, "containers": containers})
}

fn running(containers: &[Value]) -> World {
    let mut world = World::attached(spec(containers));
    world.run_until(5);
    world.log.clear();
    world.events.clear();
    world.shown.clear();
    world
}

/// Another size, and what admission says to it.
fn resize(world: &mut World, containers: &[Value], verdict: ResizeVerdict) {
    world.want(spec(containers));
    world.tell(Fact::Resize(verdict));
}

fn deferred(message: &str) -> ResizeVerdict {
    ResizeVerdict::Deferred { reason: "OutOfcpu".to_owned(), message: message.to_owned() }
}

fn condition<'a>(status: &'a v1::PodStatus, type_: &str) -> Option<&'a v1::PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

fn small() -> Value {
    let mut main = container("main", ["100m", "200m"], ["32Mi", "64Mi"]);
    main["resizePolicy"] = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    main
}

fn with(mut container: Value, cpu: [&str; 2], memory: [&str; 2]) -> Value {
    container["resources"] = self::container("", cpu, memory)["resources"].clone();
    container
}

/// `c10-resize`, as recorded.
#[test]
fn a_pod_grows_before_its_container() {
    let mut world = running(&[small()]);
    resize(&mut world, &[with(small(), ["150m", "300m"], ["32Mi", "64Mi"])], ResizeVerdict::Granted);
    world.run_until(9);
    assert_eq!(
        world.log,
        ["5.0 resize pod CpuLimit 300", "5.0 resize pod CpuRequest 150", "5.0 resize main Cpu 150..300"]
    );
    let sizes = "{\"containers\":[{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"300m\",\"memory\":\"64Mi\"},\
                 \"requests\":{\"cpu\":\"150m\",\"memory\":\"32Mi\"}}}],\"generation\":2}";
    assert_eq!(
        world.events,
        [
            format!("5.0 ResizeStarted : Pod resize started: {sizes}"),
            format!("5.0 ResizeCompleted : Pod resize completed: {sizes}")
        ]
    );
    let pod: Vec<_> = world.pod_resized.iter().map(|r| (&r.request, r.cpu_shares, r.cpu_quota_us)).collect();
    let told = |nth: usize| pod[nth].0.resources.clone().unwrap_or_default();
    assert_eq!((told(0).cpu_quota, told(0).cpu_shares, told(0).cpu_period), (30_000, 102, 100_000));
    assert_eq!((told(1).cpu_quota, told(1).cpu_shares, told(1).memory_limit_in_bytes), (30_000, 153, 64 << 20));
    assert_eq!((pod[0].1, pod[0].2, pod[1].1, pod[1].2), (None, Some(30_000), Some(153), None));
    assert_eq!((pod[0].0.pod_sandbox_id.as_str(), pod[0].0.overhead.clone()), ("s0", Some(Default::default())));
    let main = &world.resized[0].resources;
    assert_eq!((main.cpu_quota, main.cpu_shares, main.memory_limit_in_bytes), (30_000, 153, 64 << 20));

    let states: Vec<_> = world.shown.iter().map(|(_, s)| condition(s, "PodResizeInProgress").is_some()).collect();
    assert_eq!(states.iter().filter(|is_there| **is_there).count(), states.len() - 1, "{states:?}");
    let (first, last) = (&world.shown[0].1, &world.status);
    let cpu = |s: &v1::PodStatus| {
        let of = |r: &Option<v1::ResourceRequirements>| r.clone().and_then(|r| r.limits).map(|l| l["cpu"].0.clone());
        let main = &s.container_statuses.as_ref().expect("one")[0];
        let allocated = main.allocated_resources.as_ref().map(|a| a["cpu"].0.clone());
        (allocated, of(&main.resources), of(&s.resources), s.allocated_resources.as_ref().map(|a| a["cpu"].0.clone()))
    };
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(cpu(first), (text("150m"), text("200m"), text("200m"), text("150m")));
    assert_eq!(cpu(last), (text("150m"), text("300m"), text("300m"), text("150m")));
    let shown = condition(first, "PodResizeInProgress").expect("there");
    assert_eq!((shown.status.as_str(), shown.observed_generation, &shown.reason), ("True", Some(2), &None));
}

#[test]
fn a_pod_shrinks_after_its_containers_and_those_that_shrink_go_first() {
    let (a, b) = (container("a", ["100m", "200m"], ["8Mi", "16Mi"]), container("b", ["400m", "800m"], ["8Mi", "16Mi"]));
    let mut world = running(&[a.clone(), b.clone()]);
    let less = with(b, ["100m", "300m"], ["8Mi", "16Mi"]);
    resize(&mut world, &[with(a, ["200m", "300m"], ["8Mi", "16Mi"]), less], ResizeVerdict::Granted);
    world.run_until(9);
    assert_eq!(
        world.log,
        [
            "5.0 resize b Cpu 100..300",
            "5.0 resize a Cpu 200..300",
            "5.0 resize pod CpuRequest 300",
            "5.0 resize pod CpuLimit 600"
        ]
    );
}

#[test]
fn memory_that_is_in_use_is_not_taken_away() {
    let big = container("a", ["100m", "200m"], ["8Mi", "64Mi"]);
    let mut world = running(std::slice::from_ref(&big));
    world.usage.insert("a", 40 << 20);
    resize(&mut world, &[with(big, ["100m", "200m"], ["8Mi", "32Mi"])], ResizeVerdict::Granted);
    world.run_until(60);
    let shown = condition(&world.status, "PodResizeInProgress").expect("there");
    assert_eq!(
        (shown.reason.as_deref(), shown.message.as_deref()),
        (Some("Error"), Some("below current usage of \"a\""))
    );
    let errors = world.events.iter().filter(|e| e.contains(" ResizeError ")).count();
    assert_eq!(errors, 1, "{:?}", world.events);
    assert!(world.events[1].contains("\"error\":\"below current usage of \\\"a\\\"\""), "{:?}", world.events);
    assert!(world.log.iter().filter(|l| l.contains("refused")).count() > 3, "{:?}", world.log);
    world.usage.clear();
    world.log.clear();
    world.run_until(80);
    let steps: Vec<_> = world.log.iter().filter_map(|l| l.split_once(' ').map(|(_, words)| words)).collect();
    assert_eq!(steps, ["resize a Memory 8388608..33554432", "resize pod MemoryLimit 33554432"]);
    assert!(condition(&world.status, "PodResizeInProgress").is_none());
    assert!(world.events.iter().any(|e| e.contains("ResizeCompleted")));
}

#[test]
fn a_container_that_wants_it_so_is_started_anew_in_a_pod_that_has_room() {
    let mut world = running(&[small()]);
    world.lives.insert("main", vec![Life::Stubborn]);
    resize(&mut world, &[with(small(), ["100m", "200m"], ["64Mi", "128Mi"])], ResizeVerdict::Granted);
    world.run_until(30);
    assert_eq!(
        world.log,
        ["5.0 stop main 3", "5.0 resize pod MemoryLimit 134217728", "8.0 end main 137", "8.0 start main 1"]
    );
    assert!(world.events.iter().any(|e| e == "5.0 Killing main: Container main resize requires restart"));
    let config = &world.created.last().expect("two").config;
    let memory = config.linux.clone().and_then(|l| l.resources).map(|r| r.memory_limit_in_bytes);
    assert_eq!(memory, Some(128 << 20));

    // The other way, the pod keeps its size until the old one has ended.
    world.log.clear();
    resize(&mut world, &[small()], ResizeVerdict::Granted);
    world.run_until(60);
    assert_eq!(
        world.log,
        [
            "30.0 stop main 3",
            "33.0 end main 137",
            "33.0 remove main",
            "33.0 resize pod MemoryLimit 67108864",
            "33.0 start main 2"
        ]
    );
    assert!(condition(&world.status, "PodResizeInProgress").is_none());
}

#[test]
fn what_does_not_fit_waits_and_what_cannot_be_is_told() {
    let mut world = running(&[small()]);
    let more = || with(small(), ["1500m", "2"], ["32Mi", "64Mi"]);
    let message = "Node didn't have enough resource: cpu, requested: 1500, used: 900, capacity: 2000";
    resize(&mut world, &[more()], deferred(message));
    world.run_until(8);
    world.tell(Fact::Resize(deferred(message)));
    world.run_until(20);
    let shown = condition(&world.status, "PodResizePending").expect("there");
    assert_eq!((shown.reason.as_deref(), shown.message.as_deref()), (Some("Deferred"), Some(message)));
    assert_eq!((shown.observed_generation, world.log.len()), (Some(2), 0), "{:?}", world.log);
    assert_eq!(world.events.len(), 1, "{:?}", world.events);
    assert!(
        world.events[0].starts_with("5.0 ResizeDeferred : Pod resize OutOfcpu: {\"containers\":"),
        "{:?}",
        world.events
    );

    // Meanwhile it lives with what it has.
    let id = world.runtime.containers[0].id.clone();
    world.die(&id, 1);
    world.look();
    world.run_until(40);
    assert_eq!(world.log, ["20.0 end main 1", "20.0 start main 1"]);
    let cpu = world.created.last().and_then(|c| c.config.linux.clone()).and_then(|l| l.resources).map(|r| r.cpu_quota);
    assert_eq!(cpu, Some(20_000));

    world.tell(Fact::Resize(ResizeVerdict::Granted));
    world.run_until(50);
    assert!(condition(&world.status, "PodResizePending").is_none());
    assert_eq!(world.log.last().map(String::as_str), Some("40.0 resize main Cpu 1500..2000"));

    resize(&mut world, &[small()], ResizeVerdict::Infeasible { detail: "swap_limitation", message: "no".to_owned() });
    world.run_until(60);
    assert_eq!(condition(&world.status, "PodResizePending").and_then(|c| c.reason.as_deref()), Some("Infeasible"));
    assert!(world.events.last().is_some_and(|e| e.starts_with("50.0 ResizeInfeasible : Pod resize Infeasible: ")));
    world.want(spec(&[more()]));
    world.run_until(70);
    assert!(condition(&world.status, "PodResizePending").is_none(), "it wants what it has");
}

#[test]
fn the_next_agent_finds_nothing_to_do() {
    let mut world = running(&[small()]);
    let more = || with(small(), ["150m", "300m"], ["32Mi", "64Mi"]);
    resize(&mut world, &[more()], ResizeVerdict::Granted);
    world.run_until(9);
    let mut next = World::of(Source::Api, world.runtime.clone(), spec(&[more()]));
    next.run_until(60);
    assert_eq!(next.log, [""; 0]);
    assert!(condition(&next.status, "PodResizeInProgress").is_none());
}

#[test]
fn a_limit_that_is_taken_away_stays() {
    let mut world = running(&[small()]);
    let mut free = small();
    free["resources"]["limits"] = json!({"memory": "64Mi"});
    resize(&mut world, &[free], ResizeVerdict::Granted);
    world.run_until(9);
    assert_eq!(world.log, [""; 0]);
    assert!(world.events.iter().any(|e| e.contains("ResizeCompleted")));
}
