use std::sync::Arc;

use rubelet_api::ids::SandboxId;
use rubelet_api::v1;
use serde_json::{Value, json};

use super::{AnchorsNeed, Claim, CsiDriver, Got, Inputs, Need, Needs, ObjectName, Token, TokenNeed, needs};
use crate::node::NodeFacts;
use crate::now::{Mono, Now, Wall};
use crate::pod::Source;
use crate::pod::fact::ImageFound;
use crate::pod::services::Service;
use crate::pod::step::{FilesPlugin, VolumeFile, VolumeKind, VolumePlan};
use crate::pod::volumes::{self, View};
use crate::render::{ContainerView, RenderError, create_container};
use crate::sample;

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn node() -> NodeFacts {
    let mut node = sample::node();
    node.settings.has_api_server = true;
    node
}

fn map(name: &str, data: Value) -> (Need, Got) {
    let mut object = data;
    object["metadata"] = json!({"name": name});
    let map = serde_json::from_value::<v1::ConfigMap>(object).expect("a ConfigMap");
    (Need::ConfigMap(named(name)), Got::ConfigMap(Arc::new(map)))
}

fn secret(name: &str, data: &[(&str, &[u8])]) -> (Need, Got) {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), rubelet_api::ByteString(v.to_vec()))).collect();
    let secret = v1::Secret { data: Some(data), ..Default::default() };
    (Need::Secret(named(name)), Got::Secret(Arc::new(secret)))
}

fn absent_map(name: &str) -> (Need, Got) {
    (Need::ConfigMap(named(name)), Got::NotFound(format!("configmap \"{name}\" not found")))
}

fn absent_secret(name: &str) -> (Need, Got) {
    (Need::Secret(named(name)), Got::NotFound(format!("secret \"{name}\" not found")))
}

/// Everything that the pods here refer to.
fn inputs() -> Inputs {
    let service = json!({"metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}});
    let service = Service::of(&serde_json::from_value(service).expect("a service")).expect("variables");
    let token = TokenNeed {
        account: named("default"),
        audience: Some("test".into()),
        expiration_secs: 3600,
        pod_name: "web".into(),
        pod_uid: "u-1".into(),
    };
    Inputs::new(
        [
            map("conf", json!({"data": {"key": "value", "app.ini": "[a]\n"}, "binaryData": {"blob": "AAECAw=="}})),
            secret("sec", &[("user", b"me"), ("password", b"hidden")]),
            absent_map("absent"),
            absent_secret("nosuch"),
            (Need::Services { namespace: "default".into() }, Got::Services(Arc::new(vec![service]))),
            (Need::Token(token), Got::Token(Arc::new(Token { text: "tok".into(), ends: String::new() }))),
        ]
        .into(),
    )
}

fn variables(container: Value) -> Result<Vec<(String, String)>, RenderError> {
    let pod = sample::pod_with(container, json!({}));
    let created = create_container(&ContainerView {
        pod: &pod,
        container: "a",
        node: &node(),
        restart_count: 0,
        image: &ImageFound { image_ref: "sha256:1".into(), uid: Some(0), ..Default::default() },
        target: None,
        sandbox: &SandboxId::new("s"),
        sandbox_attempt: 0,
        pod_ips: &[],
        inputs: &inputs(),
        now: Now { mono: Mono::default(), wall: Wall::UNIX_EPOCH },
    })?;
    let text = |v: Vec<u8>| String::from_utf8(v).expect("text");
    let own = created.config.envs.into_iter().filter(|e| !e.key.starts_with("KUBERNETES_"));
    Ok(own.map(|e| (e.key, text(e.value))).collect())
}

#[test]
fn variables_come_from_objects_by_upstreams_rules() {
    let container = json!({
        "env": [
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}},
            {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "user"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": true}}},
            {"name": "NOKEY", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k", "optional": true}}},
            {"name": "ALL", "value": "$(ONE) $(C_key) $(user) $(KUBERNETES_SERVICE_HOST) $(NONE)"},
            {"name": "user", "value": "own"},
        ],
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "sec"}},
            {"secretRef": {"name": "nosuch", "optional": true}}],
    });
    let mut all = variables(container).expect("an environment");
    all.sort();
    let wanted = [
        ("ALL", "value value me 10.96.0.1 $(NONE)"),
        ("C_app.ini", "[a]\n"),
        ("C_key", "value"),
        ("ONE", "value"),
        ("TWO", "me"),
        ("password", "hidden"),
        ("user", "own"),
    ];
    assert_eq!(all, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn what_is_missing_is_told_in_upstreams_words() {
    let key = |kind: &str, name: &str| json!({"env": [{"name": "X", "valueFrom": {kind: {"name": name, "key": "k"}}}]});
    let whole = |kind: &str, name: &str| json!({"envFrom": [{kind: {"name": name}}]});
    for (container, wanted) in [
        (key("secretKeyRef", "nosuch"), "secret \"nosuch\" not found"),
        (key("secretKeyRef", "sec"), "couldn't find key k in Secret default/sec"),
        (key("configMapKeyRef", "conf"), "couldn't find key k in ConfigMap default/conf"),
        (whole("configMapRef", "absent"), "configmap \"absent\" not found"),
        (whole("secretRef", "nosuch"), "secret \"nosuch\" not found"),
    ] {
        let error = variables(container.clone()).expect_err(&container.to_string());
        assert_eq!((error.reason, error.message.as_str()), ("CreateContainerConfigError", wanted));
    }
}

fn volume(source: Value, spec: Value) -> VolumePlan {
    let (mut source, mut spec) = (source, spec);
    source["name"] = "v".into();
    spec["volumes"] = json!([source]);
    spec["serviceAccountName"] = "default".into();
    let pod = sample::pod_with(json!({}), spec);
    let (inputs, node) = (inputs(), node());
    let view = View { pod: &pod, node: &node, pod_ips: &[], inputs: &inputs };
    volumes::plan(&view, &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0])
}

