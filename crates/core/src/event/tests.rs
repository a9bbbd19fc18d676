use super::*;

fn at(secs: u64) -> Now {
    let wall = Wall::from_nanosecond(1_700_000_000_000_000_000 + i128::from(secs) * 1_000_000_000).expect("in range");
    Now { mono: Mono::from_secs(secs), wall }
}

fn pod() -> v1::Pod {
    serde_json::from_value(json!({"metadata":
        {"name": "web", "namespace": "shop", "uid": "u-1", "resourceVersion": "77"}}))
    .expect("a pod")
}

fn happening(reason: &str, message: &str, secs: u64) -> Happening {
    Happening {
        about: About::pod(&pod(), "spec.containers{main}"),
        type_: "Normal",
        reason: reason.to_owned(),
        message: message.to_owned(),
        annotations: BTreeMap::new(),
        at: at(secs).wall,
    }
}

fn tell(correlator: &mut Correlator, reason: &str, message: &str, secs: u64) -> Option<Told> {
    correlator.tell(happening(reason, message, secs), at(secs))
}

#[test]
fn the_first_is_an_object_as_upstream_writes_it() {
    let told = tell(&mut Correlator::new("node-a"), "Started", "Container started", 5).expect("it is told");
    assert_eq!(told.change, None);
    assert_eq!(
        serde_json::to_value(&told.event).expect("JSON"),
        json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": "web.17979cff602ff200", "namespace": "shop"},
            "involvedObject": {
                "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u-1", "apiVersion": "v1",
                "resourceVersion": "77", "fieldPath": "spec.containers{main}"},
            "reason": "Started", "message": "Container started",
            "source": {"component": "kubelet", "host": "node-a"},
            "firstTimestamp": "2023-11-14T22:13:25Z", "lastTimestamp": "2023-11-14T22:13:25Z",
            "count": 1, "type": "Normal", "reportingComponent": "kubelet", "reportingInstance": "node-a",
        })
    );
}

#[test]
fn events_of_a_node_are_in_the_default_namespace() {
    let about = About::node("node-a");
    let told = Correlator::new("node-a").tell(Happening { about, ..happening("Starting", "", 0) }, at(0));
    let event = serde_json::to_value(told.expect("it is told").event).expect("JSON");
    assert_eq!(event["metadata"]["namespace"], "default");
    assert_eq!(event["involvedObject"], json!({"kind": "Node", "name": "node-a", "apiVersion": "v1"}));
}

#[test]
fn the_same_again_is_a_higher_count() {
    let mut correlator = Correlator::new("node-a");
    let first = tell(&mut correlator, "Started", "Container started", 0).expect("it is told").event;
    let again = tell(&mut correlator, "Started", "Container started", 60).expect("it is told");
    assert_eq!(
        again.change,
        Some(json!({"count": 2, "lastTimestamp": "2023-11-14T22:14:20Z", "message": "Container started"}))
    );
    // Should it be forgotten, it is created with what is known.
    assert_eq!(again.event.metadata.name, first.metadata.name);
    assert_eq!(again.event.first_timestamp, first.first_timestamp);
    assert_eq!(again.event.count, Some(2));
    let third = tell(&mut correlator, "Started", "Container started", 61).expect("it is told");
    assert_eq!(third.change.expect("a change")["count"], 3);
}

#[test]
fn another_container_message_type_or_reason_is_another_event() {
    let mut correlator = Correlator::new("node-a");
    let base = happening("Started", "Container started", 0);
    let mut other = base.clone();
    other.about.field_path = "spec.containers{two}".to_owned();
    let variants = [
        other,
        Happening { message: "x".to_owned(), ..base.clone() },
        Happening { type_: "Warning", ..base.clone() },
        Happening { reason: "Created".to_owned(), ..base.clone() },
    ];
    assert_eq!(correlator.tell(base, at(0)).expect("it is told").change, None);
    let mut names = Vec::new();
    for variant in variants {
        let told = correlator.tell(variant, at(0)).expect("it is told");
        assert_eq!(told.change, None);
        names.push(told.event.metadata.name);
    }
    // All of the same nanosecond, each with a name of its own.
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4);
}

