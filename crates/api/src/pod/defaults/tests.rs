use serde_json::{Value, json};

use super::*;

/// The spec with defaults, of which `part` must be a part.
fn check(spec: Value, part: Value) {
    let mut pod: v1::Pod =
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec})).unwrap();
    set_defaults(&mut pod);
    let once = pod.clone();
    set_defaults(&mut pod);
    assert_eq!(pod, once, "a second time must change nothing");
    let spec = serde_json::to_value(&pod.spec).unwrap();
    assert_part(&spec, &part, "spec");
}

fn assert_part(whole: &Value, part: &Value, path: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                assert_part(whole.get(key).unwrap_or(&Value::Null), value, &format!("{path}.{key}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            for (nth, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_part(whole, part, &format!("{path}[{nth}]"));
            }
        }
        _ => assert_eq!(whole, part, "{path}"),
    }
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, expected) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.29", "IfNotPresent"),
        ("h:5000/nginx", "Always"),
        ("h:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "IfNotPresent"),
        ("nginx:latest@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "Always"),
        ("UPPER/Case:::", "IfNotPresent"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(containers::pull_policy(image), expected, "{image}");
    }
}

#[test]
fn probes_and_hooks() {
    check(
        json!({"containers": [{"name": "a",
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 9}},
            "lifecycle": {"preStop": {"httpGet": {"port": "x", "path": "/bye"}}}}]}),
        json!({"containers": [{
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3, "initialDelaySeconds": null},
            "readinessProbe": {"grpc": {"port": 9, "service": ""}},
            "lifecycle": {"preStop": {"httpGet": {"port": "x", "path": "/bye", "scheme": "HTTP"}}}}]}),
    );
}

#[test]
fn volumes() {
    check(
        json!({"containers": [], "volumes": [
            {"name": "none"}, {"name": "host", "hostPath": {"path": "/x"}}, {"name": "s", "secret": {"secretName": "x"}},
            {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}},
                    {"path": "c", "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu"}}]}}]}},
            {"name": "i", "image": {"reference": "data"}}]}),
        json!({"volumes": [
            {"emptyDir": {}}, {"hostPath": {"path": "/x", "type": ""}}, {"secret": {"defaultMode": 420}},
            {"projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1"}}, {"resourceFieldRef": {"divisor": "0"}}]}}]}},
            {"image": {"pullPolicy": "Always"}}]}),
    );
}

#[test]
fn requests_follow_from_limits() {
    check(
        json!({"initContainers": [{"name": "i", "resources": {"limits": {"cpu": "1500u"}}}],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]}),
        json!({"initContainers": [{"resources": {"limits": {"cpu": "2m"}, "requests": {"cpu": "2m"}}}],
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}),
    );
}

#[test]
fn requests_of_the_pod_follow_from_containers_then_limits() {
    check(
        json!({"resources": {"limits": {"cpu": "4", "memory": "1Gi"}},
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "first", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}, {"name": "b"}]}),
        json!({"resources": {"requests": {"cpu": "2100m", "memory": "1Gi"}}}),
    );
}

#[test]
fn ports_of_the_host_and_the_old_account_name() {
    check(
        json!({"hostNetwork": true, "serviceAccount": "old",
            "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}),
        json!({"serviceAccountName": "old", "serviceAccount": "old",
            "containers": [{"ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]}]}),
    );
}
