//! A CSI driver and a real API server: the one of the kubeconfig that `RUBELET_TEST_KUBECONFIG` names, as a user who may do
//! everything; beside it lies `node-a.conf`, with which the agent speaks. Containers are played, volumes are real.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::references::{ReferenceSettings, Strategy};
use rubelet_agent::sources::DesiredPod;
use rubelet_api::groups::storage_v1::{CSIDriver, CSINode};
use rubelet_api::{Resource, v1};
use rubelet_apiserver::{Client, DeleteOptions, Object, Patch, Path, Settings};
use rubelet_core::pod::Source;
use rubelet_testkit::csi_driver::{CsiDriver, Options};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Agent, World};

const NAMESPACE: &str = "rubelet-drivers";
const DRIVER: &str = "csi.test.rubelet.io";

fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("RUBELET_TEST_KUBECONFIG").map(PathBuf::from);
    if path.is_none() {
        eprintln!("not run: RUBELET_TEST_KUBECONFIG is not set");
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return None;
    }
    path
}

/// Of who may do everything, and of the node.
fn clients(path: &FilePath) -> (Client, Client) {
    let connect =
        |path: &FilePath| Client::connect(Settings::from_kubeconfig(path).expect("a kubeconfig")).expect("a client");
    (connect(path), connect(&path.with_file_name("node-a.conf")))
}

