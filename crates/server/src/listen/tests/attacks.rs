//! What must not get through, and what must not bring the server down.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::connection::LARGE_HEADS_MAX;

/// Everything that comes back until the connection ends, or nothing more comes.
async fn answers(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut piece)).await {
        if read == 0 {
            break;
        }
        all.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn read_only() -> (Servers, SocketAddr) {
    let config = ServerConfig { read_only: Some(ANY_PORT), ..ServerConfig::default() };
    let servers = serve(config, view(), None).await.unwrap();
    let at = servers.read_only_address().unwrap();
    (servers, at)
}

async fn say(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // The server may have said no before it has heard all.
    let _ = stream.write_all(bytes).await;
    answers(&mut stream).await
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

#[tokio::test]
async fn a_request_within_a_request_is_not_answered() {
    let (_servers, at) = read_only().await;
    // What a proxy in front could take for the body must not be a request here.
    let inner = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for (what, head, body) in [
        ("both lengths", format!("Content-Length: {}\r\nTransfer-Encoding: chunked", inner.len()), chunked.as_str()),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {}", inner.len()), inner),
        ("two lengths in one", format!("Content-Length: 0, {}", inner.len()), inner),
        ("signed length", "Content-Length: +0".to_owned(), inner),
        ("negative length", "Content-Length: -1".to_owned(), inner),
        ("huge length", "Content-Length: 99999999999999999999".to_owned(), inner),
        ("folded", "X: a\r\n Content-Length: 0".to_owned(), inner),
        ("space before colon", "Content-Length : 0".to_owned(), inner),
        ("unknown encoding", "Transfer-Encoding: xchunked".to_owned(), inner),
        ("encoding not last", "Transfer-Encoding: chunked, gzip".to_owned(), inner),
        ("bare CR", "X: a\rY: b".to_owned(), inner),
        ("NUL", "X: a\0b".to_owned(), inner),
        ("no colon", "Nothing".to_owned(), inner),
    ] {
        let got = say(at, format!("POST /pods HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}").as_bytes()).await;
        let refused_or_one = matches!(statuses(&got)[..], ["400"] | ["405"] | ["413"] | ["431"]);
        assert!(refused_or_one, "{what}: {got:?}");
    }
}

#[tokio::test]
async fn lines_may_end_without_a_carriage_return_and_nothing_is_split_by_it() {
    let (_servers, at) = read_only().await;
    let got = say(at, b"GET /healthz HTTP/1.1\nHost: a\n\n").await;
    assert_eq!(statuses(&got), ["200"], "as Go takes it");
    let got = say(at, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: y\n\r\n").await;
    assert_eq!(statuses(&got), ["200"]);
}

#[tokio::test]
async fn a_head_has_an_end() {
    let (_servers, at) = read_only().await;
    let large = "a".repeat(900 << 10);
    let got = say(at, format!("GET /healthz?{large} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    assert!(matches!(statuses(&got)[..], ["200"] | ["414"]), "{got:.100}");
    let got = say(at, format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n").as_bytes()).await;
    assert_eq!(statuses(&got), ["200"], "900 KiB are taken, as upstream does");
    let larger = "a".repeat(2 << 20);
    let got = say(at, format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {larger}\r\n\r\n").as_bytes()).await;
    assert!(matches!(statuses(&got)[..], ["431"] | []), "{got:.100}");
    let many = "A: b\r\n".repeat(100_000);
    let got = say(at, format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes()).await;
    assert!(matches!(statuses(&got)[..], ["431"] | ["400"] | []), "{got:.100}");
}

#[tokio::test]
async fn large_heads_wait_in_few_connections_only() {
    let (_servers, at) = read_only().await;
    let unfinished = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(200 << 10));
    let mut waiting = Vec::new();
    for _ in 0..LARGE_HEADS_MAX + 20 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let _ = stream.write_all(unfinished.as_bytes()).await;
        waiting.push(stream);
    }
    let mut ended = 0;
    for stream in &mut waiting {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
        ended += usize::from(read.is_ok());
    }
    assert!(ended >= 20, "{ended} of those that were too many were ended");
    drop(waiting);
    let small = plain_request(at, "GET", "/healthz").await;
    assert_eq!(small.status, 200, "small ones go on");
}

#[tokio::test]
async fn a_thousand_idle_connections_are_nothing() {
    let (_servers, at) = read_only().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(at).await.unwrap());
    }
    assert_eq!(plain_request(at, "GET", "/healthz").await.status, 200);
}

#[tokio::test]
async fn no_path_leaves_its_place() {
    let (_servers, at) = read_only().await;
    for path in
        ["/logs/%2e%2e/etc/passwd", "/logs/..%2fetc/passwd", "/logs/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/logs/....//x"]
    {
        let got = say(at, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(!got.contains("root:"), "{path}: {got}");
        assert!(!statuses(&got).is_empty(), "{path}");
    }
}

#[tokio::test]
async fn malformed_upgrades_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let servers = serve_tls(tls(folder.path(), anonymous())).await;
    let at = servers.tls_address().unwrap();
    for head in [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Connection: Upgrade\r\nUpgrade: ",
        "Connection: Upgrade\r\nUpgrade: nosuch/9",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v99.channel.k8s.io",
    ] {
        for path in ["/exec/a/b/c?command=x&output=1", "/attach/a/b/c?output=1", "/portForward/a/b", "/pods", "/nosuch"]
        {
            let mut stream = secure_stream(at, &folder, Protocol::Http1, None).await;
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n\0\x03\0\x01garbage");
            stream.write_all(request.as_bytes()).await.unwrap();
            let got = answers(&mut stream).await;
            let first = statuses(&got).first().copied().unwrap_or_default();
            assert!(first.starts_with(['4', '5']), "{path} {head:?}: {got:?}");
        }
    }
    assert_eq!(secure_request(at, &folder, Protocol::Http1, None, "/healthz").await.status, 200);
}

/// Pieces that requests are made of, and that break them.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET ",
        "POST ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "/pods",
        "/logs/",
        "%2e",
        "..",
        "*",
        "http://a/",
        " HTTP/1.1",
        "\r\n",
        "\n",
        "\r",
        "Host: a",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Authorization: Bearer \u{7f}",
        "5\r\nabcde\r\n0\r\n\r\n",
        "\0",
        ":",
        " ",
        "\t",
        "\u{80}",
    ]);
    prop_oneof![4 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

#[test]
fn no_bytes_bring_it_down() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (servers, at) = runtime.block_on(read_only());
    proptest!(ProptestConfig::with_cases(300), |(pieces in prop::collection::vec(piece(), 1..30))| {
        let bytes: Vec<u8> = pieces.concat();
        runtime.block_on(async {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut all = Vec::new();
            // A panic would end the connection, too: it would be told below.
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.expect("no end");
        });
    });
    runtime.block_on(async {
        assert_eq!(plain_request(at, "GET", "/healthz").await.status, 200);
    });
    drop(servers);
}
