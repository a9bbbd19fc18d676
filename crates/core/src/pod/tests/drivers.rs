//! Volumes of CSI drivers: devices, tokens, publishing again, growing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::v1;
use serde_json::{Value, json};

use super::world::World;
use crate::pod::needs::{Claim, CsiDriver, DriverToken, ObjectName, Token, driver_token_need};
use crate::pod::step::{CsiVolume, VolumeKind};
use crate::pod::{Fact, Got, Need};

fn world(container: Value) -> World {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    let mut container = container;
    container["name"] = json!("main");
    let mut world = World::attached(json!({"nodeName": "node-a", "serviceAccountName": "robot",
        "containers": [container], "volumes": [volume]}));
    world.node.settings.has_api_server = true;
    world
}

fn mounting() -> World {
    world(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))
}

/// A volume of this size, of a claim that is told to have 1 GiB.
fn claim(size: &str, mode: &str) -> Got {
    let volume = json!({"metadata": {"name": "pv-1"}, "spec": {"capacity": {"storage": size}, "volumeMode": mode,
        "accessModes": ["ReadWriteOncePod"], "csi": {"driver": "d", "volumeHandle": "h", "fsType": "ext4"}}});
    let claim = json!({"metadata": {"name": "c", "namespace": "default"}, "status": {"capacity": {"storage": "1Gi"}}});
    Got::Claim(Arc::new(Claim {
        claim: serde_json::from_value(claim).expect("a claim"),
        volume: serde_json::from_value(volume).expect("a volume"),
    }))
}

fn driver() -> CsiDriver {
    CsiDriver { needs_attachment: false, ..CsiDriver::default() }
}

/// All that is known but for tokens.
fn known(claim: Got, driver: CsiDriver) -> BTreeMap<Need, Got> {
    BTreeMap::from([
        (Need::Services { namespace: "default".into() }, Got::Services(Arc::default())),
        (Need::Claim(ObjectName { namespace: "default".into(), name: "c".into() }), claim),
        (Need::CsiDriver("d".into()), Got::CsiDriver(Arc::new(driver))),
    ])
}

fn volume(world: &World) -> &CsiVolume {
    match &world.mounted.last().expect("a volume").kind {
        VolumeKind::Csi(volume) => volume,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_is_linked_and_passed_in() {
    let mut world = world(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/xda"}]}));
    world.tell(Fact::Inputs(known(claim("1Gi", "Block"), driver())));
    world.run_until(3);
    let plan = world.mounted.last().expect("a volume");
    assert!(plan.path.ends_with("pods/u-1/volumeDevices/kubernetes.io~csi/pv-1"), "{:?}", plan.path);
    let device = volume(&world).device.as_ref().expect("a device");
    assert!(device.map.global.ends_with("plugins/kubernetes.io/csi/volumeDevices/pv-1/dev"), "{device:?}");
    assert!(device.publish.ends_with("volumeDevices/publish/pv-1/u-1"), "{device:?}");
    assert!(volume(&world).staging.ends_with("volumeDevices/staging/pv-1") && volume(&world).is_exclusive);
    let devices = &world.created.last().expect("a container").config.devices;
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].container_path.as_str(), devices[0].permissions.as_str()), ("/dev/xda", "mrw"));
    assert_eq!(devices[0].host_path, plan.path.display().to_string());
}

#[test]
fn a_file_system_is_no_device_and_a_device_is_not_mounted() {
    for (container, mode, wanted) in [
        (
            json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/xda"}]}),
            "Filesystem",
            "volume v has volumeMode Filesystem, but is specified in volumeDevices",
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            "Block",
            "volume v has volumeMode Block, but is specified in volumeMounts",
        ),
    ] {
        let mut world = world(container);
        world.tell(Fact::Inputs(known(claim("1Gi", mode), driver())));
        world.run_until(2);
        let kind = &world.mounted.last().expect("a try").kind;
        assert_eq!(*kind, VolumeKind::Unprocessed { message: wanted.to_owned() });
    }
}

#[test]
fn a_driver_gets_the_tokens_that_it_wants_and_again_when_they_change() {
    for is_secret in [false, true] {
        let mut world = mounting();
        let wanted = DriverToken { audience: "vault".into(), expiration_secs: Some(600) };
        let driver =
            CsiDriver { tokens: vec![wanted.clone()], are_tokens_secret: is_secret, is_republished: true, ..driver() };
        let mut known = known(claim("1Gi", "Filesystem"), driver);
        world.tell(Fact::Inputs(known.clone()));
        world.run_until(2);
        assert!(world.mounted.is_empty(), "the token is not there");
        let need = driver_token_need(world.record.pod(), &wanted);
        assert_eq!((need.account.name.as_str(), need.expiration_secs), ("robot", 600));
        let token =
            |text: &str| Got::Token(Arc::new(Token { text: text.to_owned(), ends: "2026-01-01T01:00:00Z".to_owned() }));
        known.insert(Need::Token(need.clone()), token("one"));
        world.tell(Fact::Inputs(known.clone()));
        world.run_until(3);
        let given = |world: &World| {
            let volume = volume(world);
            let of = if is_secret { &volume.publish_secrets } else { &volume.attributes };
            of["csi.storage.k8s.io/serviceAccount.tokens"].clone()
        };
        let text = "{\"vault\":{\"token\":\"one\",\"expirationTimestamp\":\"2026-01-01T01:00:00Z\"}}";
        assert_eq!((given(&world).as_str(), volume(&world).is_again), (text, false));

        known.insert(Need::Token(need), token("two"));
        world.tell(Fact::Inputs(known));
        world.run_until(4);
        assert!(given(&world).contains("two") && volume(&world).is_again);
        let count = world.mounted.len();
        world.run_until(70);
        assert_eq!(world.mounted.len(), count + 1, "and once a minute");
    }
}