async fn put<T: Object + Resource>(client: &Client, all: &Path, object: Value) -> T {
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let object: T = serde_json::from_value(object).expect("an object");
    let at = all.clone().named(&name);
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    match client.delete(&at, &options).await {
        Err(error) if !error.is_not_found() => panic!("{error}"),
        _ => {}
    }
    // A volume or claim of an earlier run goes when its finalizers do.
    drop(client.patch::<T>(&at, &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match client.create(all, &object).await {
            Err(error) if error.is_already_exists() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            made => return made.unwrap_or_else(|e| panic!("{name}: {e}")),
        }
    }
}

/// A volume and the claim that it is bound to.
async fn bind(client: &Client, name: &str, mode: &str) {
    let claims = Path::within::<v1::PersistentVolumeClaim>(NAMESPACE);
    let spec = json!({"storageClassName": "", "volumeName": name, "volumeMode": mode,
        "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim: v1::PersistentVolumeClaim =
        put(client, &claims, json!({"metadata": {"name": name}, "spec": spec})).await;
    let uid = claim.metadata.uid.expect("a UID");
    let spec = json!({"storageClassName": "", "volumeMode": mode, "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOncePod"], "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": NAMESPACE, "name": name, "uid": uid},
        "csi": {"driver": DRIVER, "volumeHandle": name, "fsType": "ext4", "volumeAttributes": {"a": "b"}}});
    let volumes = Path::all::<v1::PersistentVolume>();
    let _: v1::PersistentVolume = put(client, &volumes, json!({"metadata": {"name": name}, "spec": spec})).await;
    let bound =
        json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"]}});
    let status = claims.named(name).part("status");
    client.patch::<v1::PersistentVolumeClaim>(&status, &Patch::Merge(bound)).await.expect("a bound claim");
}

async fn prepare(client: &Client) -> v1::Pod {
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("a namespace");
    match client.create::<v1::Namespace>(&Path::all::<v1::Namespace>(), &namespace).await {
        Err(error) if error.is_already_exists() => {}
        made => drop(made.expect("a namespace")),
    }
    let _: v1::Node = put(client, &Path::all::<v1::Node>(), json!({"metadata": {"name": "node-a"}})).await;
    let spec = json!({"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true,
        "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}]});
    let _: CSIDriver =
        put(client, &Path::all::<CSIDriver>(), json!({"metadata": {"name": DRIVER}, "spec": spec})).await;
    let accounts = Path::within::<v1::ServiceAccount>(NAMESPACE);
    let _: v1::ServiceAccount = put(client, &accounts, json!({"metadata": {"name": "robot"}})).await;
    bind(client, "rubelet-fs", "Filesystem").await;
    bind(client, "rubelet-block", "Block").await;
    let pod = json!({"metadata": {"name": "drivers"}, "spec": {
        "nodeName": "node-a", "serviceAccountName": "robot", "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "app", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "9"],
            "volumeMounts": [{"name": "fs", "mountPath": "/fs"}],
            "volumeDevices": [{"name": "block", "devicePath": "/dev/xda"}]}],
        "volumes": [
            {"name": "fs", "persistentVolumeClaim": {"claimName": "rubelet-fs"}},
            {"name": "block", "persistentVolumeClaim": {"claimName": "rubelet-block"}},
        ],
    }});
    put(client, &Path::within::<v1::Pod>(NAMESPACE), pod).await
}

/// Waits in real time.
async fn until(what: &str, world: &World, agent: &Agent, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        let calls = || calls(world, "").into_iter().map(|c| c.to_string()).collect::<Vec<_>>();
        assert!(Instant::now() < deadline, "{what}: {:#?} {:#?}", calls(), agent.shown("drivers"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the driver was asked of this method; all, where none is named.
fn calls(world: &World, method: &str) -> Vec<Value> {
    let all = fs::read_to_string(world.path().join("csi/calls.jsonl")).unwrap_or_default();
    let all = all.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|call| method.is_empty() || call["method"] == method).collect()
}

#[test]
fn a_pod_gets_a_file_system_and_a_device_which_grow_and_go() {
    let Some(path) = kubeconfig() else { return };
    let story = move || {
        rubelet_host::mount::enter_private_namespace().expect("a mount namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(the_story(&path));
    };
    if let Err(panic) = std::thread::spawn(story).join() {
        std::panic::resume_unwind(panic);
    }
}

async fn the_story(kubeconfig: &FilePath) {
    let (admin, node) = clients(kubeconfig);
    let pod = prepare(&admin).await;
    let uid = pod.metadata.uid.clone().expect("a UID");
    let world = World::new();
    let root = world.path().join("root");
    let _driver = CsiDriver::start(Options::new(&root.join("plugins_registry"), &world.path().join("csi")))
        .expect("the driver starts");
    let settings =
        ReferenceSettings { client: node, strategy: Strategy::Watch, period: Duration::from_secs(1), seed: 1 };
    let agent = world.attached(settings).await;
    let desired = DesiredPod { pod: Arc::new(pod), digest: uid.clone(), origin: "api".into(), removals: 0 };
    agent.wants_of(Source::Api, vec![desired]).await;
    until("a container", &world, &agent, async || !world.runtime.running().is_empty()).await;
    what_the_driver_heard(&world, &uid);
    let csi_node: CSINode = admin.get(&Path::to_cluster::<CSINode>("node-a")).await.expect("a CSINode");
    assert_eq!((csi_node.spec.drivers.len(), csi_node.spec.drivers[0].name.as_str()), (1, DRIVER));
    let device = root.join("pods").join(&uid).join("volumeDevices/kubernetes.io~csi/rubelet-block");
    let kind = fs::metadata(&device).expect("a device").file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_block_device(&kind));

    // The controller's part is done; the node's is asked for, and others write into the claims meanwhile.
    for name in ["rubelet-fs", "rubelet-block"] {
        let pending = json!({"status": {"conditions": [{"type": "FileSystemResizePending", "status": "True"}]}});
        let status = Path::to::<v1::PersistentVolumeClaim>(NAMESPACE, name).part("status");
        admin.patch::<v1::PersistentVolumeClaim>(&status, &Patch::Merge(pending)).await.expect("a pending claim");
    }
    let (writer, mut count) = (admin.clone(), 0u64);
    let writing = tokio::spawn(async move {
        loop {
            count += 1;
            for name in ["rubelet-fs", "rubelet-block"] {
                let claim = Path::to::<v1::PersistentVolumeClaim>(NAMESPACE, name);
                let note = json!({"metadata": {"annotations": {"count": count.to_string()}}});
                writer.patch::<v1::PersistentVolumeClaim>(&claim, &Patch::Merge(note)).await.expect("a note");
            }
        }
    });
    for name in ["rubelet-fs", "rubelet-block"] {
        let volume = Path::to_cluster::<v1::PersistentVolume>(name);
        let larger = Patch::Merge(json!({"spec": {"capacity": {"storage": "2Gi"}}}));
        admin.patch::<v1::PersistentVolume>(&volume, &larger).await.expect("a larger volume");
    }
    for name in ["rubelet-fs", "rubelet-block"] {
        let claim = Path::to::<v1::PersistentVolumeClaim>(NAMESPACE, name);
        until("a larger claim", &world, &agent, async || {
            let status = admin.get::<v1::PersistentVolumeClaim>(&claim).await.expect("a claim").status;
            let status = status.expect("a status");
            let size = status.capacity.as_ref().and_then(|c| c.get("storage")).map(|q| q.0.clone());
            // Others than those of growth stay: API servers of 1.37 say whether the claim is used.
            let is_growing = status.conditions.iter().flatten().any(|condition| condition.type_ != "Unused");
            size.as_deref() == Some("2Gi") && !is_growing
        })
        .await;
    }
    writing.abort();
    // More often where so much was written that telling of it was begun anew.
    assert!(calls(&world, "NodeExpandVolume").len() >= 2);
    what_the_summary_says(&agent).await;

    agent.wants_of(Source::Api, Vec::new()).await;
    until("the end", &world, &agent, async || world.pod_dirs().is_empty()).await;
    assert_eq!((calls(&world, "NodeUnpublishVolume").len(), calls(&world, "NodeUnstageVolume").len()), (2, 2));
    let left = rubelet_host::mount::at_or_below(&root.join("plugins")).expect("a mount table");
    assert!(left.is_empty(), "{left:?}");
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    admin.delete(&Path::to::<v1::Pod>(NAMESPACE, "drivers"), &options).await.expect("the pod goes");
}

fn what_the_driver_heard(world: &World, uid: &str) {
    let published = calls(world, "NodePublishVolume");
    let fs = published.iter().find(|c| c["request"]["volume_id"] == "rubelet-fs").expect("it was published");
    let request = &fs["request"];
    assert_eq!(request["volume_capability"]["access_mode"], "SINGLE_NODE_SINGLE_WRITER");
    assert_eq!(request["volume_context"]["csi.storage.k8s.io/pod.uid"], uid);
    assert_eq!(request["volume_context"]["a"], "b");
    let tokens = request["volume_context"]["csi.storage.k8s.io/serviceAccount.tokens"].as_str().expect("tokens");
    let tokens: Value = serde_json::from_str(tokens).expect("JSON");
    assert_eq!(tokens["vault"]["token"].as_str().expect("a token").split('.').count(), 3, "a JWT");
    assert!(tokens["vault"]["expirationTimestamp"].as_str().is_some_and(|t| t.ends_with('Z')), "{tokens}");
    let block = published.iter().find(|c| c["request"]["volume_id"] == "rubelet-block").expect("it was published");
    assert!(block["request"]["volume_capability"]["block"].is_object(), "{block}");
    assert!(published.iter().chain(&calls(world, "NodeStageVolume")).all(|c| c["refused"].is_null()));
}

async fn what_the_summary_says(agent: &Agent) {
    let summary = agent.ground.agent.stats.summary(false).await;
    let mut page = Vec::new();
    summary.write(&mut page).expect("a page");
    let page: Value = serde_json::from_slice(&page).expect("JSON");
    let volumes = page["pods"][0]["volume"].as_array().expect("volumes");
    let fs = volumes.iter().find(|v| v["name"] == "fs").unwrap_or_else(|| panic!("{page}"));
    assert_eq!(fs["capacityBytes"], json!(2_u64 << 30));
    assert_eq!(fs["pvcRef"], json!({"name": "rubelet-fs", "namespace": NAMESPACE}));
}
