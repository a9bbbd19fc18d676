use std::os::unix::fs::symlink;

use http_body_util::BodyExt as _;

use super::*;
use crate::view::shown::{Shown, healthy};

struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

async fn get(dir: &Path, uri: &str, headers: &[(&str, &str)]) -> Got {
    let mut view = healthy();
    view.premises.log_dir = dir.to_owned();
    ask(&view, uri, headers).await
}

async fn ask(view: &Shown, uri: &str, headers: &[(&str, &str)]) -> Got {
    let mut question = http::Request::builder().uri(uri);
    for (name, value) in headers {
        question = question.header(*name, *value);
    }
    let response = answer(view, &question.body(None).unwrap()).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
}

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("pods/a b")).unwrap();
    fs::write(at("x.log"), "0123456789").unwrap();
    fs::write(at("a<b>:c"), "<html>not a page</html>").unwrap();
    fs::write(at("pods/a b/0.log"), "zero").unwrap();
    fs::write(at("bin"), [0, 1, 2]).unwrap();
    symlink("/etc", at("etc")).unwrap();
    symlink("/etc/passwd", at("passwd")).unwrap();
    symlink("../../../etc/passwd", at("pods/up")).unwrap();
    symlink(at("pods/a b/0.log"), at("link.log")).unwrap();
    dir
}

#[tokio::test]
async fn a_directory_is_listed_as_go_lists_it() {
    let dir = dir();
    let got = get(dir.path(), "/logs/", &[]).await;
    let wanted = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n\
        <a href=\"./a%3Cb%3E:c\">a&lt;b&gt;:c</a>\n<a href=\"bin\">bin</a>\n<a href=\"etc\">etc</a>\n\
        <a href=\"link.log\">link.log</a>\n<a href=\"passwd\">passwd</a>\n<a href=\"pods/\">pods/</a>\n\
        <a href=\"x.log\">x.log</a>\n</pre>\n";
    assert_eq!((got.status, got.body.as_str()), (200, wanted));
    assert_eq!(got.headers[CONTENT_TYPE], "text/html; charset=utf-8");
    let date = got.headers[LAST_MODIFIED].to_str().unwrap().to_owned();
    assert!(date.ends_with(" GMT"), "{date}");
    assert_eq!(get(dir.path(), "/logs/", &[("if-modified-since", &date)]).await.status, 304);
    let below = get(dir.path(), "/logs/pods/", &[]).await;
    assert!(below.body.contains("<a href=\"a%20b/\">a b/</a>\n"), "{}", below.body);
}

#[tokio::test]
async fn files_and_parts_of_them_are_sent() {
    let dir = dir();
    for (uri, range, status, body, content_range) in [
        ("/logs/x.log", "", 200, "0123456789", ""),
        ("/logs/x.log", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("/logs/x.log", "bytes=7-", 206, "789", "bytes 7-9/10"),
        ("/logs/x.log", "bytes=-3", 206, "789", "bytes 7-9/10"),
        ("/logs/x.log", "bytes=-30", 206, "0123456789", "bytes 0-9/10"),
        ("/logs/x.log", "bytes=5-99", 206, "56789", "bytes 5-9/10"),
        ("/logs/x.log", "bytes=10-", 416, "invalid range: failed to overlap\n", "bytes */10"),
        ("/logs/x.log", "bytes=1-2,4-5", 200, "0123456789", ""),
        ("/logs/x.log", "bytes=4-1", 200, "0123456789", ""),
        ("/logs/pods/a%20b/0.log", "", 200, "zero", ""),
        ("/logs/link.log", "", 200, "zero", ""),
    ] {
        let headers: Vec<(&str, &str)> = if range.is_empty() { Vec::new() } else { vec![("range", range)] };
        let got = get(dir.path(), uri, &headers).await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{uri} {range}");
        let shown = got.headers.get(CONTENT_RANGE).map(|value| value.to_str().unwrap()).unwrap_or_default();
        assert_eq!(shown, content_range, "{uri} {range}");
    }
}

#[tokio::test]
async fn a_file_is_never_a_page() {
    let dir = dir();
    let page = get(dir.path(), "/logs/a%3Cb%3E:c", &[]).await;
    assert_eq!((page.status, &page.headers[CONTENT_TYPE]), (200, &HeaderValue::from_static(respond::TEXT)));
    let binary = get(dir.path(), "/logs/bin", &[]).await;
    assert_eq!(binary.headers[CONTENT_TYPE], "application/octet-stream");
}

#[tokio::test]
async fn slashes_are_put_right() {
    let dir = dir();
    for (uri, to) in [
        ("/logs/pods", "pods/"),
        ("/logs/x.log/", "../x.log"),
        ("/logs/index.html", "./"),
        ("/logs/pods/a%20b", "a%20b/"),
    ] {
        let got = get(dir.path(), uri, &[]).await;
        assert_eq!((got.status, got.headers[LOCATION].to_str().unwrap()), (301, to), "{uri}");
    }
}

#[tokio::test]
async fn nothing_leads_out() {
    let dir = dir();
    for (uri, status) in [
        ("/logs/etc/passwd", 403),
        ("/logs/etc/", 403),
        ("/logs/passwd", 403),
        ("/logs/pods/up", 403),
        ("/logs/../../etc/passwd", 403),
        ("/logs/%2e%2e/%2e%2e/etc/passwd", 403),
        ("/logs/..%2f..%2fetc%2fpasswd", 403),
        ("/logs/nosuch", 404),
        ("/logs/x.log/y", 404),
        ("/logs/x%00", 500),
    ] {
        let got = get(dir.path(), uri, &[]).await;
        assert_eq!(got.status, status, "{uri}: {}", got.body);
        assert!(!got.body.contains("root:"), "{uri}");
    }
}

#[tokio::test]
async fn a_pipe_is_not_waited_for() {
    let dir = dir();
    rustix_pipe(&dir.path().join("pipe"));
    assert_eq!(get(dir.path(), "/logs/pipe", &[]).await.status, 403);
}

fn rustix_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
