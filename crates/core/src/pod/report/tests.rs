//! Tables of what the API server is told.

use rubelet_api::pod::{CONFIG_HASH, CONFIG_MIRROR};
use rubelet_api::v1;
use serde_json::{Value, json};

use super::{Request, Told, next};
use crate::pod::Source;
use crate::pod::mirror;
use crate::pod::stage::Standing;

fn status(value: Value) -> v1::PodStatus {
    serde_json::from_value(value).expect("a status")
}

fn object(uid: &str, meta: Value, shown: Value) -> v1::Pod {
    let mut pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": uid}, "status": shown});
    for (field, value) in meta.as_object().into_iter().flatten() {
        pod["metadata"][field] = value.clone();
    }
    serde_json::from_value(pod).expect("a pod")
}

fn of_static(hash: &str) -> v1::Pod {
    object(hash, json!({"annotations": {CONFIG_HASH: hash}}), json!({}))
}

fn told<'a>(source: Source, pod: &'a v1::Pod, status: &'a v1::PodStatus, standing: Standing) -> Told<'a> {
    Told { source, pod, status, standing }
}

fn condition(type_: &str, status: &str, since: &str) -> Value {
    json!({"type": type_, "status": status, "lastTransitionTime": since, "lastProbeTime": null})
}

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-01T00:00:09Z";

#[test]
fn only_differences_are_sent_and_others_conditions_stay() {
    let known = json!({
        "phase": "Pending", "qosClass": "BestEffort", "startTime": THEN, "nominatedNodeName": "n",
        "conditions": [condition("example.test/ok", "True", THEN), condition("Ready", "False", THEN),
            condition("PodResizePending", "True", THEN)],
        "podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1", "message": "old",
    });
    let pod = object("u", json!({}), known);
    let shown = status(json!({
        "phase": "Running", "qosClass": "BestEffort", "startTime": NOW,
        "conditions": [condition("example.test/ok", "False", NOW), condition("Ready", "True", NOW)],
        "podIPs": [{"ip": "10.0.0.2"}], "podIP": "10.0.0.2",
        "containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0}],
    }));
    let Request::Patch(patch) = next(Some(&pod), &[told(Source::Api, &pod, &shown, Standing::Wanted)]) else {
        panic!("a patch")
    };
    let expected = json!({"metadata": {"uid": "u"}, "status": {
        "phase": "Running", "podIP": "10.0.0.2", "message": null,
        "$setElementOrder/conditions": [{"type": "example.test/ok"}, {"type": "Ready"}],
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": NOW},
            {"type": "PodResizePending", "$patch": "delete"}],
        "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
        "podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}],
        "containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0}],
    }});
    assert_eq!(patch, expected);
}

#[test]
fn nothing_is_sent_when_nothing_changed() {
    let shown = json!({"phase": "Running", "conditions": [condition("Ready", "True", THEN)], "startTime": THEN});
    let pod = object("u", json!({}), shown.clone());
    let shown = status(shown);
    assert_eq!(next(Some(&pod), &[told(Source::Api, &pod, &shown, Standing::Wanted)]), Request::None);
}

#[test]
fn an_end_stays_and_is_not_ready() {
    let pod = object("u", json!({}), json!({"phase": "Failed", "reason": "Evicted", "conditions": []}));
    let shown = status(json!({"phase": "Running", "conditions": [condition("Ready", "True", NOW)]}));
    let Request::Patch(patch) = next(Some(&pod), &[told(Source::Api, &pod, &shown, Standing::Wanted)]) else {
        panic!("a patch")
    };
    let ready = json!([{"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": NOW}]);
    assert_eq!(patch["status"], json!({"conditions": ready}));
}