#[test]
fn a_claim_that_grows_is_grown_once() {
    let mut world = mounting();
    world.tell(Fact::Inputs(known(claim("1Gi", "Filesystem"), driver())));
    world.run_until(3);
    assert!(volume(&world).expansion.is_none());
    world.tell(Fact::Inputs(known(claim("2Gi", "Filesystem"), driver())));
    world.run_until(4);
    let grown = |world: &World| world.log.iter().filter(|l| l.contains("expand v to")).cloned().collect::<Vec<_>>();
    assert_eq!(grown(&world), ["3.0 expand v to 2Gi"]);
    let wanted =
        "3.0 FileSystemResizeSuccessful : MountVolume.NodeExpandVolume succeeded for volume \"pv-1\" node-a".to_owned();
    assert!(world.events.contains(&wanted), "{:?}", world.events);
    world.run_until(200);
    world.tell(Fact::Inputs(known(claim("3Gi", "Filesystem"), driver())));
    world.run_until(201);
    assert_eq!(grown(&world), ["3.0 expand v to 2Gi", "200.0 expand v to 3Gi"]);
    assert_eq!(world.mounted.len(), 1, "it is not mounted anew");
}

#[test]
fn what_is_only_read_does_not_grow() {
    let mut world = World::attached(json!({"nodeName": "node-a", "containers": [{"name": "main",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]}));
    world.node.settings.has_api_server = true;
    world.tell(Fact::Inputs(known(claim("2Gi", "Filesystem"), driver())));
    world.run_until(5);
    assert!(volume(&world).is_read_only && volume(&world).expansion.is_none());
    assert!(!world.log.iter().any(|l| l.contains("expand")), "{:?}", world.log);
}

#[test]
fn a_volume_that_is_too_small_when_it_is_mounted_grows_then() {
    let mut world = mounting();
    world.tell(Fact::Inputs(known(claim("2Gi", "Filesystem"), driver())));
    world.run_until(3);
    let expansion = volume(&world).expansion.clone().expect("it grows");
    assert_eq!((expansion.size.as_str(), expansion.bytes, expansion.claim.name.as_str()), ("2Gi", 2 << 30, "c"));
}

/// The runtime has the image that is a volume; the container gets it by its reference.
#[test]
fn an_image_is_mounted_by_the_runtime() {
    let mut world = World::new(json!({
        "containers": [{"name": "main", "image": "app", "volumeMounts":
            [{"name": "i", "mountPath": "/i", "subPath": "etc"}, {"name": "e", "mountPath": "/e"}]}],
        "volumes": [{"name": "i", "image": {"reference": "data:1", "pullPolicy": "Always"}}, {"name": "e", "emptyDir": {}}],
    }));
    world.run_until(3);
    let mounts = &world.created.last().expect("a container").config.mounts;
    let image = mounts[0].image.as_ref().expect("an image");
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:data:1", "data:1"));
    assert_eq!((mounts[0].image_sub_path.as_str(), mounts[0].host_path.as_str()), ("etc", ""));
    assert!(mounts[0].readonly && mounts[1].image.is_none() && world.created[0].subpaths.is_empty());
}

#[test]
fn a_generic_ephemeral_claim_is_the_pods_own() {
    let pod: v1::Pod = super::world::pod(json!({"containers": [{"name": "main"}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]}));
    let volume = &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0];
    let claim = crate::pod::needs::claim_of(&pod, volume).expect("a claim");
    assert_eq!(claim.name, "web-scratch");
}

/// kubelet 1.36: the words; only where the scheduler hears how many volumes the node takes.
#[test]
fn a_pod_whose_volumes_the_node_cannot_take_is_given_back() {
    let attachment = |world: &World| {
        let all = crate::pod::needs::needs(&world.record.pod, world.record.source, &world.node, &world.record.inputs);
        all.into_iter().find(|need| matches!(need, Need::Attachment(_))).expect("an attachment")
    };
    for (has_moving_limits, phase) in [(true, "Failed"), (false, "Pending")] {
        let mut world = mounting();
        let driver = CsiDriver { has_moving_limits, ..CsiDriver::default() };
        let mut known = known(claim("1Gi", "Filesystem"), driver);
        world.tell(Fact::Inputs(known.clone()));
        known.insert(attachment(&world), Got::Failed("rpc error: no".to_owned()));
        world.tell(Fact::Inputs(known.clone()));
        world.run_until(3);
        assert_eq!(world.status.phase.as_deref(), Some("Pending"), "it may be attached yet");
        known.insert(attachment(&world), Got::NoRoom("rpc error: no".to_owned()));
        world.tell(Fact::Inputs(known));
        world.run_until(6);
        assert_eq!(world.status.phase.as_deref(), Some(phase));
        let text = "Node has reached its volume attachment limit, rejecting pod. unmounted volumes=[v], \
                    unattached volumes=[v], failed to process volumes=[]: context deadline exceeded";
        let told =
            world.events.iter().filter(|e| e.ends_with(&format!("VolumeAttachmentLimitExceeded : {text}"))).count();
        assert_eq!(told, usize::from(has_moving_limits), "{:#?}", world.events);
        if has_moving_limits {
            assert_eq!(world.status.reason.as_deref(), Some("VolumeAttachmentLimitExceeded"));
            assert_eq!(world.status.message, Some(format!("Pod was rejected: {text}")));
        }
        assert!(world.mounted.is_empty() && world.created.is_empty());
    }
}
