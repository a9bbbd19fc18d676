use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rubelet_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::net::TcpListener;

use super::*;
use crate::testing::{Server, http};

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

fn http_how(server: &Server, is_https: bool, path: &str) -> ProbeHow {
    http_with(server, is_https, path, &[("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")])
}

fn http_with(server: &Server, is_https: bool, path: &str, headers: &[(&str, &str)]) -> ProbeHow {
    ProbeHow::Http {
        scheme_https: is_https,
        host: "127.0.0.1".into(),
        port: server.port(),
        path: path.into(),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    }
}

fn failure(text: impl Into<String>) -> ProbeAnswer {
    ProbeAnswer::Failure(text.into())
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_request_is_the_one_that_servers_know() {
    let server = Server::plain(|_| http(200, "", "ok")).await;
    let headers = [("User-Agent", "kube-probe/1.36"), ("Accept", "*/*"), ("X-Test", "1"), ("X-Test", "2")];
    assert_eq!(probe(&http_with(&server, false, "/a b?q=1", &headers), PATIENCE).await, ProbeAnswer::Success);
    let own = [("Host", "example.com"), ("User-Agent", "mine")];
    assert_eq!(probe(&http_with(&server, false, "/", &own), PATIENCE).await, ProbeAnswer::Success);
    let lines = |nth: usize| {
        let mut lines: Vec<String> = server.requests()[nth].trim_end().lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    let host = format!("Host: 127.0.0.1:{}", server.port());
    let want = [
        "GET /a%20b?q=1 HTTP/1.1",
        "Accept: */*",
        "Connection: close",
        &host,
        "User-Agent: kube-probe/1.36",
        "X-Test: 1",
        "X-Test: 2",
    ];
    assert_eq!(lines(0), want);
    assert_eq!(lines(1), ["GET / HTTP/1.1", "Connection: close", "Host: example.com", "User-Agent: mine"]);
}

#[tokio::test]
async fn the_status_decides() {
    let server = Server::plain(|_| http(200, "", "ok")).await;
    for (status, want) in [
        (200, ProbeAnswer::Success),
        (204, ProbeAnswer::Success),
        (304, ProbeAnswer::Warning("Probe terminated redirects, Response body: ".into())),
        (400, failure("HTTP probe failed with statuscode: 400")),
        (404, failure("HTTP probe failed with statuscode: 404")),
        (503, failure("HTTP probe failed with statuscode: 503")),
    ] {
        server.answer(move |_| http(status, "", ""));
        assert_eq!(probe(&http_how(&server, false, "/"), PATIENCE).await, want, "{status}");
    }
    server.answer(|_| b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec());
    assert_eq!(probe(&http_how(&server, false, "/"), PATIENCE).await, ProbeAnswer::Success);
    server.answer(|_| b"HTTP/1.0 200\r\n\r\nabc".to_vec());
    assert_eq!(probe(&http_how(&server, false, "/"), PATIENCE).await, ProbeAnswer::Success);
}

#[tokio::test]
async fn redirects_stay_on_the_host() {
    let other = Server::plain(|_| http(500, "", "")).await;
    let port = other.port();
    let server = Server::plain(move |head| match head.split(' ').nth(1).unwrap_or_default() {
        "/relative" => http(302, "location: deeper/../end\r\n", ""),
        "/end" => http(200, "", ""),
        "/port" => http(307, &format!("location: http://127.0.0.1:{port}/\r\n"), ""),
        "/away" => http(301, "location: http://example.com/\r\n", "moved"),
        "/loop" => http(302, "location: /loop\r\n", ""),
        "/none" => http(302, "", "body"),
        "/bad" => http(302, "location: http://[::1/\r\n", ""),
        _ => http(404, "", ""),
    })
    .await;
    let ask = async |path: &str| probe(&http_how(&server, false, path), PATIENCE).await;
    assert_eq!(ask("/relative").await, ProbeAnswer::Success);
    assert_eq!(ask("/port").await, failure("HTTP probe failed with statuscode: 500"));
    assert_eq!(ask("/away").await, ProbeAnswer::Warning("Probe terminated redirects, Response body: moved".into()));
    assert_eq!(ask("/none").await, ProbeAnswer::Warning("Probe terminated redirects, Response body: body".into()));
    assert_eq!(ask("/loop").await, failure("Get \"/loop\": stopped after 10 redirects"));
    let asked = server.requests().iter().filter(|r| r.starts_with("GET /loop ")).count();
    assert_eq!(asked, 10);
    let url = format!("http://127.0.0.1:{}/bad", server.port());
    let ProbeAnswer::Failure(text) = ask("/bad").await else { panic!("a failure") };
    assert!(text.starts_with(&format!("Get {url:?}: failed to parse Location header \"http://[::1/\"")), "{text}");
}

/// The right column is what Go 1.26's client says to the same servers.
#[tokio::test]
async fn failures_are_told_in_gos_words() {
    let port = closed_port().await;
    let how = ProbeHow::Http {
        scheme_https: false,
        host: "127.0.0.1".into(),
        port,
        path: "/healthz".into(),
        headers: vec![],
    };
    let want =
        format!("Get \"http://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(probe(&how, PATIENCE).await, failure(want));

    let server = Server::plain(|_| Vec::new()).await;
    let broken = "net/http: HTTP/1.x transport connection broken: malformed HTTP response";
    let not_tls = "tls: first record does not look like a TLS handshake";
    for (is_https, answer, want) in [
        (false, "", "EOF".to_owned()),
        (true, "", "EOF".to_owned()),
        (false, "garbage\r\n\r\n", format!("{broken} \"garbage\"")),
        (true, "garbage\r\n\r\n", not_tls.to_owned()),
        (true, "HTTP/1.1 200 OK\r\n\r\n", "http: server gave HTTP response to HTTPS client".to_owned()),
        (false, "HTTP/1.1 200 OK\r\nX: y", "unexpected EOF".to_owned()),
    ] {
        // For TLS the server must answer without waiting for an empty line.
        if is_https {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut hello = [0; 16];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
                // What the client still sends is taken, so that it sees an end and no reset.
                while tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await.is_ok_and(|n| n > 0) {}
            });
            let how = ProbeHow::Http {
                scheme_https: true,
                host: "127.0.0.1".into(),
                port,
                path: "/x".into(),
                headers: vec![],
            };
            let want = format!("Get \"https://127.0.0.1:{port}/x\": {want}");
            assert_eq!(probe(&how, PATIENCE).await, failure(want), "{answer:?}");
        } else {
            server.answer(move |_| answer.as_bytes().to_vec());
            let want = format!("Get \"http://127.0.0.1:{}/x\": {want}", server.port());
            assert_eq!(probe(&http_how(&server, false, "/x"), PATIENCE).await, failure(want), "{answer:?}");
        }
    }
    server.answer(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_vec());
    assert_eq!(probe(&http_how(&server, false, "/x"), PATIENCE).await, ProbeAnswer::Unknown("unexpected EOF".into()));
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for is_https in [false, true] {
        let how = ProbeHow::Http {
            scheme_https: is_https,
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: vec![],
        };
        let scheme = if is_https { "https" } else { "http" };
        let want = format!(
            "Get \"{scheme}://127.0.0.1:{port}/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        assert_eq!(probe(&how, SHORT).await, failure(want));
    }
    let how = ProbeHow::Grpc { host: "127.0.0.1".into(), port, service: String::new() };
    assert_eq!(probe(&how, Duration::from_secs(1)).await, failure("timeout: health rpc did not complete within 1s"));
}

#[tokio::test]
async fn only_the_start_of_a_body_is_read() {
    let server = Server::plain(|_| http(302, "", vec![b'x'; 1 << 20])).await;
    let ProbeAnswer::Warning(text) = probe(&http_how(&server, false, "/"), PATIENCE).await else { panic!("a warning") };
    assert_eq!(text.len(), "Probe terminated redirects, Response body: ".len() + 10 * 1024);
}

#[tokio::test]
async fn certificates_are_not_verified() {
    let server = Server::tls(|_| http(200, "", "")).await;
    assert_eq!(probe(&http_how(&server, true, "/"), PATIENCE).await, ProbeAnswer::Success);
}

#[tokio::test]
async fn tcp_is_a_connection() {
    let server = Server::plain(|_| Vec::new()).await;
    let how = |port| ProbeHow::Tcp { host: "127.0.0.1".into(), port };
    assert_eq!(probe(&how(server.port()), PATIENCE).await, ProbeAnswer::Success);
    let port = closed_port().await;
    let want = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(probe(&how(port), PATIENCE).await, failure(want));
    let six = ProbeHow::Tcp { host: "::1".into(), port };
    let ProbeAnswer::Failure(text) = probe(&six, PATIENCE).await else { panic!("a failure") };
    assert!(text.starts_with(&format!("dial tcp [::1]:{port}: connect: ")), "{text}");
    let named = ProbeHow::Tcp { host: "nowhere.invalid".into(), port };
    assert_eq!(probe(&named, PATIENCE).await, failure("dial tcp: lookup nowhere.invalid: no such host"));
}

/// A queue of waiting connections that is full: a further one gets no answer.
#[tokio::test]
async fn a_connection_without_answer_times_out() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        held.push(stream);
    }
    let port = address.port();
    let tcp = ProbeHow::Tcp { host: "127.0.0.1".into(), port };
    assert_eq!(probe(&tcp, SHORT).await, failure(format!("dial tcp {address}: i/o timeout")));
    let grpc = ProbeHow::Grpc { host: "127.0.0.1".into(), port, service: String::new() };
    let want = format!("timeout: failed to connect service \"{address}\" within 1s: context deadline exceeded");
    assert_eq!(probe(&grpc, Duration::from_secs(1)).await, failure(want));
}