#[test]
fn a_deleted_pod_goes_when_its_end_is_told_and_nothing_is_used() {
    let ended = json!({"phase": "Succeeded"});
    let deleted = json!({"deletionTimestamp": THEN});
    let shown = status(json!({"phase": "Succeeded", "conditions": []}));
    let running = status(json!({"phase": "Running", "conditions": []}));
    let leaving = object("u", deleted.clone(), ended.clone());
    let untold = object("u", deleted.clone(), json!({"phase": "Running"}));
    let kept = object("u", json!({}), ended);
    let other = object("v", json!({}), json!({}));
    let is_patch = |r: Request<'_>| matches!(r, Request::Patch(_));
    let api = |pod, status, standing| [told(Source::Api, pod, status, standing)];
    assert_eq!(next(Some(&leaving), &api(&leaving, &shown, Standing::Reclaimed)), Request::Delete { uid: "u" });
    assert_eq!(next(Some(&leaving), &api(&leaving, &shown, Standing::Leaving)), Request::None);
    assert!(is_patch(next(Some(&untold), &api(&untold, &shown, Standing::Reclaimed))));
    assert_eq!(next(Some(&untold), &api(&untold, &running, Standing::Leaving)), Request::None);
    assert_eq!(next(Some(&kept), &api(&kept, &shown, Standing::Wanted)), Request::None);
    assert_eq!(next(Some(&leaving), &api(&other, &shown, Standing::Reclaimed)), Request::None);
    assert_eq!(next(Some(&leaving), &[]), Request::None);
    assert_eq!(next(None, &api(&leaving, &shown, Standing::Reclaimed)), Request::None);
}

#[test]
fn mirrors_follow_their_static_pods() {
    let (pod, newer) = (of_static("one"), of_static("two"));
    let shown = status(json!({"phase": "Running", "conditions": []}));
    let one = |standing| told(Source::File, &pod, &shown, standing);
    let two = told(Source::File, &newer, &shown, Standing::Wanted);
    let mirror = |hash: &str, more: Value| {
        let mut meta = json!({"annotations": {CONFIG_MIRROR: hash}});
        for (field, value) in more.as_object().into_iter().flatten() {
            meta[field] = value.clone();
        }
        object("m", meta, json!({"phase": "Running"}))
    };
    let (good, gone) = (mirror("one", json!({})), mirror("one", json!({"deletionTimestamp": THEN})));
    let silent = object("m", json!({"annotations": {CONFIG_MIRROR: "one"}}), json!({"phase": "Pending"}));
    let delete = Request::Delete { uid: "m" };
    assert_eq!(next(None, &[one(Standing::Wanted)]), Request::Mirror(&pod));
    assert_eq!(next(None, &[one(Standing::Leaving)]), Request::None);
    assert_eq!(next(None, &[one(Standing::Leaving), two]), Request::None, "the old one is still there");
    assert_eq!(next(Some(&good), &[one(Standing::Wanted)]), Request::None);
    let patch = json!({"metadata": {"uid": "m"}, "status": {"phase": "Running"}});
    assert_eq!(next(Some(&silent), &[one(Standing::Wanted)]), Request::Patch(patch));
    assert_eq!(next(Some(&good), &[one(Standing::Leaving), two]), Request::None, "its end is still told");
    assert_eq!(next(Some(&good), &[two]), delete);
    assert_eq!(next(Some(&gone), &[one(Standing::Wanted)]), delete);
    assert_eq!(next(Some(&good), &[]), Request::DeleteUnless { uid: "m", shows: "one" });
    let own = object("a", json!({}), json!({}));
    assert_eq!(next(Some(&own), &[one(Standing::Wanted)]), Request::None, "the name is taken");
}

#[test]
fn a_mirror_is_a_marked_copy_that_belongs_to_the_node() {
    let mirror = mirror::object(&of_static("one"), "node-a", "n1");
    assert_eq!(mirror::shows(&mirror), Some("one"));
    assert_eq!((mirror.metadata.uid.as_deref(), mirror.metadata.name.as_deref()), (None, Some("web")));
    let owner = &mirror.metadata.owner_references.as_deref().unwrap_or_default()[0];
    assert_eq!((owner.name.as_str(), owner.uid.as_str(), owner.controller), ("node-a", "n1", Some(true)));
}

#[test]
fn a_mirrors_times_hold() {
    let known = json!({"phase": "Running", "startTime": THEN, "conditions": [condition("Ready", "True", THEN)]});
    let mirror = object("m", json!({"annotations": {CONFIG_MIRROR: "one"}}), known.clone());
    let pod = of_static("one");
    let shown = status(json!({"phase": "Running", "startTime": NOW, "conditions": [condition("Ready", "True", NOW)]}));
    assert_eq!(next(Some(&mirror), &[told(Source::File, &pod, &shown, Standing::Wanted)]), Request::None);
    let own = object("u", json!({}), known);
    let request = next(Some(&own), &[told(Source::Api, &own, &shown, Standing::Wanted)]);
    assert!(matches!(request, Request::Patch(_)), "a flip that was not told");
}
