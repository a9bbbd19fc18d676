use std::io::Read;

use flate2::read::GzDecoder;
use http::Request;
use http_body_util::BodyExt;

use super::*;
use crate::metrics::{HttpCounts, Pages, Preparing};
use crate::routes::{Site, respond as ask};
use crate::view::Desk;
use crate::view::shown::{Shown, healthy};

const LINES: usize = 20_000;

impl Pages for Shown {
    fn page(&self, page: Page) -> Preparing<'_> {
        Box::pin(async move {
            let write: Writing = Box::new(move |out| (0..LINES).try_for_each(|line| writeln!(out, "{page:?} {line}")));
            write
        })
    }

    fn http(&self) -> &Arc<HttpCounts> {
        static COUNTS: std::sync::LazyLock<Arc<HttpCounts>> = std::sync::LazyLock::new(Arc::default);
        &COUNTS
    }
}

async fn get(site: Site, method: Method, path: &str, encoding: &str) -> Response<Reply> {
    let question = Request::builder().method(method).uri(path).header(ACCEPT_ENCODING, encoding).body(None).unwrap();
    ask(site, Arc::new(Desk::new(Arc::new(healthy()))), question).await
}

async fn body(response: Response<Reply>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test]
async fn pages_are_whole_packed_or_not() {
    for site in [Site::ReadOnly, Site::Full { has_debugging: false }] {
        for (path, name) in [
            ("/metrics", "Metrics"),
            ("/metrics/cadvisor", "Cadvisor"),
            ("/metrics/probes", "Probes"),
            ("/metrics/resource", "Resource"),
            ("/metrics/slis", "Slis"),
        ] {
            let response = get(site, Method::GET, path, "identity").await;
            assert_eq!(response.headers()[CONTENT_TYPE], TEXT);
            let plain = body(response).await;
            assert!(plain.starts_with(format!("{name} 0\n").as_bytes()));
            assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), LINES);
            let response = get(site, Method::GET, path, "deflate, gzip;q=0.5").await;
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
            let mut unpacked = Vec::new();
            GzDecoder::new(&*body(response).await).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, plain);
        }
    }
}

#[tokio::test]
async fn the_summary_may_be_asked_for_in_two_ways() {
    for (method, query, only) in [
        (Method::GET, "", false),
        (Method::POST, "?only_cpu_and_memory=true", true),
        (Method::GET, "?x=1&only_cpu_and_memory=false", false),
    ] {
        let response = get(Site::ReadOnly, method, &format!("/stats/summary{query}"), "gzip").await;
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static(JSON))
        );
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
        let wanted = format!("Summary {{ is_cpu_and_memory_only: {only} }} 0\n");
        assert!(body(response).await.starts_with(wanted.as_bytes()));
    }
    assert_eq!(get(Site::ReadOnly, Method::PUT, "/stats/summary", "").await.status(), 405);
    assert_eq!(get(Site::ReadOnly, Method::GET, "/stats/other", "").await.status(), 404);
    assert_eq!(get(Site::Health, Method::GET, "/metrics/resource", "").await.status(), 404);
}

#[tokio::test]
async fn whoever_hangs_up_stops_the_page() {
    for _ in 0..20 {
        drop(get(Site::ReadOnly, Method::GET, "/metrics/resource", "").await);
    }
    // Each gave its turn back, or nobody would be answered any more.
    assert_eq!(get(Site::ReadOnly, Method::GET, "/metrics/resource", "").await.status(), 200);
}