/// A gRPC server whose answer depends on the service's name.
async fn grpc_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: ::http::Request<hyper::body::Incoming>| async move {
                let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
                let is_right =
                    request.uri().path() == "/grpc.health.v1.Health/Check" && agent.starts_with("kube-probe/");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let name = HealthCheckRequest::decode(&body[5..]).unwrap().service;
                Ok::<_, Infallible>(grpc_answer(if is_right { &name } else { "wrong request" }))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

fn grpc_answer(name: &str) -> ::http::Response<http_body_util::Either<StreamBody<Frames>, Full<Bytes>>> {
    let response = ::http::Response::builder().header("content-type", "application/grpc");
    let failed = |code: &str, message: &str| {
        let response = ::http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", code)
            .header("grpc-message", message);
        response.body(http_body_util::Either::Right(Full::default())).unwrap()
    };
    let status = match name {
        "" => 1,
        "down" => 2,
        "unimplemented" => return failed("12", "unknown%20service"),
        "missing" => return failed("5", "unknown service"),
        "http" => {
            return ::http::Response::builder()
                .status(503)
                .body(http_body_util::Either::Right(Full::default()))
                .unwrap();
        }
        "silent" => return response.body(http_body_util::Either::Right(Full::default())).unwrap(),
        _ => return failed("3", "wrong request"),
    };
    let message = HealthCheckResponse { status }.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, message.len() as u8];
    framed.extend(message);
    let mut trailers = ::http::HeaderMap::new();
    trailers.insert("grpc-status", ::http::HeaderValue::from_static("0"));
    let frames = vec![Ok(Frame::data(Bytes::from(framed))), Ok(Frame::trailers(trailers))];
    response.body(http_body_util::Either::Left(StreamBody::new(futures_util::stream::iter(frames)))).unwrap()
}

