use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::respond;

struct Echo;

impl Answers for Echo {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            match request.uri().path() {
                "/slow" => {
                    tokio::time::sleep(Duration::from_secs(1000)).await;
                    respond::text(StatusCode::OK, "/slow")
                }
                "/upgrade" => {
                    let upgrade = hyper::upgrade::on(request);
                    tokio::spawn(async move {
                        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                        tokio::io::copy(&mut read, &mut write).await
                    });
                    let mut response = respond::text(StatusCode::SWITCHING_PROTOCOLS, "");
                    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
                    response.headers_mut().insert("upgrade", "echo".parse().unwrap());
                    response
                }
                path => respond::text(StatusCode::OK, path),
            }
        })
    }
}

/// A client's end of an HTTP/1.1 connection in memory: virtual time and real bytes.
fn connected() -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(server, Protocol::Http1, Arc::new(Echo), LargeHeads::default()));
    client
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_given_away_is_its_new_owners() {
    let room = LargeHeads::default();
    let _taken = room.take_all();
    let (mut client, server) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(server, Protocol::Http1, Arc::new(Echo), room));
    client.write_all(b"GET /upgrade HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut head).await.unwrap(), 0);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let piece = [7; 16 << 10];
    for _ in 0..20 {
        client.write_all(&piece).await.unwrap();
        let mut back = [0; 16 << 10];
        client.read_exact(&mut back).await.unwrap();
        assert!(back == piece);
        tokio::time::advance(Duration::from_secs(600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_head_without_room_ends_the_connection() {
    let room = LargeHeads::default();
    let _taken = room.take_all();
    let (mut client, server) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(server, Protocol::Http1, Arc::new(Echo), room));
    exchange(&mut client, "/small").await;
    let large = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(100 << 10));
    let _ = client.write_all(large.as_bytes()).await;
    assert_eq!(seconds_until_closed(&mut client).await, 0.0);
}

async fn exchange(client: &mut DuplexStream, path: &str) -> String {
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(path.as_bytes()) {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed after {answer:?}");
    }
    String::from_utf8(answer).unwrap()
}

async fn seconds_until_closed(client: &mut DuplexStream) -> f64 {
    let since = Instant::now();
    let mut rest = Vec::new();
    // Reset or closed, both are an end.
    let _ = client.read_to_end(&mut rest).await;
    since.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_ends() {
    let mut client = connected();
    assert_eq!(seconds_until_closed(&mut client).await.round(), 90.0);
}

#[tokio::test(start_paused = true)]
async fn each_request_keeps_the_connection() {
    let mut client = connected();
    for _ in 0..4 {
        assert!(exchange(&mut client, "/here").await.starts_with("HTTP/1.1 200 OK\r\n"));
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    exchange(&mut client, "/here").await;
    assert_eq!(seconds_until_closed(&mut client).await.round(), 90.0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_us_is_not_idle() {
    let mut client = connected();
    assert!(exchange(&mut client, "/slow").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(seconds_until_closed(&mut client).await.round(), 90.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_gets_finished_ends() {
    let mut client = connected();
    client.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(seconds_until_closed(&mut client).await.round(), 90.0);
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let mut client = connected();
    let (mut reading, mut writing) = tokio::io::split(&mut client);
    let send = async {
        let _ = writing.write_all(b"GET / HTTP/1.1\r\nx: ").await;
        let letters = [b'a'; 4096];
        // The server may close at any time from its limit on; that is the point.
        for _ in 0..(4 * HEADER_BYTES_MAX / letters.len()) {
            if writing.write_all(&letters).await.is_err() {
                break;
            }
        }
    };
    let mut answer = Vec::new();
    let receive = reading.read_to_end(&mut answer);
    let (_, received) = tokio::join!(send, receive);
    received.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
