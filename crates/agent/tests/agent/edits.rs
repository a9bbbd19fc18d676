//! Whatever the order and timing of edits and kills: never two copies, and in the end what runs is the directory.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rubelet_agent::sources::DesiredPod;

use crate::world::{World, pod};

#[derive(Clone, Debug)]
enum Edit {
    /// Writes a manifest: which pod, which version of it.
    Write(u8, u8),
    Remove(u8),
    Wait(u64),
    /// SIGKILL of the agent, and a new one.
    Kill,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        5 => (0..3u8, 0..3u8).prop_map(|(pod, version)| Edit::Write(pod, version)),
        3 => (0..3u8).prop_map(Edit::Remove),
        4 => (0..4000u64).prop_map(Edit::Wait),
        2 => Just(Edit::Kill),
    ]
}

/// Version 0 ends on its signal, 1 takes its whole grace, 2 has two containers.
fn version(number: u8, version: u8) -> DesiredPod {
    let name = format!("p{number}");
    match version {
        0 => pod(&name, &vec![("app", vec!["v0".into()])]),
        1 => pod(&name, &vec![("app", vec!["stubborn".into()])]),
        _ => pod(&name, &vec![("app", vec!["v2".into()]), ("side", vec!["v2".into()])]),
    }
}

fn commands(version: u8) -> Vec<(&'static str, &'static str)> {
    match version {
        0 => vec![("app", "v0")],
        1 => vec![("app", "stubborn")],
        _ => vec![("app", "v2"), ("side", "v2")],
    }
}

async fn play(edits: Vec<Edit>) {
    let world = World::new();
    let mut directory: BTreeMap<u8, u8> = BTreeMap::new();
    let set = |directory: &BTreeMap<u8, u8>| directory.iter().map(|(p, v)| version(*p, *v)).collect::<Vec<_>>();
    let mut agent = world.agent().await;
    agent.wants(set(&directory)).await;
    for edit in edits {
        match edit {
            Edit::Write(pod, version) => {
                directory.insert(pod, version);
                agent.wants(set(&directory)).await;
            }
            Edit::Remove(pod) => {
                directory.remove(&pod);
                agent.wants(set(&directory)).await;
            }
            Edit::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Edit::Kill => {
                drop(agent);
                tokio::time::sleep(Duration::from_millis(100)).await;
                agent = world.agent().await;
                agent.wants(set(&directory)).await;
            }
        }
    }
    let mut wanted: Vec<(String, Vec<String>)> = directory
        .iter()
        .flat_map(|(p, v)| commands(*v).into_iter().map(move |(name, command)| {
            (format!("default/p{p}-node-a/{name}"), vec![command.to_owned()])
        }))
        .collect();
    wanted.sort();
    world.until(&format!("{wanted:?}"), || world.runtime.running() == wanted).await;
    world.until("one sandbox a pod", || world.runtime.ready_sandboxes() == directory.len()).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_runs_in_the_end_is_the_directory(edits in prop::collection::vec(edit(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(play(edits));
    }
}

/// Thousands in CI; fewer where somebody waits.
fn cases() -> u32 {
    std::env::var("RUBELET_EDIT_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}
