//! Who is let in, who is left alone, who is stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::roster::RosterNote;
use rubelet_agent::sources::{DesiredPod, DesiredSet, Problem};
use rubelet_core::pod::Source;
use serde_json::{Value, json};

use crate::told::Told;
use crate::world::{Agent, World, container, pod, pod_of};

#[tokio::test(start_paused = true)]
async fn nobody_is_stopped_before_every_source_has_spoken() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![pod("a", &[("app", &["serve"])]), pod("b", &[("app", &["serve"])])]).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    let uid = |name: &str| pod(name, &[("app", &["serve"])]).pod.metadata.uid.clone().unwrap_or_default();
    let dead = world.path().join("root/pods/0123-dead");
    std::fs::create_dir_all(dead.join("volumes")).expect("made");
    drop(agent);

    let agent = world.agent_of(vec![Source::File, Source::Http]).await;
    agent.wants(vec![pod("a", &[("app", &["serve"])])]).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.runtime.running().len(), 2, "the URL has not said yet whether it wants b");
    assert!(dead.exists(), "it could be the URL's");

    agent.wants_of(Source::Http, Vec::new()).await;
    world.until("b is gone", || world.pod_dirs() == BTreeSet::from([uid("a")])).await;
    world.settle().await;
    assert_eq!(world.runtime.uids(), BTreeSet::from([uid("a")]));
    let stops: Vec<String> = world.runtime.calls().into_iter().filter(|c| c.starts_with("StopContainer")).collect();
    assert_eq!(stops, ["StopContainer default/b-node-a/app 5"], "the grace of its manifest, which is gone");
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