#[tokio::test]
async fn grpc_wants_serving() {
    let port = grpc_server().await;
    let prefix = "error: health rpc probe failed: rpc error: code =";
    for (service, want) in [
        ("", ProbeAnswer::Success),
        ("down", failure("service unhealthy (responded with \"NOT_SERVING\")")),
        (
            "unimplemented",
            failure(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
            ),
        ),
        ("missing", failure(format!("{prefix} NotFound desc = unknown service"))),
        (
            "http",
            failure(format!(
                "{prefix} Unavailable desc = unexpected HTTP status code received from server: 503 (Service Unavailable)"
            )),
        ),
        ("silent", failure(format!("{prefix} Internal desc = server closed the stream without sending trailers"))),
    ] {
        let how = ProbeHow::Grpc { host: "127.0.0.1".into(), port, service: service.into() };
        assert_eq!(probe(&how, PATIENCE).await, want, "{service:?}");
    }
    let port = closed_port().await;
    let how = ProbeHow::Grpc { host: "127.0.0.1".into(), port, service: String::new() };
    let want = format!(
        "error: failed to connect service at \"127.0.0.1:{port}\": connection error: desc = \"transport: Error while \
         dialing: dial tcp 127.0.0.1:{port}: connect: connection refused\""
    );
    assert_eq!(probe(&how, PATIENCE).await, failure(want));
    let server = Server::plain(|_| http(200, "", "")).await;
    let how = ProbeHow::Grpc { host: "127.0.0.1".into(), port: server.port(), service: String::new() };
    let ProbeAnswer::Failure(text) = probe(&how, PATIENCE).await else { panic!("a failure") };
    assert!(text.starts_with(&format!("{prefix} Unavailable desc = connection error")), "{text}");
}