fn file(path: &str, content: &[u8], mode: u32) -> VolumeFile {
    VolumeFile { path: path.into(), content: content.into(), mode, owner: None }
}

#[test]
fn volumes_hold_what_their_objects_hold() {
    let all = vec![file("app.ini", b"[a]\n", 0o644), file("blob", &[0, 1, 2, 3], 0o644), file("key", b"value", 0o644)];
    let plan = volume(json!({"configMap": {"name": "conf"}}), json!({}));
    assert_eq!(plan.kind, VolumeKind::Files { plugin: FilesPlugin::ConfigMap, files: all, default_mode: 0o644 });
    assert!(plan.path.ends_with("kubernetes.io~configmap/v"));

    let items = json!([{"key": "password", "path": "deep/pw"}]);
    let source = json!({"secret": {"secretName": "sec", "defaultMode": 0o400, "items": items}});
    let files = vec![file("deep/pw", b"hidden", 0o400)];
    assert_eq!(
        volume(source, json!({})).kind,
        VolumeKind::Files { plugin: FilesPlugin::Secret, files, default_mode: 0o400 }
    );

    let optional = json!({"configMap": {"name": "absent", "optional": true}});
    let nothing = VolumeKind::Files { plugin: FilesPlugin::ConfigMap, files: Vec::new(), default_mode: 0o644 };
    assert_eq!(volume(optional, json!({})).kind, nothing);
}

#[test]
fn a_projected_volume_gathers_its_sources() {
    let sources = json!([
        {"configMap": {"name": "conf", "items": [{"key": "key", "path": "k"}]}},
        {"secret": {"name": "sec"}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "test"}},
        {"configMap": {"name": "absent", "optional": true}},
    ]);
    let source = json!({"projected": {"defaultMode": 0o440, "sources": sources}});
    let files = |token: VolumeFile| {
        let files =
            vec![file("k", b"value", 0o440), file("password", b"hidden", 0o440), token, file("user", b"me", 0o440)];
        VolumeKind::Files { plugin: FilesPlugin::Projected, files, default_mode: 0o440 }
    };
    assert_eq!(volume(source.clone(), json!({})).kind, files(file("token", b"tok", 0o440)));
    let owned = VolumeFile { owner: Some(1000), ..file("token", b"tok", 0o600) };
    let context = json!({"securityContext": {"fsGroup": 3000, "runAsUser": 1000}});
    assert_eq!(volume(source.clone(), context).kind, files(owned));
    let grouped = json!({"securityContext": {"fsGroup": 3000}});
    assert_eq!(volume(source, grouped).kind, files(file("token", b"tok", 0o600)));
}

