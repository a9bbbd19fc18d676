use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use rubelet_streaming::spdy::{Connection, Headers};
use tokio::net::TcpListener;

/// A port on which everything that comes in goes back, and then its length.
pub(super) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let len = tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.write_all(len.to_string().as_bytes()).await.unwrap();
            });
        }
    });
    port
}

async fn connect(server: &Server) -> Connection {
    let request = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: Vec::new() };
    let url = server.port_forward(&request).unwrap().parse().unwrap();
    let io = client::dial(&url).await.unwrap();
    client::spdy(io, &url, &["portforward.k8s.io"], spdy::Options::default()).await.unwrap().0
}

#[tokio::test]
async fn connections_into_the_pod_share_one_connection() {
    let (server, port) = (server().await, echo().await);
    let connection = connect(&server).await;
    let mut pairs = Vec::new();
    for request in 0..20 {
        pairs.push(client::port(&connection, port, &request.to_string()).await.unwrap());
    }
    for (index, (data, _)) in pairs.iter_mut().enumerate() {
        data.write_all(format!("hello {index} ").as_bytes()).await.unwrap();
        data.shutdown().await.unwrap();
    }
    for (index, (mut data, mut error)) in pairs.into_iter().enumerate() {
        let mut text = String::new();
        data.read_to_string(&mut text).await.unwrap();
        let sent = format!("hello {index} ");
        assert_eq!(text, format!("{sent}{}", sent.len()));
        text.clear();
        error.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
    }
    connection.close().await;
}

#[tokio::test]
async fn a_port_without_listener_is_an_error_of_that_pair_only() {
    let (server, port) = (server().await, echo().await);
    let connection = connect(&server).await;
    let (_data, mut error) = client::port(&connection, 1, "a").await.unwrap();
    let mut text = String::new();
    error.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "error forwarding port 1 to pod s, uid : connection refused");
    let (mut data, _error) = client::port(&connection, port, "b").await.unwrap();
    data.write_all(b"x").await.unwrap();
    data.shutdown().await.unwrap();
    text.clear();
    data.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "x1");
}

#[tokio::test]
async fn streams_without_port_or_kind_are_rejected_and_old_clients_name_no_request() {
    let (server, port) = (server().await, echo().await);
    let connection = connect(&server).await;
    let port = port.to_string();
    let cases = [
        Headers::new(),
        Headers::new().with("streamtype", "data"),
        Headers::new().with("streamtype", "other").with("port", &port),
        Headers::new().with("streamtype", "data").with("port", "0"),
        Headers::new().with("streamtype", "data").with("port", "65536"),
    ];
    for headers in cases {
        assert!(connection.open(headers.clone()).await.is_err(), "{headers:?}");
    }
    let old = |kind| Headers::new().with("streamtype", kind).with("port", &port);
    let _error = connection.open(old("error")).await.unwrap();
    let mut data = connection.open(old("data")).await.unwrap();
    data.write_all(b"old").await.unwrap();
    data.shutdown().await.unwrap();
    let mut text = String::new();
    data.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "old3");
}

#[tokio::test]
async fn a_stalled_stream_does_not_stop_the_others() {
    let (server, port) = (server().await, echo().await);
    let connection = connect(&server).await;
    let (mut stalled, _first) = client::port(&connection, port, "stalled").await.unwrap();
    // Comes back and is not read.
    stalled.write_all(&vec![7; 1_000_000]).await.unwrap();
    let (mut data, _second) = client::port(&connection, port, "other").await.unwrap();
    data.write_all(b"through").await.unwrap();
    data.shutdown().await.unwrap();
    let mut text = String::new();
    data.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "through7");
}