fn on_port(name: &str, words: &[&str]) -> DesiredPod {
    let mut app: Value = container("app", words);
    app["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    pod_of(name, json!({"containers": [app]}))
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_that_want_one_port_the_first_runs() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![on_port("z", &["serve"])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    agent.wants(vec![on_port("a", &["serve"]), on_port("z", &["serve"])]).await;
    world.settle().await;
    let of_z = vec![("default/z-node-a/app".to_owned(), vec!["serve".to_owned()])];
    assert_eq!(world.runtime.running(), of_z);
    drop(agent);

    // Whoever runs goes first, whatever its place in the directory.
    let agent = world.agent().await;
    agent.wants(vec![on_port("a", &["serve"]), on_port("z", &["serve"])]).await;
    world.settle().await;
    assert_eq!(world.runtime.running(), of_z);
}

#[tokio::test(start_paused = true)]
async fn a_new_version_is_not_turned_away_for_what_the_old_one_holds() {
    let world = World::new();
    let agent = world.agent().await;
    agent.wants(vec![on_port("web", &["stubborn"])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    agent.wants(vec![on_port("web", &["new"])]).await;
    let new = vec![("default/web-node-a/app".to_owned(), vec!["new".to_owned()])];
    world.until("the new version runs", || world.runtime.running() == new).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_was_wanted_again_and_then_not_stays_away() {
    let world = World::new();
    let web = || vec![pod("web", &[("app", &["stubborn"])])];
    let agent = world.agent().await;
    agent.wants(web()).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    agent.wants(Vec::new()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.wants(web()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.wants(Vec::new()).await;
    world.settle().await;
    assert_eq!(world.runtime.running(), []);
    assert_eq!(world.runtime.calls().iter().filter(|c| c.starts_with("RunPodSandbox")).count(), 1);
    agent.wants(web()).await;
    world.until("it runs again", || world.runtime.running().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_file_was_away_starts_over_and_its_restarts_count_on() {
    let world = World::new();
    let web = |removals| vec![DesiredPod { removals, ..pod("web", &[("app", &["serve"])]) }];
    let agent = world.agent().await;
    let restarts = || agent.shown("web-node-a").and_then(|s| Some(s.container_statuses?.first()?.restart_count));
    agent.wants(web(0)).await;
    world.until("it runs", || world.runtime.running().len() == 1 && restarts() == Some(0)).await;
    agent.wants(web(1)).await;
    world.until("it runs again", || world.runtime.running().len() == 1 && restarts() == Some(1)).await;
    agent.wants(web(1)).await;
    world.settle().await;
    assert_eq!(world.runtime.calls().iter().filter(|c| c.starts_with("RunPodSandbox")).count(), 2);
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_stops_all_and_its_next_life_goes_on_with_them() {
    let world = World::new();
    let wanted = || vec![pod("a", &[("app", &["stubborn"])]), pod("b", &[("app", &["serve"])])];
    let agent = world.agent().await;
    agent.wants(wanted()).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    agent.ground.agent.shut_down().await;
    assert_eq!(world.runtime.running(), []);
    let told = agent.shown("a-node-a").and_then(|status| status.reason);
    assert_eq!(told.as_deref(), Some("Terminated"));
    agent.wants(wanted().into_iter().chain([pod("c", &[("app", &["serve"])])]).collect()).await;
    world.settle().await;
    assert_eq!(world.runtime.running(), [], "nothing is started any more");
    drop(agent);

    let dirs = world.pod_dirs();
    let agent = world.agent().await;
    agent.wants(wanted()).await;
    world.until("both run again", || world.runtime.running().len() == 2).await;
    assert_eq!(world.pod_dirs(), dirs, "under the identity they had");
    let count = || agent.shown("b-node-a").and_then(|status| Some(status.container_statuses?[0].restart_count));
    world.until("the end of the last life counts", || count() == Some(1)).await;
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

/// kubelet 1.36: the words, as an event of the pod that is ignored.
#[tokio::test(start_paused = true)]
async fn of_two_pods_of_one_name_the_second_is_told_of() {
    let (told, _listening) = Told::listen();
    let world = World::new();
    let agent = world.agent().await;
    let (first, second) = (pod("web", &[("app", &["serve"])]), pod("web", &[("app", &["other"])]));
    let uid = second.pod.metadata.uid.clone().unwrap();
    let problem = Problem { file: second.origin, message: "it is ignored".to_owned(), double: Some(second.pod) };
    let set = DesiredSet { source: Source::File, complete: true, pods: vec![first], problems: vec![problem] };
    agent.ground.roster.send(RosterNote::Desired(set)).await.unwrap();
    world.until("the first runs", || world.runtime.running().len() == 1).await;
    let text = format!(
        "default/web-node-a FailedValidation: Error validating pod web-node-a_default({uid}) from file due to duplicate \
         pod name \"web-node-a\", ignoring"
    );
    assert!(told.lines().contains(&text), "{:#?}", told.lines());
}

fn of_the_api(name: &str, words: &[&str], uid: &str) -> DesiredPod {
    let mut desired = pod(name, &[("app", words)]);
    let meta = &mut Arc::make_mut(&mut desired.pod).metadata;
    meta.uid = Some(uid.to_owned());
    meta.annotations = Some([("kubernetes.io/config.source".to_owned(), "api".to_owned())].into());
    desired
}

/// kubelet 1.36: only static pods wait for others of their name, and only for static ones.
#[tokio::test(start_paused = true)]
async fn a_pod_of_the_api_server_waits_for_no_other_of_its_name() {
    let world = World::new();
    let sources = || vec![Source::File, Source::Api];
    let agent = world.agent_of(sources()).await;
    let fixed = || vec![pod("web", &[("app", &["stubborn"])])];
    let running = || world.runtime.running().into_iter().map(|(_, words)| words[0].clone()).collect::<BTreeSet<_>>();
    let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<BTreeSet<_>>();
    let found = |agent: &Agent| agent.ground.agent.picture.find("default", "web-node-a").map(|s| s.uid.to_string());
    agent.wants(fixed()).await;
    world.until("the static one runs", || running() == set(&["stubborn"])).await;
    for uid in ["0", "zzz"] {
        agent.wants_of(Source::Api, vec![of_the_api("web", &["serve"], uid)]).await;
        world.until("both run", || running() == set(&["stubborn", "serve"])).await;
        let is_whole = || found(&agent).as_deref() == Some(uid) && agent.ground.agent.picture.listed().len() == 2;
        world.until("a name is the API server's pod", is_whole).await;
    }
    drop(agent);

    // A static pod does not wait until it is known whether the API server still wants its own.
    let agent = world.agent_of(sources()).await;
    agent.wants(vec![pod("web", &[("app", &["new"])])]).await;
    world.until("the successor runs", || running() == set(&["new", "serve"])).await;
    agent.wants_of(Source::Api, Vec::new()).await;
    world.until("the API server's is gone", || running() == set(&["new"])).await;
    world.until("a name is who is left", || found(&agent).is_some_and(|uid| uid != "zzz")).await;
}

/// kubelet 1.36: who was deleted by force, and takes its time, holds up no other.
#[tokio::test(start_paused = true)]
async fn who_was_deleted_by_force_holds_up_no_successor() {
    let world = World::new();
    let agent = world.agent_of(vec![Source::Api]).await;
    agent.wants_of(Source::Api, vec![of_the_api("db", &["stubborn"], "old")]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    agent.wants_of(Source::Api, vec![of_the_api("db", &["serve"], "a-new")]).await;
    world.until("both run for a while", || world.runtime.running().len() == 2).await;
    let found = agent.ground.agent.picture.find("default", "db-node-a").map(|s| s.uid.to_string());
    assert_eq!(found.as_deref(), Some("a-new"), "the one that is wanted");
    world.until("the old one is gone", || world.runtime.uids() == BTreeSet::from(["a-new".to_owned()])).await;
}
