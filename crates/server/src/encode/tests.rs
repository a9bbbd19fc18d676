use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::pod_json;
use rubelet_api::v1;

/// The pods that upstream's kubelet showed, with places held for times.
fn recordings() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut found = Vec::new();
    for folder in ["pods", "pods-v2"] {
        for entry in std::fs::read_dir(golden.join(folder)).unwrap() {
            found.push(entry.unwrap().path().join("pod.json"));
        }
    }
    found.sort();
    found
}

#[test]
fn pods_are_printed_as_upstream_prints_them() {
    let recordings = recordings();
    assert_eq!(recordings.len(), 41, "some recordings are missing");
    for path in recordings {
        let text = std::fs::read_to_string(&path).unwrap().replace("<time>", "2026-01-02T03:04:05Z");
        let recorded: Value = serde_json::from_str(&text).unwrap();
        let pod: v1::Pod = serde_json::from_value(recorded.clone()).unwrap();
        assert_same(&pod_json(&pod), &recorded, &path.display().to_string());
    }
}

/// Names the place of a difference: a whole pod is too long to read.
fn assert_same(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let place = format!("{place} .{name}");
                match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => assert_same(a, b, &place),
                    (a, b) => panic!("{place}: ours {a:?}, upstream's {b:?}"),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_same(a, b, &format!("{place}[{i}]")));
        }
        (a, b) => assert_eq!(a, b, "{place}"),
    }
}

fn printed(pod: Value) -> Value {
    pod_json(&serde_json::from_value(pod).unwrap())
}

#[test]
fn a_pod_without_anything() {
    assert_eq!(pod_json(&v1::Pod::default()), json!({ "metadata": {}, "spec": {}, "status": {} }));
}

#[test]
fn empty_values_go_where_go_leaves_them_out() {
    let spec = json!({
        "hostNetwork": false,
        "restartPolicy": "",
        "securityContext": {},
        "nodeSelector": {},
        "terminationGracePeriodSeconds": 0,
        "volumes": [{ "name": "v", "emptyDir": { "medium": "" } }, { "name": "h", "hostPath": { "path": "/", "type": "" } }],
        "containers": [{
            "name": "c",
            "image": "i",
            "env": [{ "name": "EMPTY", "value": "" }],
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": false }],
            "ports": [{ "containerPort": 0, "hostPort": 0 }],
            "stdin": false,
            "securityContext": { "privileged": false, "runAsUser": 0 },
            "livenessProbe": { "httpGet": { "path": "", "port": 1, "httpHeaders": [{ "name": "X", "value": "" }] } },
        }],
    });
    let printed = printed(json!({ "metadata": { "name": "a", "labels": { "empty": "" } }, "spec": spec }));
    assert_eq!(printed["metadata"], json!({ "name": "a", "labels": { "empty": "" } }));
    assert_eq!(
        printed["spec"],
        json!({
            "securityContext": {},
            "terminationGracePeriodSeconds": 0,
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "h", "hostPath": { "path": "/", "type": "" } }],
            "containers": [{
                "name": "c",
                "image": "i",
                "env": [{ "name": "EMPTY" }],
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
                "ports": [{ "containerPort": 0 }],
                "securityContext": { "privileged": false, "runAsUser": 0 },
                "livenessProbe": { "httpGet": { "port": 1, "httpHeaders": [{ "name": "X", "value": "" }] } },
                "resources": {},
            }],
        })
    );
}

#[test]
fn users_keys_are_left_alone() {
    let labels = json!({ "containers": "", "env": "", "conditions": "" });
    let printed = printed(json!({ "metadata": { "labels": labels.clone(), "annotations": labels.clone() } }));
    assert_eq!(printed["metadata"], json!({ "annotations": labels.clone(), "labels": labels }));
}

#[test]
fn what_go_always_prints_is_printed() {
    let status = json!({
        "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 0 } },
        }],
    });
    let env = json!([{ "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } }]);
    let container = json!({ "name": "c", "env": env });
    let spec = json!({ "containers": [], "initContainers": [container], "ephemeralContainers": [{ "name": "e" }] });
    let printed = printed(json!({ "metadata": {}, "spec": spec, "status": status }));
    assert_eq!(
        printed["status"],
        json!({
            "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null }],
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "lastState": {},
                "state": { "terminated": { "exitCode": 0, "startedAt": null, "finishedAt": null } },
            }],
        })
    );
    assert_eq!(printed["spec"]["ephemeralContainers"], json!([{ "name": "e", "resources": {} }]));
    let field = &printed["spec"]["initContainers"][0]["env"][0]["valueFrom"]["resourceFieldRef"];
    assert_eq!(field, &json!({ "resource": "limits.cpu", "divisor": "0" }));
}
