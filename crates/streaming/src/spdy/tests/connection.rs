use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::mux::{Limits, Stream};

/// A server and the bare other end.
fn server(options: Options) -> (Connection, DuplexStream) {
    let (here, there) = duplex(64 * 1024);
    (Connection::server(here, options), there)
}

/// A server and a client.
fn pair(options: Options) -> (Connection, Connection) {
    let (here, there) = duplex(64 * 1024);
    (Connection::server(here, options), Connection::client(there, Options::default()))
}

async fn open(server: &mut Connection, client: &Connection) -> (Stream, Stream) {
    let (ours, theirs) = tokio::join!(async { server.accept().await.unwrap().accept() }, client.open(Headers::new()));
    (ours, theirs.unwrap())
}

async fn frames(end: &mut DuplexStream, count: usize) -> Vec<Frame> {
    let (mut decoder, mut found, mut byte) = (Decoder::new(), Vec::new(), [0; 1]);
    while found.len() < count {
        end.read_exact(&mut byte).await.expect("a frame");
        if let Some(Event::Frame(frame)) = decoder.next(&mut &byte[..]).unwrap() {
            found.push(frame);
        }
    }
    found
}

#[tokio::test]
async fn pings_of_the_peer_come_back_and_answers_do_not() {
    let (_server, mut end) = server(Options::default());
    for id in [2, 1, 3] {
        end.write_all(&Encoder::new().frame(&Frame::Ping { id })).await.unwrap();
    }
    assert_eq!(frames(&mut end, 2).await, [Frame::Ping { id: 1 }, Frame::Ping { id: 3 }]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_and_does_not_read_is_cut_off() {
    let (here, mut end) = duplex(64);
    let mut server = Connection::server(here, Options::default());
    let ping = Encoder::new().frame(&Frame::Ping { id: 1 });
    let asking = tokio::spawn(async move {
        while end.write_all(&ping).await.is_ok() {}
        end
    });
    assert!(server.accept().await.is_none());
    server.hang_up().wait().await;
    drop(server);
    asking.await.unwrap();
}

#[tokio::test]
async fn streams_with_wrong_numbers_end_the_connection() {
    for ids in [&[2][..], &[3, 1], &[1, 1]] {
        let (mut server, mut end) = server(Options::default());
        let mut encoder = Encoder::new();
        for id in ids {
            end.write_all(&encoder.frame(&syn_stream(*id, Headers::new()))).await.unwrap();
        }
        let mut accepted = 0;
        while let Some(incoming) = server.accept().await {
            drop(incoming.accept());
            accepted += 1;
        }
        assert_eq!(accepted, ids.len() - 1, "{ids:?}");
    }
}

#[tokio::test]
async fn too_many_streams_are_refused_until_some_end() {
    let options = Options { limits: Limits { streams: 2, ..Limits::default() }, ..Options::default() };
    let (mut server, client) = pair(options);
    let first = open(&mut server, &client).await;
    let _second = open(&mut server, &client).await;
    assert!(matches!(client.open(Headers::new()).await, Err(OpenError::Refused)));
    let (mut ours, mut theirs) = first;
    theirs.shutdown().await.unwrap();
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0, "its end is written");
    open(&mut server, &client).await;
}

#[tokio::test]
async fn a_rejected_stream_is_refused() {
    let (mut server, client) = pair(Options::default());
    let (_, opened) = tokio::join!(async { server.accept().await.unwrap().reject() }, client.open(Headers::new()));
    assert!(matches!(opened, Err(OpenError::Refused)));
}

#[tokio::test]
async fn each_direction_ends_for_itself() {
    let (mut server, client) = pair(Options::default());
    let (mut ours, mut theirs) = open(&mut server, &client).await;
    theirs.write_all(b"question").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    ours.write_all(b"answer").await.unwrap();
    drop(ours);
    text.clear();
    theirs.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    assert_eq!(theirs.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_reset_ends_both_directions() {
    let (mut server, client) = pair(Options::default());
    let (mut ours, mut theirs) = open(&mut server, &client).await;
    theirs.reset();
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    let (mut ours, mut theirs) = open(&mut server, &client).await;
    ours.write_all(b"rest").await.unwrap();
    ours.flush().await.unwrap();
    ours.reset();
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "rest", "for a client a reset is the end of what was written");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_stops_the_connection_until_it_is_read() {
    let limits = Limits { stream_bytes: 100_000, ..Limits::default() };
    let (mut server, client) = pair(Options { limits, ..Options::default() });
    let (mut full, mut writer) = open(&mut server, &client).await;
    let (mut other, mut through) = open(&mut server, &client).await;
    let writing = tokio::spawn(async move {
        writer.write_all(&vec![1; 2_000_000]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    // Time passes only when no task can go on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writing.is_finished(), "the bound holds");
    through.write_all(b"x").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), other.read_exact(&mut [0; 1])).await.is_err());
    let mut all = Vec::new();
    full.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 2_000_000);
    other.read_exact(&mut [0; 1]).await.unwrap();
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writers_wait_when_the_peer_does_not_read() {
    let (here, mut end) = duplex(1024);
    let limits = Limits { write_bytes: 64 * 1024, total_bytes: 100_000, ..Limits::default() };
    let mut server = Connection::server(here, Options { limits, ..Options::default() });
    let mut encoder = Encoder::new();
    let mut writing = tokio::task::JoinSet::new();
    for id in [1, 3, 5] {
        end.write_all(&encoder.frame(&syn_stream(id, Headers::new()))).await.unwrap();
        let mut stream = server.accept().await.unwrap().accept();
        writing.spawn(async move { stream.write_all(&vec![7; 300_000]).await.unwrap() });
    }
    // Time passes only when no task can go on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(writing.try_join_next().is_none(), "nobody has written all");
    let mut bytes = Vec::new();
    let reading = tokio::spawn(async move {
        end.read_to_end(&mut bytes).await.unwrap();
        bytes.len()
    });
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    server.close().await;
    assert!(reading.await.unwrap() > 900_000);
}

#[tokio::test]
async fn what_nobody_wants_any_more_does_not_stop_the_connection() {
    let limits = Limits { stream_bytes: 100_000, ..Limits::default() };
    let (mut server, client) = pair(Options { limits, ..Options::default() });
    let (ours, mut writer) = open(&mut server, &client).await;
    let (reader, mut kept) = ours.split();
    drop(reader);
    writer.write_all(&vec![1; 2_000_000]).await.unwrap();
    kept.write_all(b"still").await.unwrap();
    let mut text = [0; 5];
    writer.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"still");
}

#[tokio::test]
async fn closing_writes_what_waits_and_says_goodbye() {
    let (mut server, mut end) = server(Options::default());
    end.write_all(&Encoder::new().frame(&syn_stream(1, Headers::new()))).await.unwrap();
    let mut stream = server.accept().await.unwrap().accept();
    stream.write_all(&vec![7; 60_000]).await.unwrap();
    drop(stream);
    let closing = tokio::spawn(server.close());
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).await.unwrap();
    let expected = [
        Found::Frame(Frame::SynReply { id: 1, is_fin: false, headers: Headers::new() }),
        Found::Data(1, vec![7; 60_000], true),
        Found::Frame(Frame::GoAway { last_good: 1, status: 0 }),
    ];
    assert!(decode(&bytes, &[]).unwrap() == expected);
    drop(end);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_for_readers_and_one_that_ends_is_not() {
    let (mut server, client) = pair(Options::default());
    let (mut ours, _theirs) = open(&mut server, &client).await;
    client.close().await;
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
    let (mut server, mut end) = self::server(Options::default());
    end.write_all(&Encoder::new().frame(&syn_stream(1, Headers::new()))).await.unwrap();
    let mut stream = server.accept().await.unwrap().accept();
    end.write_all(&[0xff; 100]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_traffic_ends() {
    let (server, mut end) = server(Options { idle: Duration::from_secs(100), ..Options::default() });
    let mut hang_up = server.hang_up();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(90)).await;
        end.write_all(&Encoder::new().frame(&Frame::Ping { id: 1 })).await.unwrap();
        assert!(!hang_up.is_over(), "pings are traffic");
    }
    let start = tokio::time::Instant::now();
    hang_up.wait().await;
    assert_eq!(start.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_cannot_hold_a_closed_connection() {
    let (here, mut end) = duplex(64);
    let mut server = Connection::server(here, Options::default());
    end.write_all(&Encoder::new().frame(&syn_stream(1, Headers::new()))).await.unwrap();
    let mut stream = server.accept().await.unwrap().accept();
    stream.write_all(&[7; 30_000]).await.unwrap();
    let start = tokio::time::Instant::now();
    server.close().await;
    assert!(start.elapsed() <= Duration::from_secs(40), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_gets_a_reset() {
    let (here, mut end) = duplex(64 * 1024);
    let client = Connection::client(here, Options::default());
    assert!(matches!(client.open(Headers::new()).await, Err(OpenError::Timeout(_))));
    let found = frames(&mut end, 2).await;
    assert_eq!(found, [syn_stream(1, Headers::new()), Frame::RstStream { id: 1, status: CANCEL }]);
}
