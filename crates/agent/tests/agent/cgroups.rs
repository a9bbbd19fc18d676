//! Pods and their real cgroups.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rubelet_agent::reserve::{Reservation, Whose};
use rubelet_core::node::NodeLimits;
use rubelet_core::pod::Source;
use rubelet_host::cgroup::{Tree, Values, Version};

use crate::told::Told;
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

fn read(tree: &Tree, controller: &'static str, path: &str, v1: &str, v2: &str) -> String {
    let file = if tree.version() == Version::V1 { v1 } else { v2 };
    let path = tree.dir(controller, path).expect("there is such a controller").join(file);
    std::fs::read_to_string(&path).expect("readable").trim().to_owned()
}

/// CPU, memory and processes of a cgroup.
fn held(tree: &Tree, path: &str) -> [String; 3] {
    [
        read(tree, "cpu", path, "cpu.shares", "cpu.weight"),
        read(tree, "memory", path, "memory.limit_in_bytes", "memory.max"),
        read(tree, "pids", path, "pids.max", "pids.max"),
    ]
}

fn limits(cpu_milli: i64, memory_bytes: i64, pids: i64) -> NodeLimits {
    NodeLimits {
        cpu_milli: Some(cpu_milli),
        memory_bytes: Some(memory_bytes),
        pids: Some(pids),
        huge_pages: vec![(2 << 20, 0)],
    }
}

#[tokio::test(start_paused = true)]
async fn all_pods_and_those_for_whom_something_is_kept_are_held() {
    let Some(mut world) = World::with_cgroups("held") else { return };
    let (told, _listening) = Told::listen();
    let tree = world.cgroups.clone().expect("it has one");
    for name in ["system", "kube"] {
        tree.ensure(name, &Values::default()).expect("made");
    }
    world.pods_limits = limits(1500, 1 << 30, 1000);
    let kept = |whose, name: &str, limits, is_compressible| Reservation {
        whose,
        cgroup: format!("/{}/{name}", world.root),
        is_compressible,
        limits: Some(limits),
    };
    let only_cpu = NodeLimits { cpu_milli: Some(250), ..NodeLimits::default() };
    world.reservations = vec![
        kept(Whose::System, "system", limits(500, 1 << 28, 300), false),
        kept(Whose::Kube, "kube", only_cpu, true),
    ];
    let agent = world.agent().await;
    let is_v1 = tree.version() == Version::V1;
    let (most, shares) =
        if is_v1 { ("9223372036854771712", ["1536", "512", "256"]) } else { ("max", ["59", "20", "10"]) };
    assert_eq!(held(&tree, "kubepods"), [shares[0], "1073741824", "1000"]);
    assert_eq!(held(&tree, "system"), [shares[1], "268435456", "300"]);
    assert_eq!(held(&tree, "kube"), [shares[2], most, "max"]);
    let root = &world.root;
    let of_limits: Vec<String> =
        told.lines().into_iter().filter(|line| line.contains("NodeAllocatableEnforced")).collect();
    assert_eq!(
        of_limits,
        [
            "node-a NodeAllocatableEnforced: Updated Node Allocatable limit across pods".to_owned(),
            format!("node-a NodeAllocatableEnforced: Updated limits on system reserved cgroup /{root}/system"),
            format!("node-a NodeAllocatableEnforced: Updated limits on kube reserved cgroup /{root}/kube"),
        ]
    );
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_cgroup_that_is_not_there_cannot_be_held() {
    let Some(mut world) = World::with_cgroups("lack") else { return };
    let tree = world.cgroups.clone().expect("it has one");
    let cgroup = format!("/{}/nobody", world.root);
    let one = |limits| Reservation { whose: Whose::System, cgroup: cgroup.clone(), is_compressible: false, limits };
    world.reservations = vec![one(Some(limits(500, 1 << 28, 300)))];
    let error = world.try_agent(vec![Source::File]).await.err().expect("refused").to_string();
    let name = format!("[\"{}\" \"nobody\"]", world.root);
    if tree.version() == Version::V1 {
        let words = format!(
            "Failed to enforce System Reserved Cgroup Limits on \"{cgroup}\": cgroup {name} has some missing paths: "
        );
        let paths = error.strip_prefix(&words).unwrap_or_else(|| panic!("{error}"));
        let memory = tree.dir("memory", "nobody").expect("there is such a controller").display().to_string();
        assert!(paths.split(", ").any(|path| path == memory), "{paths}");
    } else {
        assert!(error.contains(&format!("could not read controllers for cgroup {name}: open ")), "{error}");
    }
    world.reservations = vec![one(None)];
    let error = world.try_agent(vec![Source::File]).await.err().expect("refused").to_string();
    let words = format!(
        "Failed to enforce System Reserved Cgroup Limits on \"{cgroup}\": {name} cgroup is not configured properly"
    );
    assert_eq!(error, words);
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_what_pods_use_is_tried_again() {
    let Some(mut world) = World::with_cgroups("again") else { return };
    let tree = world.cgroups.clone().expect("it has one");
    if tree.version() == Version::V2 {
        eprintln!("not run: version 2 kills instead of refusing");
        return;
    }
    let (told, _listening) = Told::listen();
    tree.ensure("kubepods", &Values::default()).expect("made");
    let procs = tree.dir("memory", "kubepods").expect("there is such a controller").join("cgroup.procs");
    let eater =
        format!("echo $$ > {}; x=$(head -c 10000000 /dev/zero | tr '\\0' a); echo ready; read y", procs.display());
    let mut eater =
        Command::new("sh").args(["-c", &eater]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(eater.stdout.take().expect("piped")).read_line(&mut line).expect("it says when it is ready");
    world.pods_limits = limits(1500, 1 << 20, 1000);
    let agent = world.agent().await;
    let failed = |told: &Told| told.lines().iter().filter(|l| l.contains("FailedNodeAllocatableEnforcement")).count();
    assert_eq!(failed(&told), 1, "{:?}", told.lines());
    assert!(told.has("Failed to update Node Allocatable Limits [\"kubepods\"]: write"), "{:?}", told.lines());
    world.until("it is tried again", || failed(&told) == 3).await;
    drop(eater.stdin.take());
    eater.wait().expect("it ends");
    world.until("it works", || told.has("Updated Node Allocatable limit across pods")).await;
    assert_eq!(held(&tree, "kubepods")[1], "1048576");
    drop(agent);
}