#[tokio::test]
async fn what_cannot_be_made_is_unknown() {
    let invalid = ProbeHow::Invalid { message: "couldn't find port: \"x\"".into() };
    assert_eq!(probe(&invalid, PATIENCE).await, ProbeAnswer::Unknown("couldn't find port: \"x\"".into()));
    let server = Server::plain(|_| http(200, "", "")).await;
    let how = http_with(&server, false, "/", &[("Bad Name", "x")]);
    let want = "net/http: invalid header field name \"Bad Name\"";
    assert_eq!(probe(&how, PATIENCE).await, ProbeAnswer::Unknown(want.into()));
}

#[tokio::test]
async fn a_hook_ignores_the_status_and_falls_back_to_http() {
    let server = Server::plain(|_| http(500, "", "")).await;
    assert_eq!(http_hook(&http_how(&server, false, "/")).await, Ok(Hooked::Plain));
    let tls = Server::tls(|_| http(404, "", "")).await;
    assert_eq!(http_hook(&http_how(&tls, true, "/")).await, Ok(Hooked::Plain));

    // A plain server answers a TLS hello as a bad request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..n]).into_owned());
            tokio::io::AsyncWriteExt::write_all(&mut stream, &http(400, "", "")).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            while tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.is_ok_and(|n| n > 0) {}
        }
        heads
    });
    let headers = vec![("Authorization".to_owned(), "secret".to_owned()), ("X-Other".to_owned(), "x".to_owned())];
    let how = ProbeHow::Http { scheme_https: true, host: "127.0.0.1".into(), port, path: "/bye".into(), headers };
    assert_eq!(http_hook(&how).await, Ok(Hooked::WithoutTls));
    let last = served.await.unwrap().remove(1);
    assert!(last.starts_with("GET /bye ") && last.contains("X-Other: x") && !last.contains("Authorization"), "{last}");

    let port = closed_port().await;
    let how = ProbeHow::Http { scheme_https: false, host: "127.0.0.1".into(), port, path: "/".into(), headers: vec![] };
    let want = format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(http_hook(&how).await, Err(want));
    let invalid = ProbeHow::Invalid { message: "invalid port number: 0".into() };
    assert_eq!(http_hook(&invalid).await, Err("invalid port number: 0".to_owned()));
}
