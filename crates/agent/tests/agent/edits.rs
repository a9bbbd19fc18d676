//! Whatever the order and timing of edits, crashes, failing calls and kills of the agent: never two copies of a pod, and in
//! the end what runs is the directory, on the disk too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rubelet_agent::sources::DesiredPod;
use rubelet_testkit::Temper;
use serde_json::{Value, json};

use crate::world::{Agent, World, container, pod_of};

/// Manifests by pod number: which version of it.
pub(crate) type Directory = BTreeMap<u8, u8>;

#[derive(Clone, Debug)]
enum Edit {
    /// Writes a manifest: which pod, which version of it.
    Write(u8, u8),
    Remove(u8),
}

#[derive(Clone, Debug)]
enum Happening {
    Edit(Edit),
    /// Milliseconds.
    Wait(u64),
    /// SIGKILL of the agent, perhaps an edit, and after so many milliseconds a new one.
    Kill(u64, Option<Edit>),
    /// A container of that pod ends by itself.
    Crash(u8, i32),
    /// Somebody kills the pod's sandbox.
    KillSandbox(u8),
    /// The next calls of a verb fail.
    Fail(&'static str, usize),
}

pub(crate) const PODS: u8 = 4;
/// The pod whose versions all have one UID.
pub(crate) const OWN_UID: u8 = 3;
pub(crate) const VERSIONS: u8 = 7;
pub(crate) const VERBS: [&str; 12] = [
    "RunPodSandbox",
    "StopPodSandbox",
    "PodSandboxStatus",
    "ListPodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "ContainerStatus",
    "ListContainers",
    "ImageStatus",
    "ExecSync",
];

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        5 => (0..PODS, 0..VERSIONS).prop_map(|(pod, version)| Edit::Write(pod, version)),
        3 => (0..PODS).prop_map(Edit::Remove),
    ]
}

/// Milliseconds until something else happens.
pub(crate) fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![0..20u64, 0..300u64, 0..20_000u64]
}

/// What runs in a pod ends by itself.
pub(crate) fn crash(world: &World, pod: u8, code: i32) {
    for container in ["app", "first", "helper", "job"] {
        world.runtime.crash(&format!("default/p{pod}-node-a/{container}"), code);
    }
}

/// An agent on the world as it is. It does not start while the runtime cannot be listed.
pub(crate) async fn lists_and_starts(world: &World) -> Agent {
    world.runtime.fail("ListPodSandbox", 0);
    world.runtime.fail("ListContainers", 0);
    world.agent().await
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => edit().prop_map(Happening::Edit),
        5 => wait().prop_map(Happening::Wait),
        2 => (0..300u64, prop::option::of(edit())).prop_map(|(millis, edit)| Happening::Kill(millis, edit)),
        1 => (0..PODS, 0..2i32).prop_map(|(pod, code)| Happening::Crash(pod, code)),
        1 => (0..PODS).prop_map(Happening::KillSandbox),
        1 => (0..VERBS.len(), 1..4usize).prop_map(|(verb, times)| Happening::Fail(VERBS[verb], times)),
    ]
}

pub(crate) fn name(number: u8) -> String {
    format!("p{number}")
}

fn manifest(number: u8, version: u8) -> DesiredPod {
    let mut spec = spec(version);
    if number == OWN_UID {
        spec["uid"] = json!("own");
    }
    pod_of(&name(number), spec)
}

pub(crate) fn spec(version: u8) -> Value {
    match version {
        0 => json!({"containers": [container("app", &["v0"])]}),
        // Takes its whole grace to stop.
        1 => json!({"containers": [container("app", &["stubborn"])]}),
        2 => json!({"containers": [container("app", &["v2"]), container("side", &["v2"])]}),
        3 => {
            let init = [container("first", &["exits", "40", "0"]), container("second", &["exits", "0", "0"])];
            json!({"initContainers": init, "containers": [container("app", &["v3"])]})
        }
        4 => {
            let job = [container("job", &["exits", "700", "0"])];
            json!({"restartPolicy": "OnFailure", "containers": job})
        }
        5 => {
            let job = [container("job", &["exits", "50", "1"])];
            json!({"restartPolicy": "Never", "containers": job})
        }
        _ => {
            let mut helper = container("helper", &["v6"]);
            helper["restartPolicy"] = json!("Always");
            let mut app = container("app", &["v6"]);
            app["lifecycle"] =
                json!({"preStop": {"exec": {"command": ["true"]}}, "postStart": {"exec": {"command": ["true"]}}});
            json!({"initContainers": [helper], "containers": [app]})
        }
    }
}

/// Containers that run in the end, with their command.
fn runs(version: u8) -> &'static [(&'static str, &'static str)] {
    match version {
        0 => &[("app", "v0")],
        1 => &[("app", "stubborn")],
        2 => &[("app", "v2"), ("side", "v2")],
        3 => &[("app", "v3")],
        4 | 5 => &[],
        _ => &[("app", "v6"), ("helper", "v6")],
    }
}

