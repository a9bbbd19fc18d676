//! Pods of a real API server: the server of the kubeconfig that `RUBELET_TEST_KUBECONFIG` names, as a user who may do everything.
//! Containers are played.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::sources::DesiredPod;
use rubelet_api::pod::{CONFIG_MIRROR, Gates, Origin, static_pod};
use rubelet_api::v1;
use rubelet_apiserver::{Client, DeleteOptions, Patch, Path, Settings};
use rubelet_core::now::Wall;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{Agent, World};

mod events;
mod gate;
mod labels;

use gate::Gate;

const NAMESPACE: &str = "default";

fn settings() -> Option<Settings> {
    let Some(path) = std::env::var_os("RUBELET_TEST_KUBECONFIG") else {
        eprintln!("not run: RUBELET_TEST_KUBECONFIG is not set");
        return None;
    };
    Some(Settings::from_kubeconfig(FilePath::new(&path)).expect("a kubeconfig"))
}

/// A world and its node at the API server.
struct Stage {
    client: Client,
    world: World,
    node: &'static str,
}

fn path(name: &str) -> Path {
    Path::to::<v1::Pod>(NAMESPACE, name)
}

impl Stage {
    async fn set(node: &'static str) -> Option<Self> {
        let client = Client::connect(settings()?).expect("a client");
        let object = serde_json::from_value(json!({"metadata": {"name": node}})).expect("a node");
        match client.create::<v1::Node>(&Path::all::<v1::Node>(), &object).await {
            Err(error) if error.is_already_exists() => {}
            made => drop(made.expect("a node")),
        }
        Some(Self { client, world: World::new(), node })
    }

    async fn agent(&self) -> Agent {
        let agent = self.world.joined(self.node, &self.client).await;
        agent.wants(Vec::new()).await;
        agent
    }

    /// A pod that is bound to the node; the one of a run before it is gone.
    async fn make(&self, name: &str, meta: Value, command: &[&str]) -> v1::Pod {
        self.end(name).await;
        let mut pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": self.node, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "app", "image": "app", "imagePullPolicy": "IfNotPresent", "command": command}],
        }});
        for (field, value) in meta.as_object().into_iter().flatten() {
            match field.as_str() {
                "spec" => pod["spec"].as_object_mut().expect("a map").extend(value.as_object().expect("a map").clone()),
                _ => pod["metadata"][field] = value.clone(),
            }
        }
        let pod = serde_json::from_value(pod).expect("a pod");
        self.client.create(&Path::within::<v1::Pod>(NAMESPACE), &pod).await.expect("a pod")
    }

    async fn end(&self, name: &str) {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        match self.client.delete(&path(name), &options).await {
            Err(error) if !error.is_not_found() => panic!("{error}"),
            _ => {}
        }
    }

    async fn delete(&self, name: &str) {
        self.client.delete(&path(name), &DeleteOptions::default()).await.expect("it is there");
    }

    async fn get(&self, name: &str) -> Option<v1::Pod> {
        match self.client.get(&path(name)).await {
            Err(error) if error.is_not_found() => None,
            got => Some(got.expect("a pod")),
        }
    }

    /// Waits until what the API server has is as wanted.
    async fn until(&self, what: &str, name: &str, is_it: impl Fn(Option<&v1::Pod>) -> bool) -> Option<v1::Pod> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let pod = self.get(name).await;
            if is_it(pod.as_ref()) {
                return pod;
            }
            assert!(Instant::now() < deadline, "{what}: {:#?}\n{pod:#?}", self.world.runtime.calls());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn running(&self, name: &str) -> v1::Pod {
        self.until("it runs", name, |p| p.is_some_and(is_ready)).await.expect("it is there")
    }

    async fn patch(&self, path: &Path, patch: Value) {
        self.client.patch::<v1::Pod>(path, &Patch::StrategicMerge(patch)).await.expect("a patch");
    }

    /// A static pod of the test's source.
    fn fixed(&self, name: &str, word: &str) -> DesiredPod {
        let container = json!({"name": "app", "image": "app", "imagePullPolicy": "IfNotPresent", "command": [word]});
        let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
        let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let source = rubelet_api::pod::Source::File;
        let origin = Origin { source, path_or_url: format!("/{name}.yaml"), node_name: self.node.into() };
        let now = Wall::from_second(1_700_000_000).expect("in range");
        let decoded = static_pod(manifest.to_string().as_bytes(), &origin, now, Gates::default()).expect("a good pod");
        DesiredPod {
            pod: Arc::new(decoded.pod),
            digest: decoded.digest.to_string(),
            origin: origin.path_or_url,
            removals: 0,
        }
    }

    fn close(self) {
        assert!(self.world.runtime.violations().is_empty(), "{:?}", self.world.runtime.violations());
    }
}

fn condition<'a>(pod: &'a v1::Pod, type_: &str) -> Option<&'a v1::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

