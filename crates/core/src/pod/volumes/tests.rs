use serde_json::{Value, json};

use super::{View, path, plan};
use crate::pod::needs::Inputs;
use crate::pod::step::{FilesPlugin, VolumeFile, VolumeKind, VolumePlan};
use crate::sample::{node, pod_with};

fn one(volume: Value, container: Value, spec: Value) -> VolumePlan {
    let mut volume = volume;
    volume["name"] = "v".into();
    let mut spec = spec;
    spec["volumes"] = json!([volume]);
    let mut pod = pod_with(container, spec);
    pod.metadata.labels = Some([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "x\"y".to_owned())].into());
    let inputs = Inputs::default();
    let view = View { pod: &pod, node: &node(), pod_ips: &[], inputs: &inputs };
    plan(&view, &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0])
}

fn kind(volume: Value) -> VolumeKind {
    one(volume, json!({}), json!({})).kind
}

#[test]
fn a_memory_volume_is_as_large_as_the_least_bound() {
    let memory = |limit: Option<&str>| json!({ "emptyDir": { "medium": "Memory", "sizeLimit": limit } });
    let limited = json!({ "resources": { "limits": { "memory": "64Mi" } } });
    for (volume, container, bytes) in [
        (memory(None), json!({}), 7 << 30),
        (memory(Some("16Mi")), json!({}), 16 << 20),
        (memory(None), limited.clone(), 64 << 20),
        (memory(Some("16Mi")), limited.clone(), 16 << 20),
        (memory(Some("1Gi")), limited, 64 << 20),
        (memory(Some("0")), json!({}), 7 << 30),
    ] {
        assert_eq!(
            one(volume.clone(), container, json!({})).kind,
            VolumeKind::MemoryDir { size_bytes: Some(bytes) },
            "{volume}"
        );
    }
    assert_eq!(kind(json!({ "emptyDir": {} })), VolumeKind::EmptyDir);
    assert_eq!(kind(json!({})), VolumeKind::EmptyDir);
}

#[test]
fn what_is_counted_by_the_file_system_belongs_to_pods_with_users_of_their_own() {
    let kind = |is_on: bool, medium: &str, spec: Value| {
        let mut node = node();
        node.settings.gates.local_storage_capacity_isolation_fs_quota_monitoring = is_on;
        let mut spec = spec;
        spec["volumes"] = json!([{ "name": "v", "emptyDir": { "medium": medium } }]);
        let pod = pod_with(json!({}), spec);
        let view = View { pod: &pod, node: &node, pod_ips: &[], inputs: &Inputs::default() };
        plan(&view, &pod.spec.as_ref().expect("a spec").volumes.as_ref().expect("volumes")[0]).kind
    };
    let own_users = || json!({ "hostUsers": false });
    assert_eq!(kind(true, "", own_users()), VolumeKind::CountedDir);
    assert_eq!(kind(false, "", own_users()), VolumeKind::EmptyDir);
    assert_eq!(kind(true, "", json!({ "hostUsers": true })), VolumeKind::EmptyDir);
    assert_eq!(kind(true, "", json!({})), VolumeKind::EmptyDir);
    assert_ne!(kind(true, "Memory", own_users()), VolumeKind::CountedDir);
}

#[test]
fn a_huge_page_volume_needs_one_size_that_the_pod_asks_for() {
    let asking = |sizes: &[&str]| {
        let amounts: serde_json::Map<String, Value> =
            sizes.iter().map(|s| (format!("hugepages-{s}"), json!("2Gi"))).collect();
        json!({ "resources": { "requests": amounts } })
    };
    let of = |medium: &str, container| one(json!({ "emptyDir": { "medium": medium } }), container, json!({})).kind;
    assert_eq!(of("HugePages", asking(&["2Mi"])), VolumeKind::HugePages { page_size_bytes: 2 << 20 });
    assert_eq!(of("HugePages-1Gi", asking(&["2Mi", "1Gi"])), VolumeKind::HugePages { page_size_bytes: 1 << 30 });
    for (medium, container) in [
        ("HugePages", asking(&[])),
        ("HugePages", asking(&["2Mi", "1Gi"])),
        ("HugePages-1Gi", asking(&["2Mi"])),
        ("Bubble", asking(&[])),
    ] {
        assert!(matches!(of(medium, container), VolumeKind::Refused { .. }), "{medium}");
    }
}

