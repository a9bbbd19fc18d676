//! WebSocket protocols that clients of Kubernetes spoke before version 5, and that any program may speak.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rubelet_streaming::websocket::{Channels, Coding, Role, accept_key};
use rubelet_streaming::{Limits, Reader};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The connection behind a URL after the handshake.
async fn connect(url: &str, protocol: &'static str) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    let url = url.parse().unwrap();
    let mut headers = HeaderMap::new();
    let mut fields = vec![
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];
    if !protocol.is_empty() {
        fields.push(("sec-websocket-protocol", protocol));
    }
    fields.into_iter().for_each(|(name, value)| drop(headers.insert(name, HeaderValue::from_static(value))));
    let answer = client::ask(client::dial(&url).await.unwrap(), Method::GET, &url, headers).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["sec-websocket-accept"], accept_key(KEY).as_str());
    let chosen = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
    assert_eq!(chosen.unwrap_or_default(), protocol);
    client::upgraded(answer).await.unwrap()
}

/// A client's channels: 0 to write, the others to read.
async fn channels(
    url: &str,
    protocol: &'static str,
    coding: Coding,
) -> (Channels, rubelet_streaming::Stream, Vec<Reader>) {
    let io = connect(url, protocol).await;
    let mut channels = Channels::new(Role::Client, coding, Limits::default());
    let input = channels.open(0).unwrap();
    let outputs = (1..=3).map(|number| channels.open_in(number).unwrap().split().0).collect();
    channels.start(io, spdy::Options::default().idle);
    (channels, input, outputs)
}

async fn all(reader: &mut Reader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn output_and_the_end_come_in_channels() {
    let server = server().await;
    let ended = "command terminated with non-zero exit code: error executing command [sh -c echo out; echo err >&2; exit 3], exit code 3";
    for (protocol, coding) in [
        ("", Coding::Binary),
        ("channel.k8s.io", Coding::Binary),
        ("base64.channel.k8s.io", Coding::Base64),
        ("v4.channel.k8s.io", Coding::Binary),
        ("v4.base64.channel.k8s.io", Coding::Base64),
        ("v5.channel.k8s.io", Coding::BinaryWithClose),
    ] {
        let url = server.exec(&exec_request(&["sh", "-c", "echo out; echo err >&2; exit 3"])).unwrap();
        let (_channels, _input, mut outputs) = channels(&url, protocol, coding).await;
        assert_eq!(all(&mut outputs[0]).await, "out\n", "{protocol}");
        assert_eq!(all(&mut outputs[1]).await, "err\n", "{protocol}");
        let end = all(&mut outputs[2]).await;
        if protocol.starts_with('v') {
            assert!(matches!(Status::parse(end.as_bytes()), Some(Status::Exited { code: 3, .. })), "{end}");
        } else {
            assert_eq!(end, ended, "{protocol}");
        }
    }
}

#[tokio::test]
async fn the_first_message_is_empty() {
    let server = server().await;
    for (stdout, stderr, channel) in [(true, true, 1), (false, true, 2), (false, false, 3)] {
        let request = ExecRequest { stdin: true, stdout, stderr, ..exec_request(&["cat"]) };
        let mut io = connect(&server.exec(&request).unwrap(), "v4.channel.k8s.io").await;
        let mut message = [0; 3];
        io.read_exact(&mut message).await.unwrap();
        assert_eq!(message, [0x82, 1, channel]);
    }
}

#[tokio::test]
async fn input_comes_back_whole() {
    let server = server().await;
    let request = ExecRequest { stdin: true, ..exec_request(&["head", "-c", "3000000"]) };
    for (protocol, coding) in [("v4.channel.k8s.io", Coding::Binary), ("v4.base64.channel.k8s.io", Coding::Base64)] {
        let url = server.exec(&request).unwrap();
        let (_channels, mut input, mut outputs) = channels(&url, protocol, coding).await;
        let writing = tokio::spawn(async move { input.write_all("0123456789".repeat(300_000).as_bytes()).await });
        let text = all(&mut outputs[0]).await;
        assert!(text == "0123456789".repeat(300_000), "{protocol}: {}", text.len());
        writing.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn ports_have_two_channels_each() {
    let (server, echo) = (server().await, port_forward::echo().await);
    let request = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: vec![i32::from(echo), 1] };
    let io = connect(&server.port_forward(&request).unwrap(), "v4.channel.k8s.io").await;
    let mut channels = Channels::new(Role::Client, Coding::Binary, Limits::default());
    let [mut data, mut error, mut refused, mut reason] = [0, 1, 2, 3].map(|channel| channels.open(channel).unwrap());
    channels.start(io, spdy::Options::default().idle);
    let mut port = [0; 2];
    for stream in [&mut data, &mut error] {
        stream.read_exact(&mut port).await.unwrap();
        assert_eq!(u16::from_le_bytes(port), echo);
    }
    for stream in [&mut refused, &mut reason] {
        stream.read_exact(&mut port).await.unwrap();
        assert_eq!(port, [1, 0]);
    }
    data.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    data.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    let expected = "error forwarding port 1 to pod s, uid : connection refused";
    let mut text = vec![0; expected.len()];
    reason.read_exact(&mut text).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text), expected);
    channels.close().await;
}

#[tokio::test]
async fn more_ports_than_channels_are_refused() {
    let server = server().await;
    let request = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: vec![1; 128] };
    let url: http::Uri = server.port_forward(&request).unwrap().parse().unwrap();
    let mut connection = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n",
        url.path()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut text = [0; 12];
    connection.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"HTTP/1.1 400");
}

/// What comes after a handshake need not be WebSocket or SPDY: the session ends, the server stays.
#[tokio::test]
async fn garbage_ends_the_session_only() {
    let server = server().await;
    let request = ExecRequest { stdin: true, ..exec_request(&["cat"]) };
    for _ in 0..3 {
        let mut io = connect(&server.exec(&request).unwrap(), "v4.channel.k8s.io").await;
        io.write_all(&[0xff; 4096]).await.unwrap();
        _ = io.read_to_end(&mut Vec::new()).await;
        let url = server.exec(&request).unwrap().parse().unwrap();
        let headers = client::spdy_headers(&["v4.channel.k8s.io"]);
        let answer = client::ask(client::dial(&url).await.unwrap(), Method::POST, &url, headers).await.unwrap();
        let mut io = client::upgraded(answer).await.unwrap();
        io.write_all(&[0xff; 4096]).await.unwrap();
        _ = io.read_to_end(&mut Vec::new()).await;
    }
    let url = server.exec(&exec_request(&["echo", "alive"])).unwrap();
    let (_channels, _input, mut outputs) = channels(&url, "v4.channel.k8s.io", Coding::Binary).await;
    assert_eq!(all(&mut outputs[0]).await, "alive\n");
}
