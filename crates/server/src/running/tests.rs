use super::*;

#[test]
fn a_pod_is_shown_with_what_the_runtime_knows_of_it() {
    let container =
        |name: &str, id: &str| RunningContainer { id: id.into(), name: name.to_owned(), image: "img".to_owned() };
    let pod = RunningPod {
        uid: "u".into(),
        name: "p".into(),
        namespace: "ns".into(),
        containers: vec![container("a", "new"), container("a", "old"), container("b", "b")],
        ..RunningPod::default()
    };
    assert_eq!(pod.container("a").unwrap().id.as_str(), "new");
    assert_eq!(pod.container("nosuch"), None);
    let shown = pod.shown();
    assert_eq!(shown.metadata.uid.as_deref(), Some("u"));
    assert_eq!(shown.spec.unwrap().containers.len(), 3);
}
