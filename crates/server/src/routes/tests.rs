use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::view::shown::{Shown, healthy, pod};

pub(super) const FULL: Site = Site::Full { has_debugging: true };

pub(super) async fn ask(site: Site, view: &Shown, method: Method, path_and_query: &str) -> (u16, String) {
    let question = Request::builder().method(method).uri(path_and_query).body(None).unwrap();
    let response = respond(site, Arc::new(Desk::new(Arc::new(view.clone()))), question).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(site: Site, path: &str) -> (u16, String) {
    ask(site, &healthy(), Method::GET, path).await
}

#[tokio::test]
async fn the_pod_list_is_whole_json() {
    for names in [vec![], vec!["a"], vec!["a", "b", "c"]] {
        let view = Shown { pods: names.iter().map(|name| pod(name)).collect(), ..healthy() };
        let items: Vec<Value> =
            names.iter().map(|name| json!({ "metadata": { "name": name }, "spec": {}, "status": {} })).collect();
        let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
        for path in ["/pods", "/pods/"] {
            let (status, body) = ask(Site::ReadOnly, &view, Method::GET, path).await;
            assert_eq!(status, 200);
            let wanted = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), wanted);
            assert!(body.ends_with("}\n"), "Go ends the list with a line feed");
        }
    }
}

#[tokio::test]
async fn health_is_told() {
    for site in [Site::Health, Site::ReadOnly, FULL] {
        assert_eq!(get(site, "/healthz").await, (200, "ok".into()));
        assert_eq!(get(site, "/healthz/ping").await, (200, "ok".into()));
        assert_eq!(get(site, "/healthz/").await.0, 404);
        assert_eq!(get(site, "/healthzy").await.0, 404);
        assert_eq!(get(site, "/healthz/nosuch").await.0, 404);
    }
    assert_eq!(get(Site::ReadOnly, "/healthz/syncloop").await, (200, "ok".into()));
    assert_eq!(get(FULL, "/healthz/log").await, (200, "ok".into()));
    assert_eq!(get(Site::Health, "/healthz/syncloop").await.0, 404);
}

#[tokio::test]
async fn the_report_names_every_check() {
    let (_, verbose) = get(FULL, "/healthz?verbose").await;
    assert_eq!(verbose, "[+]ping ok\n[+]log ok\n[+]syncloop ok\n[+]device-plugin ok\nhealthz check passed\n");
    let (_, excluded) = get(FULL, "/healthz?verbose=1&exclude=log&exclude=x").await;
    let warning = "warn: some health checks cannot be excluded: no matches for \"x\"\n";
    assert_eq!(
        excluded,
        format!(
            "[+]ping ok\n[+]log excluded: ok\n[+]syncloop ok\n[+]device-plugin ok\n{warning}healthz check passed\n"
        )
    );
}

#[tokio::test]
async fn a_stuck_sync_loop_is_no_health() {
    let view = Shown { sync_loop: Err("sync Loop took longer than expected".into()), ..healthy() };
    let (status, body) = ask(FULL, &view, Method::GET, "/healthz").await;
    let report =
        "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\n[+]device-plugin ok\nhealthz check failed\n";
    assert_eq!((status, body.as_str()), (500, report));
    let (status, body) = ask(FULL, &view, Method::GET, "/healthz/syncloop").await;
    let why = "internal server error: sync Loop took longer than expected\n";
    assert_eq!((status, body.as_str()), (500, why));
    assert_eq!(ask(FULL, &view, Method::GET, "/healthz?exclude=syncloop").await, (200, "ok".into()));
    assert_eq!(ask(Site::Health, &view, Method::GET, "/healthz").await, (200, "ok".into()), "it only tells it lives");
}

