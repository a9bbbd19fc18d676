//! Objects that a pod refers to: they come late, are missing, appear, and change.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::v1;
use serde_json::{Value, json};

use super::world::World;
use crate::pod::needs::ObjectName;
use crate::pod::step::VolumeKind;
use crate::pod::{Fact, Got, Need};

fn world(spec: Value) -> World {
    let mut world = World::attached(spec);
    world.node.settings.has_api_server = true;
    world
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn secret(value: &str) -> Got {
    let data = [("k".to_owned(), rubelet_api::ByteString(value.into()))].into();
    Got::Secret(Arc::new(v1::Secret { data: Some(data), ..Default::default() }))
}

fn absent() -> Got {
    Got::NotFound("secret \"s\" not found".to_owned())
}

/// The services, and the secret `s`.
fn told(got: Got) -> Fact {
    let services = (Need::Services { namespace: "default".into() }, Got::Services(Arc::default()));
    Fact::Inputs(BTreeMap::from([services, (Need::Secret(named("s")), got)]))
}

fn needy() -> Value {
    json!({"containers": [{"name": "main",
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]})
}

fn mounting() -> Value {
    json!({"containers": [{"name": "main"}], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]})
}

fn waiting(world: &World) -> (String, String) {
    let status = world.status.container_statuses.iter().flatten().next().cloned().unwrap_or_default();
    let waiting = status.state.and_then(|s| s.waiting).unwrap_or_default();
    (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
}

#[test]
fn a_container_waits_for_its_secret_and_starts_when_it_appears() {
    let mut world = world(needy());
    world.run_until(5);
    assert_eq!(world.log, ["1.0 sandbox 0"], "nothing is known yet: nothing is created and nothing failed");
    assert_eq!(waiting(&world).0, "ContainerCreating");
    world.tell(told(absent()));
    world.run_until(7);
    let wanted = ("CreateContainerConfigError".to_owned(), "secret \"s\" not found".to_owned());
    assert_eq!(waiting(&world), wanted);
    assert!(world.events.contains(&"5.0 Failed main: Error: secret \"s\" not found".to_owned()), "{:?}", world.events);
    world.tell(told(secret("x")));
    world.run_until(8);
    assert_eq!(world.log.last().map(String::as_str), Some("7.0 start main 0"));
    let variables = &world.created[0].config.envs;
    assert!(variables.iter().any(|e| e.key == "X" && e.value == b"x"), "{variables:?}");
}

#[test]
fn a_sandbox_waits_for_its_runtime_class() {
    let mut world = world(json!({"runtimeClassName": "kata", "containers": [{"name": "main"}]}));
    world.run_until(3);
    assert_eq!(world.log, [""; 0], "the handler is not known yet");
    let class = |got| {
        let services = (Need::Services { namespace: "default".into() }, Got::Services(Arc::default()));
        Fact::Inputs(BTreeMap::from([services, (Need::RuntimeClass("kata".to_owned()), got)]))
    };
    let missing = "runtimeclass.node.k8s.io \"kata\" not found";
    world.tell(class(Got::NotFound(missing.to_owned())));
    world.run_until(4);
    let is_told = |e: &String| e.contains("FailedCreatePodSandBox") && e.contains(missing);
    assert!(world.events.iter().any(is_told), "{:?}", world.events);
    world.tell(class(Got::RuntimeClass("kata-qemu".into())));
    world.run_until(20);
    assert_eq!(world.running(), ["main"], "{:?}", world.log);
}

#[test]
fn a_volume_waits_for_its_secret_and_is_written_again_when_that_changes() {
    let mut world = world(mounting());
    world.run_until(3);
    assert_eq!(world.log, [""; 0], "no sandbox before the volumes");
    world.tell(told(absent()));
    world.run_until(4);
    let told_of = "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found";
    let failures = world.events.iter().filter(|e| e.contains("FailedMount") && e.contains(told_of)).count();
    assert_eq!(failures, 2, "at once and after half a second: {:?}", world.events);
    world.tell(told(secret("x")));
    world.run_until(5);
    assert_eq!(world.log.last().map(String::as_str), Some("4.0 start main 0"));
    let content = |world: &World| match &world.mounted.last().expect("a volume").kind {
        VolumeKind::Files { files, .. } => files.iter().map(|f| f.content.clone()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!((world.mounted.len(), content(&world)), (1, vec![b"x".to_vec()]));

    world.tell(told(secret("y")));
    world.run_until(9);
    assert_eq!((world.mounted.len(), content(&world)), (2, vec![b"y".to_vec()]));
    world.tell(told(secret("y")));
    world.run_until(10);
    assert_eq!(world.mounted.len(), 2, "nothing new, nothing written");

    // The secret is gone: the container runs on, and the trouble is told.
    world.tell(told(absent()));
    world.run_until(11);
    assert!(
        world.events.iter().any(|e| e.starts_with("10.0 FailedMount") && e.contains(told_of)),
        "{:?}",
        world.events
    );
    assert!(!world.log.iter().any(|l| l.contains("stop") || l.ends_with("main 1")), "{:?}", world.log);
}

#[test]
fn a_label_that_changes_is_written_into_the_volume() {
    let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    let spec = json!({"containers": [{"name": "main"}], "volumes": [
        {"name": "d", "downwardAPI": {"items": items}}, {"name": "e", "emptyDir": {}}]});
    let mut world = world(spec);
    world.tell(told(absent()));
    world.run_until(3);
    assert_eq!(world.mounted.len(), 2);
    let mut pod = (**world.record.pod()).clone();
    pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    world.tell(Fact::Desired(Arc::new(pod)));
    world.run_until(4);
    assert_eq!(world.mounted.len(), 3, "only what is written");
    assert_eq!(world.mounted[2].volume, "d");
}

#[test]
fn a_missing_pull_secret_is_told_and_the_pull_is_tried() {
    let mut world = world(json!({"imagePullSecrets": [{"name": "s"}], "containers": [{"name": "main"}]}));
    world.run_until(3);
    assert_eq!(world.log, ["1.0 sandbox 0"]);
    world.tell(told(absent()));
    world.run_until(4);
    let wanted = "3.0 FailedToRetrieveImagePullSecret : Unable to retrieve some image pull secrets (s); \
                  attempting to pull the image may not succeed.";
    assert!(world.events.contains(&wanted.to_owned()), "{:?}", world.events);
    assert_eq!(world.log.last().map(String::as_str), Some("3.0 start main 0"));
}