fn is_ready(pod: &v1::Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

fn phase(pod: &v1::Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn version(pod: &v1::Pod) -> Option<&str> {
    pod.metadata.resource_version.as_deref()
}

#[tokio::test]
async fn a_pod_runs_is_told_of_and_ends() {
    let Some(stage) = Stage::set("life").await else { return };
    stage.make("life", json!({}), &["serve"]).await;
    let agent = stage.agent().await;
    let pod = stage.running("life").await;
    assert_eq!(phase(&pod), "Running");
    let status = pod.status.as_ref().expect("it has one");
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.9"));
    assert!(status.pod_ip.is_some() && status.observed_generation == pod.metadata.generation);
    stage.delete("life").await;
    stage.until("it is gone", "life", |p| p.is_none()).await;
    assert!(stage.world.runtime.running().is_empty());
    drop(agent);
    stage.close();
}

#[tokio::test]
async fn a_pod_that_runs_is_taken_over_without_a_word() {
    let Some(stage) = Stage::set("adopt").await else { return };
    stage.make("adopt", json!({}), &["serve"]).await;
    let agent = stage.agent().await;
    let before = stage.running("adopt").await;
    drop(agent);
    let calls = stage.world.runtime.calls().len();
    let agent = stage.agent().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.shown("adopt").is_none() {
        assert!(Instant::now() < deadline, "it is not taken over");
        sleep(Duration::from_millis(10)).await;
    }
    // What is said after this change would have been said before it, too.
    stage
        .patch(&path("adopt").part("status"), json!({"status": {"conditions": [{"type": "x/y", "status": "True"}]}}))
        .await;
    let patched = stage.get("adopt").await.expect("it is there");
    let shows = |s: &v1::PodStatus| s.conditions.iter().flatten().any(|c| c.type_ == "x/y");
    while !agent.shown("adopt").is_some_and(|s| shows(&s)) {
        assert!(Instant::now() < deadline, "the change is not seen");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stage.world.runtime.calls().len(), calls, "{:?}", stage.world.runtime.calls());
    let after = stage.get("adopt").await.expect("it is there");
    assert_eq!(version(&after), version(&patched), "{before:#?}\n{after:#?}");
    stage.delete("adopt").await;
    stage.until("it is gone", "adopt", |p| p.is_none()).await;
    stage.close();
}

#[tokio::test]
async fn readiness_gates_follow_others_conditions() {
    let Some(stage) = Stage::set("gates").await else { return };
    stage.make("gates", json!({"spec": {"readinessGates": [{"conditionType": "x/y"}]}}), &["serve"]).await;
    let _agent = stage.agent().await;
    let waits = |p: &v1::Pod| condition(p, "Ready").and_then(|c| c.reason.as_deref()) == Some("ReadinessGatesNotReady");
    stage.until("it waits", "gates", |p| p.is_some_and(waits)).await;
    let given = json!({"status": {"conditions": [{"type": "x/y", "status": "True"}]}});
    stage.patch(&path("gates").part("status"), given).await;
    let pod = stage.running("gates").await;
    assert_eq!(condition(&pod, "x/y").map(|c| c.status.as_str()), Some("True"));
    stage.delete("gates").await;
    stage.until("it is gone", "gates", |p| p.is_none()).await;
    stage.close();
}

#[tokio::test]
async fn a_pod_that_others_hold_ends_once() {
    let Some(stage) = Stage::set("held").await else { return };
    let release = json!({"metadata": {"finalizers": null}});
    if stage.get("held").await.is_some() {
        stage.patch(&path("held"), release.clone()).await;
    }
    stage.make("held", json!({"finalizers": ["example.test/held"]}), &["exits", "200", "0"]).await;
    let agent = stage.agent().await;
    stage.until("it runs again", "held", |p| p.is_some_and(|p| phase(p) == "Running")).await;
    stage.delete("held").await;
    // It may be told to go just when its next container was made.
    let has_ended = |p: &v1::Pod| ["Succeeded", "Failed"].contains(&phase(p));
    let is_over = |p: &v1::Pod| has_ended(p) && p.metadata.deletion_grace_period_seconds == Some(0);
    stage.until("its end is told", "held", |p| p.is_some_and(is_over)).await;
    let made = stage.world.runtime.calls().len();
    // Another word about the object starts nothing.
    stage.patch(&path("held"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    stage.make("after", json!({}), &["serve"]).await;
    stage.running("after").await;
    let calls = stage.world.runtime.calls();
    assert!(calls[made..].iter().all(|c| !c.contains("/held/") || c.starts_with("Remove")), "{calls:#?}");
    stage.patch(&path("held"), release).await;
    stage.until("it is gone", "held", |p| p.is_none()).await;
    stage.end("after").await;
    drop(agent);
    stage.close();
}

#[tokio::test]
async fn static_pods_have_mirrors() {
    let Some(stage) = Stage::set("mirrors").await else { return };
    let agent = stage.agent().await;
    agent.wants(vec![stage.fixed("fix", "one")]).await;
    let name = "fix-mirrors";
    let first = stage.running(name).await;
    let shows = |p: &v1::Pod| p.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_MIRROR).cloned());
    let owner = &first.metadata.owner_references.as_deref().expect("a node")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "mirrors"));
    // Deleting the mirror ends nothing.
    stage.delete(name).await;
    let is_new = |p: &v1::Pod| is_ready(p) && p.metadata.uid != first.metadata.uid;
    stage.until("another mirror", name, |p| p.is_some_and(is_new)).await;
    let starts = |word: &str| stage.world.runtime.calls().iter().filter(|c| c.starts_with(word)).count();
    assert_eq!(starts("StartContainer"), 1);
    // Another pod of the name gets another mirror.
    agent.wants(vec![stage.fixed("fix", "two")]).await;
    let is_other = |p: &v1::Pod| is_ready(p) && shows(p) != shows(&first);
    let other = stage.until("the other's mirror", name, |p| p.is_some_and(is_other)).await.expect("it is there");
    // A new agent says nothing new.
    drop(agent);
    let agent = stage.world.joined(stage.node, &stage.client).await;
    stage.make("witness", json!({}), &["serve"]).await;
    stage.running("witness").await;
    assert!(stage.get(name).await.is_some_and(|p| p.metadata.uid == other.metadata.uid), "no source has spoken");
    agent.wants(vec![stage.fixed("fix", "two")]).await;
    stage.delete("witness").await;
    stage.until("the witness is gone", "witness", |p| p.is_none()).await;
    let same = stage.get(name).await.expect("it is there");
    assert_eq!(version(&same), version(&other), "{other:#?}\n{same:#?}");
    agent.wants(Vec::new()).await;
    stage.until("the mirror is gone", name, |p| p.is_none()).await;
    drop(agent);
    stage.close();
}

