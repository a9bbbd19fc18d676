use super::*;
use rubelet_api::v1::ConfigMap;

fn event(line: &str) -> Result<Event<ConfigMap>, String> {
    serde_json::from_str(line).map_err(|e| e.to_string())
}

#[test]
fn objects_come_without_managed_fields() {
    let line = r#"{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7","managedFields":[{"manager":"m"}]},"data":{"k":"v"}}}"#;
    let Event::Upserted(map) = event(line).unwrap() else { panic!("not upserted") };
    assert_eq!(map.metadata.name.as_deref(), Some("a"));
    assert_eq!(map.metadata.managed_fields, None);
    assert_eq!(map.data.unwrap()["k"], "v");
}

#[test]
fn the_order_of_type_and_object_does_not_matter() {
    let line = r#"{"object":{"metadata":{"name":"a"}},"type":"DELETED"}"#;
    assert!(matches!(event(line).unwrap(), Event::Removed(map) if map.metadata.name.as_deref() == Some("a")));
}

#[test]
fn bookmarks_and_errors_are_told_apart() {
    let line = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12","annotations":{"k8s.io/initial-events-end":"true"}},"data":null}}"#;
    assert!(matches!(event(line).unwrap(), Event::Bookmark { version, is_initial_end: true } if version == "12"));
    let line = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old","reason":"Expired","code":410}}"#;
    let Event::Error(status) = event(line).unwrap() else { panic!("not an error") };
    let ask = Ask::new(Verb::Watch, &Path::all::<ConfigMap>(), &Query::default());
    assert!(refused(&ask, *status).is_expired());
}

#[test]
fn another_kind_or_type_is_an_error() {
    assert!(event(r#"{"type":"ADDED","object":{"kind":"Pod","metadata":{}}}"#).is_err());
    assert!(event(r#"{"type":"MOVED","object":{}}"#).unwrap_err().starts_with("unknown event \"MOVED\""));
    assert!(event(r#"{"type":"ADDED"}"#).unwrap_err().starts_with("missing field `object`"));
}

#[test]
fn a_version_from_the_future_is_version_trouble() {
    let body = br#"{"kind":"Status","status":"Failure","message":"Timeout: Too large resource version: 9, current: 3","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}"#;
    let refusal = Box::new(Refusal::read(504, None, body));
    let error = Error::Refused { verb: Verb::List, url: String::new(), refusal };
    assert!(is_version_trouble(&error) && !error.is_expired());
}
