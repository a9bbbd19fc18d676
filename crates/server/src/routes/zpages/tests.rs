use http_body_util::BodyExt as _;

use super::*;
use crate::view::shown::healthy;

async fn get(page: fn(&dyn View, &HeaderMap) -> Response<Reply>, accept: &str) -> (u16, HeaderMap, String) {
    let mut headers = HeaderMap::new();
    if !accept.is_empty() {
        headers.insert(ACCEPT, accept.parse().unwrap());
    }
    let (parts, body) = page(&healthy(), &headers).into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_are_text_for_those_who_do_not_say_more() {
    for accept in ["", "*/*", "text/plain", "text/plain;q=0.5, */*"] {
        let (status, _, body) = get(flagz, accept).await;
        assert_eq!(status, 200, "{accept}");
        assert!(body.starts_with("\nkubelet flagz\nWarning: This endpoint"), "{body}");
        assert!(body.ends_with("purposes only.\naddress=0.0.0.0\nv=2\n"), "{body}");
    }
    let (_, _, body) = get(statusz, "").await;
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(&lines[..2], ["", "kubelet statusz"]);
    assert!(lines[4].starts_with("Started: Thu Jan  1 ") && lines[5].starts_with("Up: "), "{body}");
    assert_eq!(
        lines[7..],
        ["Binary version: 1.36.3+x", "Emulation version: 1.36", "Paths: /configz /debug /flagz /healthz /metrics",]
    );
}

#[tokio::test]
async fn pages_are_objects_of_a_version() {
    let asked = |version: &str, kind: &str| format!("application/json;v={version};g=config.k8s.io;as={kind}");
    let (status, headers, body) = get(flagz, &asked("v1beta1", "Flagz")).await;
    let wanted = json!({ "kind": "Flagz", "apiVersion": "config.k8s.io/v1beta1", "metadata": { "name": "kubelet" },
        "flags": { "address": "0.0.0.0", "v": "2" } });
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, wanted));
    assert!(!headers.contains_key(WARNING));
    let (status, headers, same) = get(flagz, &asked("v1beta1", "Flagz").replace("json", "yaml")).await;
    assert_eq!((status, &headers["content-type"], same), (200, &"application/yaml".parse().unwrap(), body));
    let (status, headers, _) = get(flagz, "application/yaml").await;
    assert_eq!((status, &headers["content-type"]), (406, &"application/yaml".parse().unwrap()));
    let (_, headers, body) = get(statusz, &asked("v1alpha1", "Statusz")).await;
    assert!(headers[WARNING].to_str().unwrap().contains("deprecated"));
    let object: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&object["apiVersion"], &object["startTime"]),
        (&json!("config.k8s.io/v1alpha1"), &json!("1970-01-01T00:00:00Z"))
    );
    for accept in [
        "application/json",
        "application/json;v=v2;g=config.k8s.io;as=Flagz",
        "text/html",
        &asked("v1beta1", "Statusz"),
    ] {
        let (status, _, body) = get(flagz, accept).await;
        assert_eq!(status, 406, "{accept}");
        assert!(body.contains("\"reason\":\"NotAcceptable\""), "{body}");
    }
}
