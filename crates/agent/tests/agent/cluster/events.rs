//! What the API server is told happens to pods.

use std::collections::BTreeMap;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::{Path, Selector};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{NAMESPACE, Stage, phase};

/// The events about an object by their reasons, once there is one of this reason.
async fn told(stage: &Stage, uid: &str, reason: &str) -> BTreeMap<String, v1::Event> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let selector = Selector::fields(format!("involvedObject.uid={uid}"));
    loop {
        let listed =
            stage.client.list::<v1::Event>(&Path::within::<v1::Event>(NAMESPACE), &selector).await.expect("a list");
        let by_reason = listed.items.into_iter().map(|event| (event.reason.clone().unwrap_or_default(), event));
        let all: BTreeMap<String, v1::Event> = by_reason.collect();
        if all.contains_key(reason) {
            return all;
        }
        assert!(Instant::now() < deadline, "no event {reason}: {all:#?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_server_is_told_what_happens_to_its_pods_and_to_static_ones() {
    let Some(stage) = Stage::set("node-told").await else { return };
    let agent = stage.agent().await;
    stage.make("told", json!({}), &["serve"]).await;
    let pod = stage.running("told").await;
    let uid = pod.metadata.uid.as_deref().expect("a UID");
    let events = told(&stage, uid, "Started").await;
    assert_eq!(events.keys().collect::<Vec<_>>(), ["Created", "Pulled", "Started"]);
    let mut about = serde_json::to_value(&events["Started"].involved_object).expect("JSON");
    assert!(about.as_object_mut().expect("a map").remove("resourceVersion").is_some(), "{about}");
    assert_eq!(
        about,
        json!({
            "apiVersion": "v1", "kind": "Pod", "namespace": NAMESPACE, "name": "told", "uid": uid,
            "fieldPath": "spec.containers{app}"})
    );
    let source = serde_json::to_value(&events["Started"].source).expect("JSON");
    assert_eq!(source, json!({"component": "kubelet", "host": "node-told"}));

    // A static pod's are about its own UID, not about that of its mirror.
    let fixed = stage.fixed("fixed-told", "serve");
    let own = fixed.pod.metadata.uid.clone().expect("a UID");
    agent.wants(vec![fixed]).await;
    let events = told(&stage, &own, "Started").await;
    assert_eq!(events["Started"].involved_object.name.as_deref(), Some("fixed-told-node-told"));
    stage.end("told").await;
    stage.close();
}

#[tokio::test]
async fn a_pod_that_does_not_fit_is_refused_as_upstream_does() {
    let Some(stage) = Stage::set("node-full").await else { return };
    let _agent = stage.agent().await;
    let greedy = json!({"name": "app", "image": "app", "resources": {"requests": {"cpu": "100"}}});
    stage.make("greedy", json!({"spec": {"containers": [greedy]}}), &[]).await;
    let has_failed = |pod: Option<&v1::Pod>| pod.is_some_and(|pod| phase(pod) == "Failed");
    let pod = stage.until("it is refused", "greedy", has_failed).await.expect("it is there");
    let words = "Node didn't have enough resource: cpu, requested: 100000, used: 0, capacity: 4000";
    let status = pod.status.clone().expect("a status");
    assert_eq!(
        (status.reason.as_deref(), status.message.as_deref()),
        (Some("OutOfcpu"), Some(&*format!("Pod was rejected: {words}")))
    );
    let events = told(&stage, pod.metadata.uid.as_deref().expect("a UID"), "OutOfcpu").await;
    let event = &events["OutOfcpu"];
    assert_eq!((event.type_.as_deref(), event.message.as_deref()), (Some("Warning"), Some(words)));
    stage.end("greedy").await;
    stage.close();
}