fn set(directory: &Directory) -> Vec<DesiredPod> {
    directory.iter().map(|(pod, version)| manifest(*pod, *version)).collect()
}

fn apply(edit: &Edit, directory: &mut Directory) {
    match edit {
        Edit::Write(pod, version) => {
            directory.insert(*pod, *version);
        }
        Edit::Remove(pod) => {
            directory.remove(pod);
        }
    }
}

async fn play(happenings: Vec<Happening>, temper: Temper) {
    let world = World::with(temper);
    let mut directory = Directory::new();
    let mut agent = born(&world, &directory).await;
    for happening in happenings {
        match happening {
            Happening::Edit(edit) => {
                apply(&edit, &mut directory);
                agent.wants(set(&directory)).await;
            }
            Happening::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Happening::Kill(millis, edit) => {
                drop(agent);
                edit.iter().for_each(|edit| apply(edit, &mut directory));
                tokio::time::sleep(Duration::from_millis(millis)).await;
                agent = born(&world, &directory).await;
            }
            Happening::Crash(pod, code) => crash(&world, pod, code),
            Happening::KillSandbox(pod) => world.runtime.kill_sandbox(&format!("default/p{pod}-node-a")),
            Happening::Fail(verb, times) => world.runtime.fail(verb, times),
        }
    }
    world.settle().await;
    let uids = set(&directory).iter().map(|d| d.pod.metadata.uid.clone().unwrap_or_default()).collect();
    check(&world, &directory, &uids);
}

/// An agent on the world as it is, that is told the directory. It does not start while the runtime cannot be listed.
async fn born(world: &World, directory: &Directory) -> Agent {
    let agent = lists_and_starts(world).await;
    agent.wants(set(directory)).await;
    agent
}

/// What runs is the directory, whose pods have these UIDs.
pub(crate) fn check(world: &World, directory: &Directory, uids: &BTreeSet<String>) {
    assert_eq!(world.runtime.violations(), Vec::<String>::new(), "{:#?}", world.runtime.calls());
    let containers = |(pod, version): (&u8, &u8)| {
        let path = format!("default/p{pod}-node-a");
        runs(*version).iter().map(move |(name, command)| (format!("{path}/{name}"), vec![(*command).to_owned()]))
    };
    let mut wanted: Vec<(String, Vec<String>)> = directory.iter().flat_map(containers).collect();
    wanted.sort();
    assert_eq!(world.runtime.running(), wanted, "{:#?}", world.runtime.calls());
    let living = directory.values().filter(|version| !runs(**version).is_empty()).count();
    assert_eq!(world.runtime.ready_sandboxes(), living, "{:#?}", world.runtime.calls());
    assert_eq!(&world.runtime.uids(), uids, "sandboxes of pods that nobody wants\n{:#?}", world.runtime.calls());
    assert_eq!(&world.pod_dirs(), uids, "directories of pods that nobody wants");
    assert_eq!(&world.pod_logs(), uids, "logs of pods that nobody wants");
}

/// Cases of one of the tests. `RUBELET_EDIT_SEQUENCES` asks for more, and is enough to find rare ones.
pub(crate) fn cases() -> u32 {
    std::env::var("RUBELET_EDIT_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

fn play_one(happenings: Vec<Happening>, temper: Temper) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(happenings, temper));
}

fn play_all(has_events: bool) {
    let config = ProptestConfig { cases: cases(), max_shrink_iters: 400, ..ProptestConfig::default() };
    let stories = (prop::collection::vec(happening(), 1..30), any::<u64>());
    proptest::test_runner::TestRunner::new(config)
        .run(&stories, |(happenings, seed)| {
            play_one(happenings, Temper { seed, has_events, ..Temper::default() });
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_runs_in_the_end_is_the_directory() {
    play_all(true);
}

#[test]
fn also_on_a_runtime_that_tells_no_events() {
    play_all(false);
}

/// A story that once went wrong: a relist showed a container before its creation had ended, and it was created again.
#[test]
fn a_container_that_is_seen_while_it_is_created_is_one() {
    let happenings = vec![
        Happening::Edit(Edit::Write(0, 2)),
        Happening::Wait(67),
        Happening::Kill(20, Some(Edit::Write(1, 0))),
        Happening::Kill(20, None),
        Happening::Wait(56),
        Happening::Edit(Edit::Write(0, 4)),
        Happening::Wait(19_822),
        Happening::Edit(Edit::Write(1, 6)),
        Happening::Fail("ImageStatus", 2),
    ];
    play_one(happenings, Temper { seed: 9_753_224_720_946_978_065, ..Temper::default() });
}
