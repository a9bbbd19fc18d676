use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Answers with more than anybody takes.
struct Flood {
    /// Whether the answer is still there.
    alive: Arc<Semaphore>,
}

/// The same piece, for ever.
struct Endless {
    _alive: OwnedSemaphorePermit,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 8 << 10])))))
    }
}

impl Answers for Flood {
    fn answer(self: Arc<Self>, _: Request<Incoming>) -> Answering {
        let _alive = self.alive.clone().try_acquire_owned().unwrap();
        Box::pin(async move { Response::new(Reply::Stream(Box::pin(Endless { _alive }))) })
    }
}

/// A client of a flood that reads so many pieces, one a minute, and then no more: after how many minutes the answer is given up.
async fn minutes_of_a_slow_taker(protocol: Protocol, pieces: u32) -> u64 {
    let alive = Arc::new(Semaphore::new(1));
    let (client, server) = tokio::io::duplex(16 << 10);
    let since = Instant::now();
    tokio::spawn(serve(server, protocol, Arc::new(Flood { alive: alive.clone() }), LargeHeads::default()));
    let request = || Request::builder().uri("http://a/").header("host", "a").body(String::new()).unwrap();
    let io = TokioIo::new(client);
    let mut answer = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request()).await.unwrap()
        }
        Protocol::Http2 => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request()).await.unwrap()
        }
    };
    for _ in 0..pieces {
        tokio::time::sleep(Duration::from_secs(60)).await;
        // As much as fits into what is buffered on the way, so that the server is asked for more.
        let mut taken = 0;
        while taken < 256 << 10 {
            taken += answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
    }
    let _given_up = alive.acquire().await.unwrap();
    since.elapsed().as_secs() / 60
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_given_up() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(minutes_of_a_slow_taker(protocol, 0).await, 1, "{protocol:?}: after 90 s, and 5 for the goodbye");
        assert_eq!(minutes_of_a_slow_taker(protocol, 5).await, 6, "{protocol:?}: while something is taken, it goes on");
    }
}
