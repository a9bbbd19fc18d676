use serde_json::json;

use super::super::set_defaults;
use super::*;

fn messages(spec: serde_json::Value, gates: Gates) -> Vec<String> {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": spec});
    let mut pod: v1::Pod = serde_json::from_value(object).unwrap();
    set_defaults(&mut pod);
    validate(&pod, gates).iter().map(ToString::to_string).collect()
}

/// Everything that is rarely used, used right.
#[test]
fn a_rich_pod_is_fine() {
    let spec = json!({
        "restartPolicy": "OnFailure", "activeDeadlineSeconds": 5, "hostUsers": false, "subdomain": "s", "hostname": "h",
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["fd00::1"], "searches": [".", "_tcp.a.b."], "options": [{"name": "ndots"}]},
        "hostAliases": [{"ip": "::1", "hostnames": ["a.b"]}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v"}, {"key": "k", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 5}],
        "resources": {"limits": {"cpu": "4"}},
        "overhead": {"cpu": "250m"},
        "os": {"name": "linux"},
        "readinessGates": [{"conditionType": "example.com/ready"}],
        "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}], "fsGroup": 0,
            "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always",
            "startupProbe": {"tcpSocket": {"port": "http"}}, "lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}],
        "containers": [{"name": "a", "image": "i", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
            "ports": [{"containerPort": 53, "protocol": "UDP", "hostPort": 53}, {"containerPort": 53, "hostPort": 53}],
            "env": [{"name": "a.b-c d", "value": "x"}, {"name": "E", "valueFrom": {"fieldRef": {"fieldPath":
                "metadata.annotations['Example.com/X']"}}}, {"name": "F", "valueFrom": {"fileKeyRef": {"key": "K",
                "path": "a/b", "volumeName": "v"}}}, {"name": "H", "valueFrom": {"resourceFieldRef":
                {"resource": "limits.hugepages-2Mi"}}}],
            "resources": {"limits": {"cpu": "1", "hugepages-2Mi": "4Mi", "example.com/gpu": "2"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "securityContext": {"procMount": "Unmasked", "allowPrivilegeEscalation": false},
            "volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "x..y/z"},
                {"name": "v", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Enabled"},
                {"name": "i", "mountPath": "/c"}]}],
        "volumes": [{"name": "v"}, {"name": "i", "image": {"reference": "r:1"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "..data2/..x", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "n", "nfs": {"server": "s", "path": "/"}},
            {"name": "s", "iscsi": {"targetPortal": "p", "iqn": "iqn.2015-02.example:x", "lun": 0}}],
    });
    let mut expected: Vec<String> = Vec::new();
    let path = "spec.volumes[2].downwardAPI.items[0].path";
    expected.push(format!("{path}: Invalid value: \"..data2/..x\": must not start with '..'"));
    assert_eq!(messages(spec, Gates::default()), expected);
}

#[test]
fn gates_change_what_is_valid() {
    let spec = json!({"hostnameOverride": "a", "resources": {"limits": {"cpu": "1"}}, "containers": [
        {"name": "a", "image": "i", "restartPolicy": "Never", "lifecycle": {"stopSignal": "SIGINT"}}]});
    let closed = Gates {
        container_restart_rules: false,
        pod_level_resources: false,
        hostname_override: false,
        ..Gates::default()
    };
    assert_eq!(
        messages(spec.clone(), closed),
        [
            "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
            "spec.containers[0].lifecycle.stopSignal: Forbidden: needs the feature gate ContainerStopSignals",
            "spec.resources: Forbidden: needs the feature gate PodLevelResources",
            "spec.hostnameOverride: Forbidden: needs the feature gate HostnameOverride",
        ]
    );
    let mut open = spec;
    open["os"] = json!({"name": "linux"});
    assert!(messages(open, Gates { container_stop_signals: true, ..Gates::default() }).is_empty());
}

#[test]
fn references_without_the_gate_stay_few() {
    let spec = json!({"serviceAccountName": "s", "resourceClaims": [{"name": "c"}], "containers": [],
        "volumes": [{"name": "p", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}]});
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec});
    let pod: v1::Pod = serde_json::from_value(object).unwrap();
    let found = |prevent| super::super::references(&pod, prevent).iter().map(ToString::to_string).collect::<Vec<_>>();
    let always = [
        "spec.resourceClaims: static pods may not reference resourceclaims",
        "spec.volumes[0].projected.sources[0].clusterTrustBundle: static pods may not reference clustertrustbundles",
    ];
    assert_eq!(found(false), always);
    assert_eq!(found(true).len(), 3);
}

#[test]
fn nobody_is_a_guest_from_the_start() {
    let spec =
        json!({"containers": [{"name": "a", "image": "i"}], "ephemeralContainers": [{"name": "e", "image": "i"}]});
    let expected = ["spec.ephemeralContainers: Forbidden: cannot be set on create"];
    assert_eq!(messages(spec, Gates::default()), expected);
}