#[test]
fn volumes_that_lack_something_say_so_in_upstreams_words() {
    let projected = |sources: Value| json!({"projected": {"sources": sources}});
    let missing_key = json!([{"key": "k", "path": "p"}]);
    for (source, wanted) in [
        (json!({"secret": {"secretName": "nosuch"}}), "secret \"nosuch\" not found"),
        (json!({"secret": {"secretName": "sec", "items": missing_key}}), "references non-existent secret key: k"),
        (
            json!({"configMap": {"name": "conf", "items": missing_key}}),
            "configmap references non-existent config key: k",
        ),
        (
            projected(json!([{"secret": {"name": "nosuch"}}, {"configMap": {"name": "absent"}}])),
            "[secret \"nosuch\" not found, configmap \"absent\" not found]",
        ),
        (
            projected(json!([{"clusterTrustBundle": {"name": "b", "path": "p"}}])),
            "ClusterTrustBundle projection is not supported in static kubelet mode",
        ),
    ] {
        let wanted = VolumeKind::Refused { message: wanted.to_owned() };
        assert_eq!(volume(source.clone(), json!({})).kind, wanted, "{source}");
    }
}

#[test]
fn a_claim_becomes_what_it_is_bound_to() {
    let pod = sample::pod_with(
        json!({}),
        json!({"securityContext": {"fsGroup": 7}, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
    );
    let plan = |spec: Value| {
        let volume = json!({"metadata": {"name": "pv-1"}, "spec": spec});
        let claim = Claim {
            claim: v1::PersistentVolumeClaim::default(),
            volume: serde_json::from_value(volume).expect("a PersistentVolume"),
        };
        let inputs = Inputs::new([(Need::Claim(named("c")), Got::Claim(Arc::new(claim)))].into());
        let node = node();
        let view = View { pod: &pod, node: &node, pod_ips: &[], inputs: &inputs };
        volumes::plan(&view, &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0])
    };
    let host = plan(json!({"hostPath": {"path": "/data", "type": "Directory"}}));
    assert_eq!(host.kind, VolumeKind::HostPath { type_: "Directory".into() });
    assert_eq!((host.path.to_str(), host.name.as_str(), host.volume.as_str()), (Some("/data"), "pv-1", "v"));
    let local = plan(json!({"local": {"path": "/disk"}}));
    assert_eq!(local.kind, VolumeKind::Local { source: "/disk".into(), is_read_only: false });
    assert!(local.path.ends_with("pods/u-1/volumes/kubernetes.io~local-volume/pv-1"));
    assert_eq!(local.fs_group, Some(7));
    let device = plan(json!({"local": {"path": "/dev/sdx"}, "volumeMode": "Block"}));
    let VolumeKind::Device { source, map } = &device.kind else { panic!("{:?}", device.kind) };
    assert_eq!((source.to_str(), map.pod.as_str()), (Some("/dev/sdx"), "u-1"));
    assert!(map.global.ends_with("plugins/kubernetes.io~local-volume/volumeDevices/pv-1"), "{map:?}");
    assert!(device.path.ends_with("pods/u-1/volumeDevices/kubernetes.io~local-volume/pv-1"), "{:?}", device.path);
    let nfs = json!({"nfs": {"server": "fd00::1", "path": "/x", "readOnly": true}, "mountOptions": ["vers=4", "hard"]});
    let nfs = plan(nfs);
    let options = ["hard", "ro", "vers=4"].map(str::to_owned).to_vec();
    assert_eq!(nfs.kind, VolumeKind::Nfs { source: "[fd00::1]:/x".into(), options });
    assert!(nfs.path.ends_with("volumes/kubernetes.io~nfs/pv-1") && nfs.fs_group.is_none());
    let elsewhere = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-b"]});
    let elsewhere = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [elsewhere]}]}});
    for (spec, part) in [
        (json!({"local": {"path": "/disk"}, "nodeAffinity": elsewhere}), "no matching NodeSelectorTerms"),
        (json!({"fc": {}}), "fc are not supported"),
        (json!({"hostPath": {"path": "/dev/x"}, "volumeMode": "Block"}), "volumeMode Block"),
    ] {
        match plan(spec.clone()).kind {
            VolumeKind::Refused { message } => assert!(message.contains(part), "{spec}: {message}"),
            other => panic!("{spec}: {other:?}"),
        }
    }
}

