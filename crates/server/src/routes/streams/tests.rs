use http_body_util::BodyExt as _;
use rubelet_cri::Runtime as _;
use rubelet_testkit::FakeRuntime;
use serde_json::json;

use super::*;
use crate::view::shown::{Shown, healthy, pod_of};

fn view() -> Shown {
    let pod = pod_of(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "containers": [{ "name": "c", "tty": true }] },
    }));
    Shown { pods: vec![pod], ..healthy() }
}

/// A pod with one running container.
async fn run_pod(runtime: &FakeRuntime) {
    let labels = [
        ("io.kubernetes.pod.uid", "u-1"),
        ("io.kubernetes.pod.name", "p"),
        ("io.kubernetes.pod.namespace", "ns"),
        ("io.kubernetes.container.name", "c"),
    ];
    let labels: std::collections::BTreeMap<String, String> =
        labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let metadata = cri::PodSandboxMetadata { name: "p".into(), namespace: "ns".into(), uid: "u-1".into(), attempt: 0 };
    let sandbox = cri::PodSandboxConfig { metadata: Some(metadata), labels: labels.clone(), ..Default::default() };
    let id = runtime.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
    let image = cri::ImageSpec { image: "img".into(), ..Default::default() };
    let container = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(image),
        labels,
        ..Default::default()
    };
    let container = runtime.create_container(&id, container, sandbox).await.unwrap();
    runtime.start_container(&container).await.unwrap();
}

async fn ask(view: &Shown, method: &str, uri: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut question = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        question = question.header(*name, *value);
    }
    let question = question.body(None).unwrap();
    let response = match super::super::first_segment(uri.split('?').next().unwrap()) {
        "exec" => exec(view, question).await,
        "attach" => attach(view, question).await,
        "run" => run(view, &question).await,
        "portForward" => port_forward(view, question).await,
        _ => running_pods(view, &question).await,
    };
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

const WEB_SOCKET: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "websocket")];

#[tokio::test(start_paused = true)]
async fn refusals_before_anything_runs() {
    let none = "you must specify at least 1 of stdin, stdout, stderr";
    for (uri, status, body) in [
        ("/exec/ns/p/c", 400, none),
        ("/exec/ns/p/c?input=true&output=yes", 400, none),
        ("/exec/ns/p/c?tty=1&error=1", 400, none),
        ("/attach/ns/nosuch/c", 400, none),
        ("/exec/ns/nosuch/c?output=1", 404, "pod does not exist"),
        ("/exec/other/p/u-1/c?output=1", 404, "pod does not exist"),
        ("/attach/ns/nosuch/c?output=1", 404, "pod does not exist"),
        ("/exec/ns/p/c?output=1", 500, "container not found (\"c\")"),
        ("/exec/ns/p/u-1/c?output=1", 500, "container not found (\"c\")"),
        ("/attach/ns/p/c?output=1", 500, "container c not found in pod p_ns"),
        ("/portForward/ns/nosuch", 404, "pod does not exist"),
        ("/portForward/ns/p/other", 404, "pod not found"),
        ("/portForward/ns/p", 500, "pod not found (\"p_ns\")"),
    ] {
        for method in ["GET", "POST"] {
            assert_eq!(ask(&view(), method, uri, &[]).await, (status, body.to_owned()), "{uri}");
        }
    }
    assert_eq!(ask(&view(), "POST", "/run/ns/nosuch/c?cmd=ls", &[]).await, (404, "pod does not exist".into()));
    assert_eq!(ask(&view(), "POST", "/run/ns/p/c?cmd=ls", &[]).await, (500, "container not found (\"c\")".into()));
}

#[tokio::test(start_paused = true)]
async fn ports_of_older_web_sockets_are_checked() {
    for (query, why) in [
        ("", "query parameter \"port\" is required"),
        ("?port=", "query parameter \"port\" cannot be empty"),
        ("?port=x", "unable to parse \"x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax"),
        (
            "?port=1,70000",
            "unable to parse \"1,70000\" as a port: strconv.ParseUint: parsing \"70000\": value out of range",
        ),
        ("?port=0", "port \"0\" must be > 0"),
        ("?port=1&port=,", "unable to parse \",\" as a port: strconv.ParseUint: parsing \"\": invalid syntax"),
    ] {
        let uri = format!("/portForward/ns/p{query}");
        assert_eq!(ask(&view(), "GET", &uri, &WEB_SOCKET).await, (400, why.to_owned()), "{query}");
    }
    // A tunnel names its ports later.
    let tunnel = [WEB_SOCKET[0], WEB_SOCKET[1], ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")];
    assert_eq!(ask(&view(), "GET", "/portForward/ns/p", &tunnel).await.0, 500);
    assert_eq!(ports(&Query::parse("port=1,2&port=3")).unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_runtime_is_asked_about_what_runs() {
    let view = view();
    run_pod(&view.runtime).await;
    let refused = "rpc error: code = Unimplemented desc = ";
    for uri in
        ["/exec/ns/p/c?output=1&command=ls", "/exec/ns/p/u-1/c?input=1", "/attach/ns/p/c?output=1", "/portForward/ns/p"]
    {
        let (status, body) = ask(&view, "POST", uri, &[]).await;
        assert_eq!(status, 500, "{uri} {body}");
        assert!(body.starts_with(refused), "{uri} {body}");
    }
    let other = ask(&view, "POST", "/attach/ns/p/other/c?output=1", &[]).await;
    assert_eq!(other, (500, "pod p_ns not found".into()));
    assert_eq!(ask(&view, "POST", "/run/ns/p/c?cmd=ls+-l", &[]).await, (200, String::new()));
    let (status, body) = ask(&view, "GET", "/runningpods/", &[]).await;
    let wanted = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" },
        "spec": { "containers": [{ "name": "c", "image": "img", "resources": {} }] },
        "status": {},
    }] });
    assert_eq!((status, serde_json::from_str::<serde_json::Value>(&body).unwrap()), (200, wanted));
}

#[test]
fn a_terminal_has_no_second_output() {
    let wanted = |query: &str| streams(&Query::parse(query)).map_err(|_| ()).unwrap();
    let all = Wanted { stdin: true, stdout: true, stderr: true, resize: false };
    assert_eq!(wanted("input=1&output=1&error=1"), (all, false));
    assert_eq!(wanted("input=1&output=1&error=1&tty=1"), (Wanted { stderr: false, resize: true, ..all }, true));
}

#[test]
fn what_a_runtime_refuses_has_a_status() {
    let refused = |code| RuntimeError::Rpc { verb: "Exec", code, message: "m".into() };
    for (code, status) in [(Code::NotFound, 404), (Code::ResourceExhausted, 429), (Code::Unavailable, 500)] {
        let response = runtime_refusal(&refused(code));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
}

#[tokio::test]
async fn a_request_for_no_upgrade_is_refused() {
    let question = Request::builder().uri("/exec/ns/p/c").body(None).unwrap();
    let refused = *upgrading(question, "http://127.0.0.1:1/exec/x").unwrap_err();
    assert_eq!(refused.status(), 500);
    assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "Upgrade request required\n");
}