#[tokio::test]
async fn only_the_tls_server_shows_the_configuration() {
    assert_eq!(get(FULL, "/configz").await, (200, r#"{"kubeletconfig":{"port":10250}}"#.into()));
    assert_eq!(get(Site::ReadOnly, "/configz").await, (404, "404 page not found\n".into()));
    assert_eq!(get(Site::Health, "/pods").await.0, 404);
}

#[tokio::test]
async fn other_methods_are_refused() {
    for path in ["/pods", "/pods/"] {
        let (status, body) = ask(FULL, &healthy(), Method::POST, path).await;
        assert_eq!((status, body.as_str()), (405, "405: Method Not Allowed"), "{path}");
    }
    for path in ["/healthz", "/healthz/ping", "/configz", "/flagz"] {
        assert_eq!(ask(FULL, &healthy(), Method::POST, path).await.0, 200, "{path}: upstream does not look at it");
    }
    let question = Request::builder().method(Method::PUT).uri("/pods").body(None).unwrap();
    let response = respond(FULL, Arc::new(Desk::new(Arc::new(healthy()))), question).await;
    assert_eq!(response.headers()["allow"], "GET");
}

#[tokio::test]
async fn who_takes_no_json_gets_none() {
    for (accept, status) in [("", 200), ("*/*", 200), ("text/html, application/json;q=0.1", 200), ("text/html", 406)] {
        let question = Request::builder().uri("/pods").header("accept", accept).body(None).unwrap();
        let response = respond(FULL, Arc::new(Desk::new(Arc::new(healthy()))), question).await;
        assert_eq!(response.status(), status, "{accept}");
    }
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    assert_eq!(get(FULL, "/metrics/nosuch").await, (404, "404 page not found\n".into()));
    assert_eq!(get(Site::ReadOnly, "/metrics/").await.0, 404);
    assert_eq!(get(FULL, "/nosuch").await, (404, "404 page not found\n".into()));
    assert_eq!(get(FULL, "/").await.0, 404);
}

/// Debugging is off, or this is the port that has none.
#[tokio::test]
async fn closed_paths_say_that_they_are() {
    for site in [Site::ReadOnly, Site::Full { has_debugging: false }] {
        for path in [
            "/run/a/b/c",
            "/exec/ns/pod/c",
            "/attach/a/b/c",
            "/portForward/a/b",
            "/containerLogs/a/b/c",
            "/runningpods/",
            "/debug/pprof/",
            "/logs/",
        ] {
            assert_eq!(get(site, path).await, (405, "Debug endpoints are disabled.\n".into()), "{path}");
        }
        for path in ["/configz", "/checkpoint/a/b/c", "/flagz", "/statusz"] {
            assert_eq!(get(site, path).await.0, 404, "{path}");
        }
        assert_eq!(get(site, "/pods").await.0, 200);
    }
}

#[tokio::test]
async fn a_switch_closes_its_part() {
    let closed = |change: fn(&mut crate::Switches)| {
        let mut view = healthy();
        change(&mut view.premises.switches);
        view
    };
    for (view, path, status, body) in [
        (closed(|s| s.has_system_logs = false), "/logs/", 405, "logs endpoint is disabled.\n"),
        (closed(|s| s.has_system_logs = false), "/logs/x", 405, "logs endpoint is disabled.\n"),
        (closed(|s| s.has_profiling = false), "/debug/pprof/heap", 405, "profiling endpoint is disabled.\n"),
        (closed(|s| s.has_debug_flags = false), "/debug/flags/v", 405, "flags endpoint is disabled.\n"),
        (closed(|s| s.has_checkpoints = false), "/checkpoint/a/b/c", 404, "404 page not found\n"),
        (closed(|s| s.has_flagz = false), "/flagz", 404, "404 page not found\n"),
        (closed(|s| s.has_statusz = false), "/statusz", 404, "404 page not found\n"),
    ] {
        assert_eq!(ask(FULL, &view, Method::GET, path).await, (status, body.into()), "{path}");
    }
}

#[tokio::test]
async fn there_are_no_profiles_and_it_is_said() {
    let (status, body) = get(FULL, "/debug/pprof/heap").await;
    assert_eq!(status, 501);
    assert!(body.contains("not written in Go"), "{body}");
    assert_eq!(ask(FULL, &healthy(), Method::POST, "/debug/pprof/heap").await.0, 405);
    assert_eq!(get(FULL, "/debug/pprof/nosuch").await, (404, "Unknown profile\n".into()));
    assert_eq!(get(FULL, "/debug/pprof/").await, (404, "404: Page Not Found".into()));
    let words: Vec<String> = std::env::args().collect();
    assert_eq!(get(FULL, "/debug/pprof/cmdline").await, (200, words.join("\0")));
    assert_eq!(get(FULL, "/debug/flags/v").await, (406, "unsupported http method\n".into()));
    let empty = "strconv.ParseUint: parsing \"\": invalid syntax\n";
    assert_eq!(ask(FULL, &healthy(), Method::PUT, "/debug/flags/v").await, (400, empty.into()));
}

#[tokio::test]
async fn shapes_of_paths_and_methods_are_checked_first() {
    let no_route = (404, "404: Page Not Found".to_owned());
    for path in [
        "/containerLogs/a/b",
        "/containerLogs/a/b/c/d",
        "/exec/a/b",
        "/exec/a/b/c/d/e",
        "/attach/a",
        "/run/a/b",
        "/portForward/a",
        "/portForward/a/b/c/d",
        "/checkpoint/a/b",
        "/runningpods/x",
        "/pods/x",
    ] {
        assert_eq!(get(FULL, path).await, no_route, "{path}");
    }
    for (method, path, allowed) in [
        (Method::POST, "/containerLogs/a/b/c", "GET"),
        (Method::PUT, "/exec/a/b/c", "GET, POST"),
        (Method::DELETE, "/attach/a/b/u/c", "GET, POST"),
        (Method::PATCH, "/portForward/a/b", "GET, POST"),
        (Method::GET, "/run/a/b/c", "POST"),
        (Method::GET, "/checkpoint/a/b/c", "POST"),
        (Method::POST, "/runningpods/", "GET"),
        (Method::POST, "/logs/", "GET"),
    ] {
        let question = Request::builder().method(method).uri(path).body(None).unwrap();
        let response = respond(FULL, Arc::new(Desk::new(Arc::new(healthy()))), question).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &allowed.parse().unwrap()),
            "{path}"
        );
    }
}