#[test]
fn a_downward_volume_has_the_files_that_it_names() {
    let items = json!([
        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        { "path": "deep//name", "fieldRef": { "fieldPath": "metadata.name" }, "mode": 0o400 },
        { "path": "mem", "resourceFieldRef": { "containerName": "a", "resource": "limits.memory", "divisor": "1Mi" } },
    ]);
    let file =
        |path: &str, content: &str, mode| VolumeFile { path: path.into(), content: content.into(), mode, owner: None };
    let files = vec![
        file("deep/name", "web", 0o400),
        file("labels", "a=\"x\\\"y\"\nb=\"2\"", 0o440),
        file("mem", "7168", 0o440),
    ];
    assert_eq!(
        kind(json!({ "downwardAPI": { "defaultMode": 0o440, "items": items } })),
        VolumeKind::Files { plugin: FilesPlugin::DownwardApi, files: files.clone(), default_mode: 0o440 }
    );
    assert_eq!(
        kind(json!({ "projected": { "defaultMode": 0o440, "sources": [{ "downwardAPI": { "items": items } }] } })),
        VolumeKind::Files { plugin: FilesPlugin::Projected, files, default_mode: 0o440 }
    );
    let unknown = json!({ "downwardAPI": { "items": [{ "path": "x", "fieldRef": { "fieldPath": "spec.bogus" } }] } });
    assert_eq!(kind(unknown), VolumeKind::Refused { message: "unsupported fieldPath: spec.bogus".into() });
}

#[test]
fn kinds_that_are_not_built_say_so() {
    for (volume, part) in [
        (json!({ "configMap": { "name": "c" } }), "no kubeClient defined"),
        (json!({ "secret": { "secretName": "s" } }), "no kubeClient defined"),
        (json!({ "gitRepo": { "repository": "r" } }), "git-repo volume plugin has been disabled"),
        (json!({ "fc": {} }), "not supported by rubelet"),
        (json!({ "cephfs": { "monitors": [] } }), "no volume plugin matched"),
        (json!({ "projected": { "sources": [{ "secret": { "name": "s" } }] } }), "a secret volume needs an API server"),
    ] {
        match kind(volume.clone()) {
            VolumeKind::Refused { message } => assert!(message.contains(part), "{volume}: {message}"),
            other => panic!("{volume}: {other:?}"),
        }
    }
}

#[test]
fn volumes_have_upstreams_paths_and_the_group_where_it_applies() {
    let group = json!({ "securityContext": { "fsGroup": 4000, "fsGroupChangePolicy": "OnRootMismatch" } });
    for (volume, wanted, fs_group) in [
        (json!({ "emptyDir": {} }), "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~empty-dir/v", Some(4000)),
        (json!({ "downwardAPI": {} }), "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~downward-api/v", Some(4000)),
        (json!({ "projected": {} }), "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~projected/v", Some(4000)),
        (json!({ "hostPath": { "path": "/data" } }), "/data", None),
        (json!({ "secret": { "secretName": "s" } }), "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~secret/v", None),
    ] {
        let plan = one(volume.clone(), json!({}), group.clone());
        assert_eq!((plan.path.to_str(), plan.fs_group), (Some(wanted), fs_group), "{volume}");
        assert_eq!(plan.fs_group_on_root_mismatch, fs_group.is_some());
    }
    let pod = pod_with(json!({}), json!({}));
    let volume = serde_json::from_value(json!({ "name": "x", "emptyDir": {} })).expect("a volume");
    assert!(path(&pod, &node(), &volume, &Inputs::default()).ends_with("kubernetes.io~empty-dir/x"));
}
