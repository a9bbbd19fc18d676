//! What is collected from `tracing`'s spans, and a collector on a real socket.

use std::sync::Mutex;

use prost::Message;
use rubelet_proto::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

fn settings(per_million: u32) -> TraceSettings {
    TraceSettings { endpoint: "127.0.0.1:1".to_owned(), per_million, node_name: "node-a".to_owned() }
}

/// The spans that come out of `work`.
fn spans(per_million: u32, work: impl FnOnce()) -> Vec<Span> {
    let traces = Traces::default();
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    traces.0.out.set((sender, per_million)).unwrap();
    traces.0.is_on.store(true, Ordering::Relaxed);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(traces), work);
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn a_span_within_a_span_is_its_child() {
    let found = spans(1_000_000, || {
        let outer =
            info_span!(target: TARGET, "outer", otel.kind = "server", otel.error = tracing::field::Empty, n = 3);
        outer.in_scope(|| {
            let between = info_span!("of the log");
            between.in_scope(|| drop(info_span!(target: TARGET, "call", otel.name = "X/Y", otel.kind = "client")));
        });
        outer.record("otel.error", "it broke");
    });
    let [inner, outer] = &found[..] else { panic!("{found:?}") };
    assert_eq!((inner.name.as_str(), outer.name.as_str()), ("X/Y", "outer"));
    assert_eq!((inner.kind(), outer.kind()), (SpanKind::Client, SpanKind::Server));
    assert_eq!((&inner.trace_id, &inner.parent_span_id), (&outer.trace_id, &outer.span_id));
    assert!(outer.parent_span_id.is_empty() && outer.trace_id.len() == 16 && outer.span_id.len() == 8);
    assert_eq!(outer.status.as_ref().unwrap().message, "it broke");
    assert_eq!(outer.attributes.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["n"]);
    assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
    assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano);
}

#[test]
fn who_asks_may_bring_a_trace() {
    let brought = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let found = spans(0, || drop(info_span!(target: TARGET, "a", otel.parent = brought)));
    assert_eq!(found.len(), 1, "it is wanted outside, whatever the rate is here");
    assert_eq!((found[0].trace_id[0], found[0].parent_span_id[7]), (0x0a, 0x31));
    let unwanted = brought.replace("-01", "-00");
    assert!(spans(1_000_000, || drop(info_span!(target: TARGET, "a", otel.parent = unwanted))).is_empty());
    for malformed in
        ["", "00", "00-0-0-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &format!("{brought}-x")]
    {
        assert_eq!(parent(malformed), None, "{malformed}");
    }
    assert_eq!(parent(&brought.to_uppercase()), None);
    assert_eq!(parent("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
}

#[test]
fn spans_of_the_same_thing_are_one_trace() {
    let found = spans(1_000_000, || {
        for of in ["uid-1", "uid-2", "uid-1"] {
            drop(info_span!(target: TARGET, "step", otel.of = of));
        }
    });
    assert_eq!(found[0].trace_id, found[2].trace_id);
    assert_ne!(found[0].trace_id, found[1].trace_id);
    assert_ne!(found[0].span_id, found[2].span_id);
}

#[test]
fn as_many_as_wished_are_kept() {
    let make = || (0..2000).for_each(|_| drop(info_span!(target: TARGET, "a")));
    assert_eq!(spans(0, make).len(), 0);
    let some = spans(250_000, make).len();
    assert!((400..600).contains(&some), "{some} of 2000");
    assert_eq!(spans(1_000_000, make).len(), 2000);
}

#[test]
fn when_off_there_are_no_spans() {
    let traces = Traces::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(traces.clone()), || {
        drop(info_span!(target: TARGET, "a"));
    });
    assert_eq!(traces.0.made.load(Ordering::Relaxed), 0);
}

/// Takes one message.
async fn collector(listener: TcpListener, got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    use http_body_util::{BodyExt, Full};
    let (stream, _) = listener.accept().await.unwrap();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let got = got.clone();
        async move {
            assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            got.lock().unwrap().push(ExportTraceServiceRequest::decode(&bytes[5..]).unwrap());
            let mut framed = vec![0; 5];
            ExportTraceServiceResponse {}.encode(&mut framed).unwrap();
            let trailers =
                [("grpc-status".parse().unwrap(), http::HeaderValue::from_static("0"))].into_iter().collect();
            let body = Full::new(bytes::Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
            let response = http::Response::builder().header("content-type", "application/grpc").body(body).unwrap();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn a_collector_gets_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let got = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(collector(listener, got.clone()));
    let (sender, receiver) = mpsc::channel(8);
    let export = tokio::spawn(export::run(TraceSettings { endpoint, ..settings(1) }, receiver));
    for name in ["a", "b"] {
        sender.send(Span { name: name.to_owned(), ..Span::default() }).await.unwrap();
    }
    drop(sender);
    export.await.unwrap();
    let got = got.lock().unwrap();
    let [message] = &got[..] else { panic!("{got:?}") };
    let resource = message.resource_spans[0].resource.as_ref().unwrap();
    let keys: Vec<_> = resource.attributes.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, ["service.name", "host.name"]);
    let names: Vec<_> = message.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_collector_spans_are_lost_and_nothing_waits() {
    let (sender, receiver) = mpsc::channel(8);
    let export = tokio::spawn(export::run(settings(1), receiver));
    sender.send(Span::default()).await.unwrap();
    drop(sender);
    async { export.await.unwrap() }.instrument(tracing::Span::none()).await;
}
