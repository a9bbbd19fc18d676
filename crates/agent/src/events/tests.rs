//! On a real API server: the one of the kubeconfig that `RUBELET_TEST_KUBECONFIG` names, as a user who may do everything.

use rubelet_apiserver::{DeleteOptions, Path, Selector, Settings};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;

fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("RUBELET_TEST_KUBECONFIG") else {
        eprintln!("not run: RUBELET_TEST_KUBECONFIG is not set");
        return None;
    };
    let settings = Settings::from_kubeconfig(std::path::Path::new(&path)).expect("a kubeconfig");
    Some(Client::connect(settings).expect("a client"))
}

fn pod(name: &str) -> v1::Pod {
    let uid = format!("{name}-{}", std::process::id());
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default", "uid": uid}})).expect("a pod")
}

fn event(field_path: &str, reason: &str, message: &str) -> PodEvent {
    PodEvent {
        type_: "Normal",
        reason: reason.to_owned(),
        field_path: field_path.to_owned(),
        message: message.to_owned(),
        annotations: BTreeMap::new(),
    }
}

/// The events about an object, once they are as wanted.
async fn until(client: &Client, selector: &str, is_it: impl Fn(&[v1::Event]) -> bool) -> Vec<v1::Event> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let listed = client.list(&Path::within::<v1::Event>("default"), &Selector::fields(selector)).await;
        let items = listed.expect("a list").items;
        if is_it(&items) {
            return items;
        }
        assert!(Instant::now() < deadline, "{selector}: {items:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn has_count(count: i32) -> impl Fn(&[v1::Event]) -> bool {
    move |events| events.iter().any(|event| event.count == Some(count))
}

#[tokio::test]
async fn a_real_server_has_one_object_of_what_repeats() {
    let Some(client) = client() else { return };
    let (life, _end) = Life::new();
    let events = Events::start(EventSettings { client: client.clone(), seed: 1 }, "node-a", Clock::start(), &life);
    let web = pod("web");
    let selector = format!("involvedObject.uid={}", web.metadata.uid.as_deref().expect("a UID"));
    let started = event("spec.containers{main}", "Started", "Container started");
    for _ in 0..3 {
        events.tell(&web, &started);
    }
    events.tell(&web, &event("", "SandboxChanged", "Pod sandbox changed."));
    let told = until(&client, &selector, |told| told.len() == 2 && has_count(3)(told)).await;
    let told = told.into_iter().find(|e| e.count == Some(3)).expect("as awaited");
    let name = told.metadata.name.clone().expect("a name");
    let (stem, nanos) = name.split_once('.').expect("a stem and a time");
    assert_eq!(stem, "web");
    assert!(i64::from_str_radix(nanos, 16).is_ok(), "{name}");
    let mut shown = serde_json::to_value(&told).expect("JSON");
    for part in ["metadata", "firstTimestamp", "lastTimestamp"] {
        assert_ne!(shown[part], Value::Null, "{part}");
        shown[part] = Value::Null;
    }
    let about = json!({
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web", "uid": web.metadata.uid,
        "fieldPath": "spec.containers{main}"});
    assert_eq!(
        shown,
        json!({
            "kind": "Event", "apiVersion": "v1", "metadata": null, "involvedObject": about, "reason": "Started",
            "message": "Container started", "source": {"component": "kubelet", "host": "node-a"}, "firstTimestamp": null,
            "lastTimestamp": null, "count": 3, "type": "Normal", "reportingComponent": "kubelet",
            "reportingInstance": "node-a"})
    );

    // The server forgets events; the next one brings it back with what is known.
    let path = Path::to::<v1::Event>("default", &name);
    client.delete(&path, &DeleteOptions::default()).await.expect("it goes");
    events.tell(&web, &started);
    let again = until(&client, &selector, has_count(4)).await;
    let again = again.iter().find(|e| e.count == Some(4)).expect("as awaited");
    assert_eq!((again.metadata.name.as_ref(), &again.first_timestamp), (Some(&name), &told.first_timestamp));
}

#[tokio::test]
async fn a_real_server_has_one_object_of_many_that_are_similar() {
    let Some(client) = client() else { return };
    let (life, _end) = Life::new();
    let events = Events::start(EventSettings { client: client.clone(), seed: 1 }, "node-a", Clock::start(), &life);
    let many = pod("many");
    let selector = format!("involvedObject.uid={}", many.metadata.uid.as_deref().expect("a UID"));
    for n in 0..15 {
        events.tell(&many, &event("", "Unhealthy", &format!("probe {n}")));
    }
    let told = until(&client, &selector, has_count(6)).await;
    assert_eq!(told.len(), 10);
    let combined = told.iter().find(|e| e.count == Some(6)).expect("as awaited");
    assert_eq!(combined.message.as_deref(), Some("(combined from similar events): probe 14"));
}

#[tokio::test]
async fn a_real_server_has_a_nodes_events_in_the_default_namespace() {
    let Some(client) = client() else { return };
    let (life, _end) = Life::new();
    let name = format!("node-{}", std::process::id());
    let events = Events::start(EventSettings { client: client.clone(), seed: 1 }, &name, Clock::start(), &life);
    events.tell_of_node(&name, "Normal", "Starting", "Starting kubelet.");
    let selector = format!("involvedObject.kind=Node,involvedObject.name={name}");
    let told = until(&client, &selector, has_count(1)).await;
    let about = json!({"apiVersion": "v1", "kind": "Node", "name": name});
    assert_eq!(serde_json::to_value(&told[0].involved_object).expect("JSON"), about);
}

/// Time that stands still but for what is waited for: the address is refused by the kernel on the spot, since an answer of a
/// network, even of loopback, would be waited for while the clock runs ahead.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_holds_nobody_up() {
    let client = Client::connect(Settings::new("https://224.0.0.1:443".to_owned())).expect("a client");
    let (life, _end) = Life::new();
    let events = Events::start(EventSettings { client, seed: 1 }, "node-a", Clock::start(), &life);
    let began = Instant::now();
    for n in 0..2 * QUEUE {
        events.tell(&pod(&format!("p{n}")), &event("", "Started", "Container started"));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    let queue = events.queue.expect("a queue");
    assert_eq!(queue.capacity(), 0);
    // The first is given up after 12 tries: it and the one that is tried then have left the queue.
    while queue.capacity() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    let waited = began.elapsed();
    assert!((Duration::from_secs(100)..=Duration::from_secs(115)).contains(&waited), "{waited:?}");
}
