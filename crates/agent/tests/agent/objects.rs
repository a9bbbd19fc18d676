//! A pod of a real API server gets what it refers to: the server of the kubeconfig that `RUBELET_TEST_KUBECONFIG` names, as a
//! user who may do everything. Containers are played, volumes are real.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::references::{ReferenceSettings, Strategy};
use rubelet_agent::sources::DesiredPod;
use rubelet_api::{Resource, v1};
use rubelet_apiserver::{Client, DeleteOptions, Object, Path, Settings};
use rubelet_core::pod::Source;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Agent, World};

const NAMESPACE: &str = "rubelet-objects";

fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("RUBELET_TEST_KUBECONFIG") else {
        eprintln!("not run: RUBELET_TEST_KUBECONFIG is not set");
        return None;
    };
    let settings = Settings::from_kubeconfig(FilePath::new(&path)).expect("a kubeconfig");
    Some(Client::connect(settings).expect("a client"))
}

async fn put<T: Object + Resource>(client: &Client, object: Value) -> T {
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let object: T = serde_json::from_value(object).expect("an object");
    match client.create(&Path::within::<T>(NAMESPACE), &object).await {
        Err(error) if error.is_already_exists() => {
            client.update(&Path::to::<T>(NAMESPACE, &name), &object).await.expect("an update")
        }
        made => made.expect("an object"),
    }
}

async fn remove<T: Resource>(client: &Client, name: &str) {
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    match client.delete(&Path::to::<T>(NAMESPACE, name), &options).await {
        Err(error) if !error.is_not_found() => panic!("{error}"),
        _ => {}
    }
}

/// Waits in real time.
async fn until(what: &str, world: &World, agent: &Agent, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: {:#?} {:#?}", world.runtime.calls(), agent.shown("objects"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn pod() -> Value {
    json!({"metadata": {"name": "objects", "labels": {"app": "objects"}}, "spec": {
        "nodeName": "node-a", "serviceAccountName": "robot", "terminationGracePeriodSeconds": 1,
        "securityContext": {"fsGroup": 3000, "runAsUser": 1000},
        "containers": [{
            "name": "main", "image": "app", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "$(ONE)", "$(TWO)", "$(C_key)", "$(KUBERNETES_SERVICE_PORT)", "$(NONE)"],
            "env": [
                {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}},
                {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "user"}}},
                {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": true}}},
            ],
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "sec"}}],
            "volumeMounts": [
                {"name": "c", "mountPath": "/c"}, {"name": "c", "mountPath": "/one.ini", "subPath": "app.ini"}],
        }],
        "volumes": [
            {"name": "c", "configMap": {"name": "conf"}},
            {"name": "s", "secret": {"secretName": "sec", "items": [{"key": "user", "path": "deep/u"}]}},
            {"name": "p", "projected": {"defaultMode": 0o440, "sources": [
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"serviceAccountToken": {"path": "token", "audience": "test"}},
                {"configMap": {"name": "absent", "optional": true}},
            ]}},
        ],
    }})
}

async fn prepare(client: &Client) -> v1::Pod {
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("a namespace");
    match client.create::<v1::Namespace>(&Path::all::<v1::Namespace>(), &namespace).await {
        Err(error) if error.is_already_exists() => {}
        made => drop(made.expect("a namespace")),
    }
    remove::<v1::Pod>(client, "objects").await;
    remove::<v1::Secret>(client, "sec").await;
    let conf = json!({"metadata": {"name": "conf"}, "data": {"key": "value", "app.ini": "[a]\n"}});
    put::<v1::ConfigMap>(client, conf).await;
    put::<v1::ServiceAccount>(client, json!({"metadata": {"name": "robot"}})).await;
    put(client, pod()).await
}

#[tokio::test]
async fn a_pod_gets_its_objects_and_their_changes() {
    let Some(client) = client() else { return };
    let pod = prepare(&client).await;
    let world = World::new();
    let settings = ReferenceSettings {
        client: client.clone(),
        strategy: Strategy::Watch,
        period: Duration::from_secs(60),
        seed: 1,
    };
    let agent = world.attached(settings).await;
    let uid = pod.metadata.uid.clone().expect("a UID");
    let desired = DesiredPod { pod: Arc::new(pod), digest: uid.clone(), origin: "api".into(), removals: 0 };
    agent.wants_of(Source::Api, vec![desired]).await;

    // The secret is missing: volumes wait, and the configMap is there already.
    let volumes = world.path().join("root/pods").join(&uid).join("volumes");
    let file = |path: &str| volumes.join(path);
    until("a volume", &world, &agent, || file("kubernetes.io~configmap/c/key").exists()).await;
    assert!(world.runtime.calls().is_empty(), "{:?}", world.runtime.calls());
    put::<v1::Secret>(&client, json!({"metadata": {"name": "sec"}, "data": {"user": "bWU="}})).await;
    until("a container", &world, &agent, || !world.runtime.running().is_empty()).await;
    let running = world.runtime.running();
    assert_eq!(running[0].1, ["sleep", "value", "me", "value", "443", "$(NONE)"]);
    let read = |path: &str| fs::read_to_string(file(path)).unwrap_or_default();
    assert_eq!(read("kubernetes.io~secret/s/deep/u"), "me");
    assert_eq!(read("kubernetes.io~projected/p/labels"), "app=\"objects\"");
    assert_eq!(read("kubernetes.io~projected/p/token").split('.').count(), 3, "a JWT");
    let subpath = subpath_of(&volumes);
    assert_eq!(fs::read_to_string(&subpath).unwrap_or_default(), "[a]\n");

    // Changes show, but in the subpath.
    let conf = json!({"metadata": {"name": "conf"}, "data": {"key": "other", "app.ini": "[b]\n"}});
    put::<v1::ConfigMap>(&client, conf).await;
    until("a change", &world, &agent, || read("kubernetes.io~configmap/c/app.ini") == "[b]\n").await;
    assert_eq!(fs::read_to_string(&subpath).unwrap_or_default(), "[a]\n");
    assert_eq!(world.runtime.running().len(), 1);

    agent.wants_of(Source::Api, Vec::new()).await;
    until("the end", &world, &agent, || world.pod_dirs().is_empty()).await;
    remove::<v1::Pod>(&client, "objects").await;
    assert!(world.runtime.violations().is_empty(), "{:?}", world.runtime.violations());
}

fn subpath_of(volumes: &FilePath) -> PathBuf {
    volumes.parent().expect("the pod's directory").join("volume-subpaths/c/main/1")
}
