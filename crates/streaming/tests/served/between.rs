//! What stands between a client and a runtime's server: passed on as it is, and translated.

use std::convert::Infallible;
use std::process::Stdio;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rubelet_streaming::{Body, proxy, translate};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::kubernetes_clients::{counterpart, exec, forward};
use super::*;

/// What a test asks of a front: which streams an exec has.
type Wanted = client::Wanted;

/// A kubelet in front of one URL of a runtime: translates what has to be, passes on the rest.
async fn front(target: &str, wanted: Wanted) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target: http::Uri = target.parse().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let target = target.clone();
            let service = service_fn(move |request| answer(request, target.clone(), wanted));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service).with_upgrades());
        }
    });
    format!("http://{address}/any")
}

async fn answer(request: Request<Incoming>, target: http::Uri, wanted: Wanted) -> Result<Response<Body>, Infallible> {
    let options = spdy::Options::default();
    let answer = if translate::is_remote_command(request.headers()) {
        Ok(translate::remote_command(request, target, wanted, options))
    } else if translate::is_port_forward(request.headers()) {
        translate::port_forward(request, &target, options).await
    } else {
        proxy::forward(request, &target).await
    };
    Ok(answer.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(error.to_string()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

/// The server of streams that Go runtimes use.
struct GoRuntime {
    _child: Child,
    asks: ChildStdin,
    urls: Lines<BufReader<ChildStdout>>,
}

impl GoRuntime {
    async fn start() -> Self {
        let mut command = counterpart().await;
        let mut child = command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asks, urls) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, asks, urls: BufReader::new(urls).lines() }
    }

    async fn url(&mut self, ask: Value) -> String {
        self.asks.write_all(format!("{ask}\n").as_bytes()).await.unwrap();
        self.urls.next_line().await.unwrap().unwrap()
    }
}

const OUTPUT: Wanted = Wanted { stdin: false, stdout: true, stderr: true, resize: false };

#[tokio::test]
async fn a_client_reaches_the_runtime_through_a_proxy() {
    let server = server().await;
    let url = server.exec(&exec_request(&["sh", "-c", "echo out; exit 3"])).unwrap();
    let front = front(&url, OUTPUT).await.parse().unwrap();
    let io = client::dial(&front).await.unwrap();
    let (connection, _) = client::spdy(io, &front, &["v4.channel.k8s.io"], spdy::Options::default()).await.unwrap();
    let process = client::process(&connection, OUTPUT).await.unwrap();
    let mut text = String::new();
    process.stdout.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "out\n");
    assert!(matches!(client::end(process.error).await, Ok(Status::Exited { code: 3, .. })));
    // The URL is used up: the runtime's refusal is passed on.
    let io = client::dial(&front).await.unwrap();
    let refused = client::spdy(io, &front, &["v4.channel.k8s.io"], spdy::Options::default()).await.unwrap_err();
    assert_eq!(refused.to_string(), "unable to upgrade connection: 404 Not Found: 404 page not found");
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_not_passed_on() {
    let front = front("http://127.0.0.1:1/exec/x", OUTPUT).await;
    let address = front.strip_prefix("http://").unwrap().strip_suffix("/any").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.ends_with("Upgrade request required"), "{text}");
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn this_client_speaks_with_the_server_of_go_runtimes() {
    let mut runtime = GoRuntime::start().await;
    let script = ["sh", "-c", "cat; echo err >&2; exit 9"];
    let url = runtime.url(json!({"Exec": script, "Stdin": true, "Stderr": true})).await.parse().unwrap();
    let io = client::dial(&url).await.unwrap();
    let (connection, chosen) =
        client::spdy(io, &url, &["v5.channel.k8s.io", "v4.channel.k8s.io"], spdy::Options::default()).await.unwrap();
    assert_eq!(chosen, "v4.channel.k8s.io");
    let process = client::process(&connection, Wanted { stdin: true, ..OUTPUT }).await.unwrap();
    let sent = "0123456789".repeat(300_000);
    let (mut stdin, input) = (process.stdin.unwrap(), sent.clone());
    tokio::spawn(async move {
        stdin.write_all(input.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut output, mut stderr) = (String::new(), String::new());
    process.stdout.unwrap().read_to_string(&mut output).await.unwrap();
    assert!(output == sent, "{} of {}", output.len(), sent.len());
    process.stderr.unwrap().read_to_string(&mut stderr).await.unwrap();
    assert_eq!(stderr, "err\n");
    let text = "error executing command [sh -c cat; echo err >&2; exit 9], exit code 9".to_owned();
    assert_eq!(client::end(process.error).await, Ok(Status::Exited { code: 9, text }));
    connection.close().await;
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn kubernetes_clients_reach_go_runtimes_through_us() {
    let mut runtime = GoRuntime::start().await;
    let script = ["sh", "-c", "wc -c; echo err >&2; exit 9"];
    let wanted = Wanted { stdin: true, ..OUTPUT };
    let expected =
        json!({"Stdout": "5000000\n", "Stderr": "err\n", "Error": "command terminated with exit code 9", "Code": 9});
    for transport in [&[][..], &["-websocket"]] {
        let url = runtime.url(json!({"Exec": script, "Stdin": true, "Stderr": true})).await;
        let flags = [transport, &["-stdin", "0123456789", "-repeat", "500000"]].concat();
        assert_eq!(exec(&flags, &front(&url, wanted).await).await, expected, "{transport:?}");
        let url = runtime.url(json!({"Exec": ["true"], "Tty": true})).await;
        let tty = Wanted { stdout: true, resize: true, ..Wanted::default() };
        let flags = [transport, &["-tty"]].concat();
        let sized = json!({"Stdout": "123x45\n", "Stderr": "", "Error": "", "Code": 0});
        assert_eq!(exec(&flags, &front(&url, tty).await).await, sized, "{transport:?}");
    }
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn a_runtime_that_is_gone_is_told_in_the_stream() {
    let url = front("http://127.0.0.1:1/exec/x", OUTPUT).await;
    let error = exec(&["-websocket"], &url).await["Error"].to_string();
    assert!(error.contains("connect to streaming server 127.0.0.1:1: Connection refused"), "{error}");
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn ports_of_go_runtimes_are_forwarded_through_us() {
    let (mut runtime, echo) = (GoRuntime::start().await, port_forward::echo().await);
    for transport in [&[][..], &["-websocket"]] {
        let url = front(&runtime.url(json!({"Forward": true})).await, Wanted::default()).await;
        let (mut child, local) = forward(transport, &url, echo).await;
        let mut connection = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
        connection.write_all(b"through").await.unwrap();
        connection.shutdown().await.unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "through7", "{transport:?}");
        drop(child.stdin.take());
        assert!(child.wait().await.unwrap().success());
    }
}
