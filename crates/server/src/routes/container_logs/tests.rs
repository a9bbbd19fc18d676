use serde_json::{Value, json};

use super::*;
use crate::view::shown::{Shown, healthy, pod_of};

fn view(statuses: Value) -> Shown {
    let pod = pod_of(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        "spec": {
            "containers": [{ "name": "c" }],
            "initContainers": [{ "name": "i" }],
            "ephemeralContainers": [{ "name": "e" }],
        },
        "status": statuses,
    }));
    Shown { pods: vec![pod], ..healthy() }
}

fn of_main(state: Value, last: Value) -> Value {
    json!({ "containerStatuses": [{
        "name": "c", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "containerID": "containerd://now",
        "state": state, "lastState": last,
    }] })
}

fn ended(id: &str) -> Value {
    json!({ "terminated": { "exitCode": 0, "containerID": id } })
}

fn refusal(view: &Shown, pod: &str, container: &str, query: &str) -> (u16, String) {
    match begin(view, "ns", pod, container, Query::parse(query)).unwrap_err() {
        Refusal::Asked(status, why) => (status.as_u16(), why),
        Refusal::NoLog(why) => (400, why),
    }
}

#[test]
fn what_is_not_there_is_refused_in_upstreams_words() {
    let view = view(json!({}));
    for (pod, container, query, status, why) in [
        ("p", "c", "tailLines=x", 400, r#"{"message": "Unable to decode query."}"#),
        ("nosuch", "c", "limitBytes=0", 422, r#"{"message": "Invalid request."}"#),
        ("nosuch", "c", "", 404, r#"pod "nosuch" does not exist"#),
        ("p", "nosuch", "", 404, r#"container "nosuch" not found in pod "p""#),
        (
            "p",
            "c",
            "stream=Stdout",
            400,
            r#"unable to return the given log stream: "Stdout". Please enable PodLogsQuerySplitStreams feature gate in kubelet"#,
        ),
        ("p", "c", "", 400, r#"container "c" in pod "p" is not available"#),
        ("p", "i", "", 400, r#"container "i" in pod "p" is not available"#),
        ("p", "e", "stream=All", 400, r#"container "e" in pod "p" is not available"#),
    ] {
        assert_eq!(refusal(&view, pod, container, query), (status, why.to_owned()), "{pod} {container} {query}");
    }
    let mut other = view.clone();
    other.premises.switches.splits_log_streams = true;
    assert!(refusal(&other, "p", "c", "stream=Stdout").1.contains("not available"));
    let elsewhere = begin(&view, "other", "p", "c", Query::default()).unwrap_err();
    assert!(matches!(elsewhere, Refusal::Asked(StatusCode::NOT_FOUND, _)), "{elsewhere:?}");
}

#[test]
fn a_state_says_which_log_or_why_none() {
    let running = json!({ "running": {} });
    let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
    let none = json!({});
    let what = r#"container "c" in pod "p""#;
    for (state, last, query, wanted) in [
        (running.clone(), none.clone(), "", Ok("containerd://now")),
        (running.clone(), ended("containerd://old"), "", Ok("containerd://now")),
        (running.clone(), ended("containerd://old"), "previous=true", Ok("containerd://old")),
        (
            running.clone(),
            none.clone(),
            "previous=true",
            Err(r#"previous terminated container "c" in pod "p" not found"#.to_owned()),
        ),
        (
            running,
            ended(""),
            "previous=true",
            Err(r#"previous terminated container "c" in pod "p" not found"#.to_owned()),
        ),
        (ended("containerd://this"), none.clone(), "", Ok("containerd://this")),
        (ended(""), ended("containerd://old"), "", Ok("containerd://old")),
        (ended(""), none.clone(), "", Err(format!("{what} is terminated"))),
        (waiting("CrashLoopBackOff"), ended("containerd://old"), "", Ok("containerd://old")),
        (waiting("CrashLoopBackOff"), ended(""), "", Err(format!("{what} is terminated"))),
        (waiting("ErrImagePull"), none.clone(), "", Err(format!("{what} is waiting to start: image can't be pulled"))),
        (
            waiting("ImagePullBackOff"),
            none.clone(),
            "",
            Err(format!("{what} is waiting to start: trying and failing to pull image")),
        ),
        (waiting("ContainerCreating"), none.clone(), "", Err(format!("{what} is waiting to start: ContainerCreating"))),
        (none.clone(), none, "", Err(format!("{what} is waiting to start - no logs yet"))),
    ] {
        let view = view(of_main(state.clone(), last.clone()));
        let got = begin(&view, "ns", "p", "c", Query::parse(query));
        match wanted {
            Ok(id) => assert_eq!(got.unwrap().shown_id, id, "{state} {last} {query}"),
            Err(why) => assert_eq!(got.unwrap_err(), Refusal::NoLog(why), "{state} {last} {query}"),
        }
    }
}

#[test]
fn init_and_ephemeral_containers_have_logs() {
    let status = |name: &str| {
        json!([{ "name": name, "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
        "containerID": "containerd://it", "state": { "running": {} } }])
    };
    let view = view(json!({ "initContainerStatuses": status("i"), "ephemeralContainerStatuses": status("e") }));
    for name in ["i", "e"] {
        assert_eq!(begin(&view, "ns", "p", name, Query::default()).unwrap().shown_id, "containerd://it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_the_runtime_does_not_know_is_an_answer() {
    use http_body_util::BodyExt as _;
    let view = view(of_main(json!({ "running": {} }), json!({})));
    let desk = Desk::new(std::sync::Arc::new(view));
    let question = http::Request::builder().uri("/containerLogs/ns/p/c").body(None).unwrap();
    let response = answer(&desk, &question).await;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "unable to retrieve container logs for containerd://now");
}
