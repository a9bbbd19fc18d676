//! A node that runs out of something.

use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::care::Care;
use rubelet_agent::pressure::{Figures, Told as Given};
use rubelet_agent::sources::DesiredPod;
use rubelet_api::ids::PodUid;
use rubelet_core::collect::images::Policy;
use rubelet_core::evict::{DiskUse, Observation, PodUse, Pressures, Rules, Signal};
use rubelet_core::pod::Source;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::told::Told;
use crate::world::{World, container, pod, pod_of};

const MIB: i64 = 1 << 20;

/// A world whose figures are given.
fn world(hard: &[(&str, &str)]) -> (World, watch::Sender<Given>) {
    let (figures, told) = watch::channel(Given::default());
    let mut eviction = rubelet_api::config::Eviction::default();
    eviction.hard.0.extend(hard.iter().map(|(signal, value)| ((*signal).to_owned(), (*value).to_owned())));
    let rules = Rules::of(&eviction, false).expect("good");
    let images =
        Policy { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120), age_max: Duration::ZERO };
    let mut world = World::new();
    world.care =
        Care { eviction: Rules { local_storage: true, ..rules }, figures: Figures::Told(told), images, ..Care::off() };
    (world, figures)
}

/// A pod as an API server would give it: not critical.
fn of_cluster(name: &str, spec: Value) -> DesiredPod {
    let mut desired = pod_of(name, spec);
    let mut pod = (*desired.pod).clone();
    pod.metadata.annotations = None;
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = Some(format!("uid-{name}"));
    desired.pod = Arc::new(pod);
    desired
}

fn asking(memory: &str) -> Value {
    let mut app = container("app", &["serve"]);
    app["resources"] = json!({"requests": {"memory": memory}});
    json!({"containers": [app]})
}

fn left(signal: Signal, mib: i64) -> (Signal, Observation) {
    (signal, Observation { available: mib * MIB, capacity: 1000 * MIB })
}

fn using(name: &str, mib: i64) -> (PodUid, PodUse) {
    let app = rubelet_core::evict::ContainerUse { name: "app".into(), memory: Some(mib * MIB), ..Default::default() };
    let usage = PodUse { memory: Some(mib * MIB), containers: vec![app], ..PodUse::default() };
    (PodUid::new(format!("uid-{name}")), usage)
}