#[test]
fn the_tenth_similar_one_stands_for_all() {
    let mut correlator = Correlator::new("node-a");
    for n in 0..9 {
        let told = tell(&mut correlator, "Unhealthy", &format!("probe {n}"), n).expect("it is told");
        assert_eq!(told.event.message, Some(format!("probe {n}")));
    }
    let tenth = tell(&mut correlator, "Unhealthy", "probe 9", 9).expect("it is told");
    assert_eq!((tenth.event.message.as_deref(), tenth.change), (Some("(combined from similar events): probe 9"), None));
    assert_eq!(tenth.event.reporting_component, None);
    let next = tell(&mut correlator, "Unhealthy", "probe 10", 10).expect("it is told");
    assert_eq!(next.event.metadata.name, tenth.event.metadata.name);
    let change = next.change.expect("a change");
    assert_eq!((&change["count"], &change["message"]), (&json!(2), &json!("(combined from similar events): probe 10")));
    // One that is known stays on its own.
    let known = tell(&mut correlator, "Unhealthy", "probe 3", 11).expect("it is told");
    assert_eq!((known.event.message.as_deref(), known.event.count), (Some("probe 3"), Some(2)));
    // Another reason is another group, and after 10 min of rest all begins anew.
    let other = tell(&mut correlator, "Pulling", "probe 12", 12).expect("it is told");
    assert_eq!(other.event.message.as_deref(), Some("probe 12"));
    let later = tell(&mut correlator, "Unhealthy", "probe 13", 11 + 601).expect("it is told");
    assert_eq!(later.event.message.as_deref(), Some("probe 13"));
}

#[test]
fn an_object_that_never_rests_is_heard_of_every_five_minutes() {
    let mut correlator = Correlator::new("node-a");
    let told = |correlator: &mut Correlator, secs| tell(correlator, "BackOff", "Back-off", secs);
    for _ in 0..25 {
        assert!(told(&mut correlator, 0).is_some());
    }
    assert_eq!(told(&mut correlator, 0), None);
    assert_eq!(told(&mut correlator, 299), None);
    // What was not told is in the count.
    let next = told(&mut correlator, 300).expect("one every 5 min");
    assert_eq!(next.event.count, Some(28));
    assert_eq!(told(&mut correlator, 599), None);
    assert!(told(&mut correlator, 600).is_some());
    // Another type, and another object, have their own.
    let warning = Happening { type_: "Warning", ..happening("BackOff", "Back-off", 600) };
    assert!(correlator.tell(warning, at(600)).is_some());
    let other = Happening { about: About::node("node-a"), ..happening("BackOff", "Back-off", 600) };
    assert!(correlator.tell(other, at(600)).is_some());
    // It has rested for as long as all 25 take.
    for n in 0..26 {
        assert_eq!(told(&mut correlator, 600 + 25 * 300).is_some(), n < 25, "{n}");
    }
}

#[test]
fn an_object_whose_name_is_too_long_gets_a_uuid() {
    let about = About { name: "a".repeat(250), ..About::node("") };
    let told = Correlator::new("n").tell(Happening { about, ..happening("A", "a", 0) }, at(0)).expect("it is told");
    let name = told.event.metadata.name.expect("a name");
    assert_eq!(name.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert!(is_name(&name), "{name}");
}

#[test]
fn annotations_go_with_one_event() {
    let annotations: BTreeMap<String, String> = [("starved_resource".to_owned(), "memory".to_owned())].into();
    let evicted = Happening { annotations: annotations.clone(), ..happening("Evicted", "gone", 0) };
    let told = Correlator::new("n").tell(evicted, at(0)).expect("it is told");
    assert_eq!(told.event.metadata.annotations, Some(annotations));
}

#[test]
fn names_are_subdomains() {
    let good = ["a", "a.b", "node-a.18eab78fba5843cd", "0"];
    let bad = ["", ".", "a..b", "-a", "a-", "A", "a_b", "a.-b"];
    assert!(good.iter().all(|name| is_name(name)));
    assert!(bad.iter().all(|name| !is_name(name)));
}