#[test]
fn a_pod_needs_what_it_names_and_a_static_one_nothing_of_its_own() {
    let pod = sample::pod_with(
        json!({
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}},
                {"name": "B", "value": "set", "valueFrom": {"secretKeyRef": {"name": "unused", "key": "k"}}},
            ],
            "envFrom": [{"secretRef": {"name": "s1"}}],
        }),
        json!({
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "volumes": [
                {"name": "e", "ephemeral": {}},
                {"name": "p", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"clusterTrustBundle": {"signerName": "example.com/s", "path": "p",
                        "labelSelector": {"matchLabels": {"a": "b"}}}},
                ]}},
            ],
        }),
    );
    let services = Need::Services { namespace: "default".into() };
    let wanted: Needs = [
        services.clone(),
        Need::ConfigMap(named("m1")),
        Need::Secret(named("s1")),
        Need::Secret(named("pull")),
        Need::Claim(named("web-e")),
        Need::Token(TokenNeed {
            account: named("robot"),
            audience: None,
            expiration_secs: 3600,
            pod_name: "web".into(),
            pod_uid: "u-1".into(),
        }),
        Need::TrustAnchors(AnchorsNeed::Signed { signer: "example.com/s".into(), selector: Some("a=b".into()) }),
    ]
    .into();
    assert_eq!(needs(&pod, Source::Api, &node(), &Inputs::default()), wanted);
    assert_eq!(needs(&pod, Source::File, &node(), &Inputs::default()), Needs::from([services]));
    assert_eq!(needs(&pod, Source::Api, &sample::node(), &Inputs::default()), Needs::new());
}

/// A pod with a claim on a volume of the driver `d`, and what is known in turn.
#[test]
fn a_volume_of_a_driver_waits_for_driver_attachment_and_secret() {
    let pod = sample::pod_with(
        json!({}),
        json!({"securityContext": {"fsGroup": 7}, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
    );
    let volume = &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0];
    let spec = json!({"csi": {"driver": "d", "volumeHandle": "h", "fsType": "ext4", "volumeAttributes": {"a": "b"},
        "nodeStageSecretRef": {"namespace": "kube-system", "name": "s"}}, "accessModes": ["ReadWriteOnce"]});
    let claim = Claim {
        claim: v1::PersistentVolumeClaim::default(),
        volume: serde_json::from_value(json!({"metadata": {"name": "pv-1"}, "spec": spec})).expect("a volume"),
    };
    let mut got = std::collections::BTreeMap::new();
    let now = |got: &std::collections::BTreeMap<Need, Got>| {
        let needs = needs(&pod, Source::Api, &node(), &Inputs::new(got.clone()));
        needs.into_iter().filter(|n| !matches!(n, Need::Services { .. })).collect::<Vec<_>>()
    };
    let of_claim = Need::Claim(named("c"));
    assert_eq!(now(&got), std::slice::from_ref(&of_claim));
    got.insert(of_claim.clone(), Got::Claim(Arc::new(claim)));
    let of_secret = Need::Secret(ObjectName { namespace: "kube-system".into(), name: "s".into() });
    assert_eq!(now(&got), [of_secret.clone(), of_claim.clone(), Need::CsiDriver("d".into())]);
    got.insert(
        Need::CsiDriver("d".into()),
        Got::CsiDriver(Arc::new(CsiDriver { wants_pod: true, ..CsiDriver::default() })),
    );
    let last = now(&got).pop().expect("another need");
    // sha256 of "hdnode-a".
    let wanted = "csi-826f739afe3efaad47702ed6689e0986975136153c00360604b86bb5e3d95f00";
    assert!(matches!(&last, Need::Attachment(a) if a.name == wanted && a.driver == "d"), "{last:?}");
    got.insert(last, Got::Attachment(Arc::new([("device".to_owned(), "/dev/x".to_owned())].into())));
    let (_, secret) = secret("s", &[("key", b"value")]);
    got.insert(of_secret, secret);
    let (inputs, node) = (Inputs::new(got), node());
    let view = View { pod: &pod, node: &node, pod_ips: &[], inputs: &inputs };
    let plan = volumes::plan(&view, volume);
    let VolumeKind::Csi(csi) = &plan.kind else { panic!("{:?}", plan.kind) };
    assert!(plan.path.ends_with("pods/u-1/volumes/kubernetes.io~csi/pv-1/mount"), "{:?}", plan.path);
    assert_eq!((plan.fs_group, csi.publish_context["device"].as_str()), (Some(7), "/dev/x"));
    assert_eq!((csi.attributes["a"].as_str(), csi.attributes["csi.storage.k8s.io/pod.uid"].as_str()), ("b", "u-1"));
    assert_eq!(csi.stage_secrets["key"], "value");
    assert!(!format!("{plan:?}").contains("value"), "secrets are not shown");
}