#[tokio::test(start_paused = true)]
async fn the_pod_that_uses_most_memory_beyond_its_request_goes_and_no_other() {
    let (told, _listening) = Told::listen();
    let (world, figures) = world(&[("memory.available", "100Mi")]);
    let agent = world.agent_of(vec![Source::Api]).await;
    let pods = || vec![of_cluster("a", asking("50Mi")), of_cluster("b", asking("50Mi"))];
    agent.wants_of(Source::Api, pods()).await;
    world.until("both run", || world.runtime.running().len() == 2).await;
    figures.send_replace(Given {
        observations: [left(Signal::MemoryAvailable, 64)].into(),
        pods: [using("a", 60), using("b", 90)].into(),
    });
    let reason = |name: &str| agent.shown(name).and_then(|s| s.reason);
    world.until("b is evicted", || reason("b").as_deref() == Some("Evicted")).await;
    figures.send_replace(Given { observations: [left(Signal::MemoryAvailable, 500)].into(), pods: [].into() });
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. \
                   Container app was using 90Mi, request is 50Mi, has larger consumption of memory. ";
    let status = agent.shown("b").expect("it is shown");
    assert_eq!((status.phase.as_deref(), status.message.as_deref()), (Some("Failed"), Some(message)));
    assert!(told.has(&format!("default/b Evicted: {message}")), "{:#?}", told.lines());
    assert!(told.has("node-a EvictionThresholdMet: Attempting to reclaim memory"));
    assert_eq!(world.runtime.running().len(), 1, "a stays");

    let pressures = agent.ground.agent.pressures.clone();
    assert_eq!(*pressures.borrow(), Pressures { memory: true, ..Pressures::default() });
    let mut more = pods();
    more.push(of_cluster("c", json!({"containers": [container("app", &["serve"])]})));
    agent.wants_of(Source::Api, more).await;
    world.until("c is not let in", || reason("c").as_deref() == Some("Evicted")).await;
    let message = agent.shown("c").and_then(|s| s.message);
    assert_eq!(message.as_deref(), Some("Pod was rejected: The node had condition: [MemoryPressure]. "));

    tokio::time::sleep(Duration::from_secs(280)).await;
    assert!(pressures.borrow().memory, "it holds for five minutes");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(*pressures.borrow(), Pressures::default());
    assert_eq!(reason("a"), None);
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_goes_before_any_pod_and_static_pods_stay() {
    let (told, _listening) = Told::listen();
    let (world, figures) = world(&[("nodefs.available", "10%")]);
    world.runtime.has_image("old", 7, false);
    world.runtime.has_image("pinned", 7, true);
    let records = world.path().join("root/image_manager/pulled");
    std::fs::create_dir_all(&records).expect("a folder");
    for id in ["old", "pinned"] {
        let record = json!({
            "kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "lastUpdatedTime": "2026-01-02T03:04:05Z", "imageRef": id,
        });
        std::fs::write(records.join(format!("sha256-{id}")), record.to_string()).expect("a record");
    }
    let agent = world.agent().await;
    let once =
        pod_of("once", json!({"restartPolicy": "Never", "containers": [container("app", &["exits", "500", "3"])]}));
    agent.wants(vec![pod("web", &[("app", &["serve"])]), once]).await;
    let phase = |name: &str| agent.shown(name).and_then(|s| s.phase);
    world.until("one has ended", || phase("once-node-a").as_deref() == Some("Failed")).await;
    let before = agent.shown("once-node-a").and_then(|s| s.container_statuses);
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert!(!world.runtime.calls().iter().any(|c| c.starts_with("RemoveImage")), "there is room");

    figures.send_replace(Given { observations: [left(Signal::NodeFsAvailable, 99)].into(), pods: [].into() });
    world.until("the image is gone", || world.runtime.calls().contains(&"RemoveImage old".to_owned())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = world.runtime.calls();
    assert!(calls.iter().any(|c| c.starts_with("RemoveContainer default/once-node-a/app")), "{calls:#?}");
    assert!(!calls.contains(&"RemoveImage pinned".to_owned()));
    let is_recorded = |id: &str| records.join(format!("sha256-{id}")).exists();
    assert_eq!(
        (is_recorded("old"), is_recorded("pinned")),
        (false, true),
        "a record goes with its image, and only then"
    );
    assert_eq!(agent.shown("once-node-a").and_then(|s| s.container_statuses), before, "what it was stays told");
    assert!(told.has("EvictionThresholdMet: Attempting to reclaim ephemeral-storage"));
    assert_eq!(world.runtime.running().len(), 1, "static pods are not evicted");
    assert!(agent.ground.agent.pressures.borrow().disk);
    assert_eq!(world.runtime.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fills_its_volume_goes_with_what_it_wrote() {
    let (world, figures) = world(&[]);
    let agent = world.agent_of(vec![Source::Api]).await;
    let mut spec = json!({"containers": [container("app", &["serve"])]});
    spec["volumes"] = json!([{"name": "cache", "emptyDir": {"sizeLimit": "8Mi"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "cache", "mountPath": "/cache"}]);
    agent.wants_of(Source::Api, vec![of_cluster("a", spec)]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let volume = world.path().join("root/pods/uid-a/volumes/kubernetes.io~empty-dir/cache");
    assert!(volume.is_dir());
    let full = PodUse { volumes: vec![("cache".into(), DiskUse { bytes: 9 * MIB, inodes: 2 })], ..PodUse::default() };
    figures.send_replace(Given { observations: [].into(), pods: [(PodUid::new("uid-a"), full)].into() });
    world.until("it is evicted", || agent.shown("a").and_then(|s| s.reason).as_deref() == Some("Evicted")).await;
    let status = agent.shown("a").expect("it is shown");
    assert_eq!(status.message.as_deref(), Some("Usage of EmptyDir volume \"cache\" exceeds the limit \"8Mi\". "));
    world.until("its volume is gone", || !volume.exists()).await;
    assert!(!agent.ground.agent.pressures.borrow().disk);
}

#[tokio::test(start_paused = true)]
async fn logs_of_pods_that_nobody_knows_go_once_every_source_has_spoken() {
    let (world, _figures) = world(&[]);
    let gone = world.path().join("logs/default_gone_1234");
    std::fs::create_dir_all(gone.join("app")).expect("made");
    let link = world.path().join("container-logs/gone_default_app-abc.log");
    std::fs::create_dir_all(world.path().join("container-logs")).expect("made");
    std::os::unix::fs::symlink(gone.join("app/0.log"), &link).expect("made");
    let agent = world.agent_of(vec![Source::File, Source::Http]).await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert!(gone.exists(), "it may be the URL's");
    agent.wants_of(Source::Http, Vec::new()).await;
    world.until("they are gone", || !gone.exists() && link.symlink_metadata().is_err()).await;
    assert_eq!(world.pod_logs().len(), 1, "those of the pod that runs stay");
}

#[test]
fn logs_that_cannot_be_removed_are_told_of() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: needs root");
    }
    let story = || {
        rubelet_host::mount::enter_private_namespace().expect("a mount namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(logs_that_somebody_mounted());
    };
    if let Err(panic) = std::thread::spawn(story).join() {
        std::panic::resume_unwind(panic);
    }
}

async fn logs_that_somebody_mounted() {
    let (told, _listening) = Told::listen();
    let (world, _figures) = world(&[]);
    let agent = world.agent().await;
    agent.wants(vec![pod("web", &[("app", &["serve"])])]).await;
    world.until("it runs", || world.runtime.running().len() == 1).await;
    let gone = world.path().join("logs/default_gone_1234");
    std::fs::create_dir_all(&gone).expect("made");
    let memory = rubelet_host::mount::Tmpfs { size_bytes: Some(4096), noswap: false, is_data_only: true };
    rubelet_host::mount::tmpfs(&gone, memory).expect("mounted");
    let count = || told.lines().iter().filter(|l| l.starts_with("node-a ContainerGCFailed: ")).count();
    world.until("it is told every minute", || count() == 2).await;
    let line = told.lines().into_iter().find(|l| l.contains("ContainerGCFailed")).expect("told");
    assert!(line.contains("logs/default_gone_1234"), "{line}");
    rustix::mount::unmount(&gone, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    world.until("it is gone", || !gone.exists()).await;
    assert_eq!(count(), 2);
}