#[tokio::test]
async fn an_outage_holds_up_no_pod_and_loses_no_word() {
    let Some(stage) = Stage::set("outage").await else { return };
    let gate = Gate::open(&settings().expect("as before").server).await;
    let through = Settings { server: gate.server(), ..settings().expect("as before") };
    let through = Client::connect(through).expect("a client");
    let once = json!({"spec": {"restartPolicy": "Never"}});
    stage.make("outlives", json!({}), &["serve"]).await;
    stage.make("finishes", once, &["exits", "1500", "0"]).await;
    let agent = stage.world.joined(stage.node, &through).await;
    agent.wants(Vec::new()).await;
    stage.running("outlives").await;
    stage.until("it runs", "finishes", |p| p.is_some_and(|p| phase(p) == "Running")).await;
    gate.close();
    agent.wants(vec![stage.fixed("fix", "one")]).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let ran =
        |agent: &Agent, name: &str, phase: &str| agent.shown(name).is_some_and(|s| s.phase.as_deref() == Some(phase));
    while !(ran(&agent, "fix-outage", "Running") && ran(&agent, "finishes", "Succeeded")) {
        assert!(Instant::now() < deadline, "the outage holds up pods");
        sleep(Duration::from_millis(20)).await;
    }
    // A new life that hears nothing of the API server leaves its pods alone.
    drop(agent);
    let calls = stage.world.runtime.calls().len();
    let agent = stage.world.joined(stage.node, &through).await;
    agent.wants(vec![stage.fixed("fix", "one"), stage.fixed("more", "two")]).await;
    while !ran(&agent, "more-outage", "Running") {
        assert!(Instant::now() < deadline, "static pods wait for the API server");
        sleep(Duration::from_millis(20)).await;
    }
    let others = |c: &String| c.contains("/outlives") || c.contains("/finishes");
    assert!(!stage.world.runtime.calls()[calls..].iter().any(others), "{:?}", &stage.world.runtime.calls()[calls..]);
    assert!(stage.get("finishes").await.is_some_and(|p| phase(&p) == "Running"), "who told?");
    gate.reopen();
    stage.until("its end is told", "finishes", |p| p.is_some_and(|p| phase(p) == "Succeeded")).await;
    stage.running("more-outage").await;
    stage.running("fix-outage").await;
    agent.wants(Vec::new()).await;
    for name in ["more-outage", "fix-outage"] {
        stage.until("the mirror is gone", name, |p| p.is_none()).await;
    }
    for name in ["outlives", "finishes"] {
        stage.delete(name).await;
        stage.until("it is gone", name, |p| p.is_none()).await;
    }
    let starts = stage.world.runtime.calls().iter().filter(|c| c.starts_with("StartContainer")).count();
    assert_eq!(starts, 4, "{:?}", stage.world.runtime.calls());
    stage.close();
}
