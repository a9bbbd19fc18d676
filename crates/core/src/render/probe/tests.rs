use std::net::IpAddr;

use serde_json::{Value, json};

use super::{hook_how, probe_how};
use crate::pod::step::{ProbeHow, ProbeKind};
use crate::sample::pod_with;

fn how(probe: Value) -> ProbeHow {
    let container = json!({
        "ports": [{ "name": "web", "containerPort": 8080 }],
        "env": [{ "name": "A", "value": "1" }, { "name": "B", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        "livenessProbe": probe,
    });
    let pod = pod_with(container, json!({}));
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let probe = container.liveness_probe.as_ref().expect("a probe");
    probe_how(&pod, container, probe, ProbeKind::Liveness, &ips())
}

fn ips() -> [IpAddr; 1] {
    ["10.87.0.5".parse().expect("an address")]
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn an_http_probe_asks_the_pod_by_default_and_takes_port_names() {
    assert_eq!(
        how(json!({ "httpGet": { "port": "web", "path": "/healthz?full=1", "scheme": "HTTP" } })),
        ProbeHow::Http {
            scheme_https: false,
            host: "10.87.0.5".into(),
            port: 8080,
            path: "/healthz?full=1".into(),
            headers: pairs(&[("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")]),
        }
    );
    let headers = [("user-agent", "me"), ("ACCEPT", ""), ("x-one", "1"), ("X-One", "2"), ("Host", "web.test")];
    let headers: Vec<Value> = headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    assert_eq!(
        how(json!({ "httpGet": { "port": 443, "host": "example.test", "scheme": "HTTPS", "httpHeaders": headers } })),
        ProbeHow::Http {
            scheme_https: true,
            host: "example.test".into(),
            port: 443,
            path: "/".into(),
            headers: pairs(&[("User-Agent", "me"), ("X-One", "1"), ("X-One", "2"), ("Host", "web.test")]),
        }
    );
}

#[test]
fn other_probes_have_their_target_and_impossible_ones_say_why() {
    let invalid = |message: &str| ProbeHow::Invalid { message: message.into() };
    for (probe, wanted) in [
        (json!({ "tcpSocket": { "port": "web" } }), ProbeHow::Tcp { host: "10.87.0.5".into(), port: 8080 }),
        (json!({ "tcpSocket": { "port": "9000", "host": "h" } }), ProbeHow::Tcp { host: "h".into(), port: 9000 }),
        (
            json!({ "grpc": { "port": 50, "service": "s" } }),
            ProbeHow::Grpc { host: "10.87.0.5".into(), port: 50, service: "s".into() },
        ),
        (
            json!({ "exec": { "command": ["echo", "$(A)$(B)$(C)"] } }),
            ProbeHow::Exec { command: vec!["echo".into(), "1$(C)".into()] },
        ),
        (json!({ "httpGet": { "port": "nope" } }), invalid("couldn't find port: \"nope\"")),
        (json!({ "tcpSocket": { "port": 70000 } }), invalid("invalid port number: 70000")),
        (json!({ "grpc": { "port": 0 } }), invalid("invalid port number: 0")),
        (json!({}), invalid("missing probe handler for web_default(u-1):a (liveness probe)")),
    ] {
        assert_eq!(how(probe.clone()), wanted, "{probe}");
    }
}

#[test]
fn an_http_hook_names_itself_as_one() {
    let pod = pod_with(json!({ "lifecycle": { "preStop": { "httpGet": { "port": 80, "path": "stop" } } } }), json!({}));
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).and_then(|h| h.http_get.as_ref());
    match hook_how(container, hook.expect("a hook"), &ips()) {
        ProbeHow::Http { path, headers, .. } => {
            assert_eq!(path, "/stop");
            assert_eq!(headers[0], ("User-Agent".to_owned(), "kube-lifecycle/1.36".to_owned()));
        }
        other => panic!("{other:?}"),
    }
}
