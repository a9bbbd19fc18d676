//! Streams: commands, a container's own process, ports.

use std::sync::Arc;

use rubelet_proto::cri;

use super::checks::{ensure, refused, same};
use super::pod::words;
use super::websocket::WebSocket;
use super::{Bench, Result, suite};

suite! {
    "a command's output is streamed" [Processes] => exec;
    "a command with a terminal is talked to" [Processes] => exec_terminal;
    "the end of a command is told with its code" [Processes] => exec_code;
    "a container's own process is talked to" [Processes] => attach;
    "a port of a pod is reached" [Processes, Network] => forward;
    "a port of a pod in the host's network is reached" [Processes] => forward_host;
    "streams need a container that runs" [Processes] => not_running;
}

const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

fn has(text: &'static str) -> impl Fn(&[u8]) -> bool {
    move |read| String::from_utf8_lossy(read).contains(text)
}

fn command(id: &rubelet_api::ids::ContainerId, script: &str) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: id.to_string(),
        cmd: words(&["sh", "-c", script]),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

async fn exec(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let url = bench.runtime().exec(command(&id, "echo to stdout; sleep 0.3; echo to stderr >&2")).await?;
    let mut stream = WebSocket::open(&url, REMOTE_COMMAND).await?;
    let stdout = stream.read(STDOUT, has("\n")).await?;
    same("its output", String::from_utf8_lossy(&stdout).as_ref(), "to stdout\n")?;
    let stderr = stream.read(STDERR, has("\n")).await?;
    same("its errors", String::from_utf8_lossy(&stderr).as_ref(), "to stderr\n")
}

async fn exec_terminal(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let request = cri::ExecRequest {
        tty: true,
        stdin: true,
        stderr: false,
        ..command(&id, "test -t 0 && echo terminal; read word; echo got $word")
    };
    let url = bench.runtime().exec(request).await?;
    let mut stream = WebSocket::open(&url, REMOTE_COMMAND).await?;
    stream
        .read(STDOUT, has("terminal"))
        .await
        .and_then(|read| ensure(has("terminal")(&read), || format!("it said {:?}", String::from_utf8_lossy(&read))))?;
    stream.send(STDIN, b"hello\n").await?;
    let read = stream.read(STDOUT, has("got hello")).await?;
    ensure(has("got hello")(&read), || format!("it said {:?}", String::from_utf8_lossy(&read)))
}

async fn exec_code(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    for (script, wanted) in [("exit 0", "\"Success\""), ("exit 7", "NonZeroExitCode")] {
        let url = bench.runtime().exec(command(&id, script)).await?;
        let told = WebSocket::open(&url, REMOTE_COMMAND).await?.read(STATUS, |read| !read.is_empty()).await?;
        let told = String::from_utf8_lossy(&told).into_owned();
        ensure(told.contains(wanted), || format!("{script}: {told:?}"))?;
        ensure(script == "exit 0" || told.contains('7'), || format!("the code is not told: {told:?}"))?;
    }
    Ok(())
}

async fn attach(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod
        .waiting_with("a", |config| {
            config.command = words(&["sh", "-c", "while read word; do echo got $word; done"]);
            config.stdin = true;
        })
        .await?;
    let request = cri::AttachRequest {
        container_id: id.to_string(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let url = bench.runtime().attach(request).await?;
    let mut stream = WebSocket::open(&url, REMOTE_COMMAND).await?;
    stream.send(STDIN, b"hello\n").await?;
    let read = stream.read(STDOUT, has("\n")).await?;
    same("what it said", String::from_utf8_lossy(&read).as_ref(), "got hello\n")?;
    super::until("it is in the log", super::pod::SOON, async || {
        Ok(pod.log("a")?.iter().any(|line| line.text == "got hello").then_some(()))
    })
    .await
}

/// Asks a server at this port of the pod for its page.
async fn reached(bench: &Arc<Bench>, change: impl FnOnce(&mut cri::PodSandboxConfig), port: u16) -> Result {
    let pod = bench.pod_with(change).await?;
    let script =
        format!("mkdir -p /www; echo served > /www/index.html; httpd -p {port} -h /www; echo ready; sleep 1000");
    pod.start(pod.container("server", &["sh", "-c", &script])).await?;
    super::until("it serves", super::pod::SOON, async || {
        Ok(pod.log("server")?.iter().any(|line| line.text == "ready").then_some(()))
    })
    .await?;
    let request = cri::PortForwardRequest { pod_sandbox_id: pod.id.to_string(), port: vec![port.into()] };
    let url = bench.runtime().port_forward(request).await?;
    let mut stream = WebSocket::open(&url, REMOTE_COMMAND).await?;
    // Each channel begins with the port's number.
    let named = stream.read(0, |read| read.len() >= 2).await?;
    same("the port", named, port.to_le_bytes().to_vec())?;
    stream.send(0, b"GET / HTTP/1.0\r\n\r\n").await?;
    let read = stream.read(0, has("served")).await?;
    ensure(has("served")(&read), || format!("it said {:?}", String::from_utf8_lossy(&read)))
}

async fn forward(bench: Arc<Bench>) -> Result {
    reached(&bench, |_| {}, 80).await
}

async fn forward_host(bench: Arc<Bench>) -> Result {
    let port = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
    reached(&bench, super::namespaces::in_host_network, port).await
}

async fn not_running(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let created = pod.create(pod.container("a", &["true"])).await?;
    refused("a command in it", bench.runtime().exec(command(&created, "true")).await)?;
    let request = cri::AttachRequest { container_id: created.to_string(), stdout: true, ..Default::default() };
    refused("its own streams", bench.runtime().attach(request).await)?;
    refused("a command nowhere", bench.runtime().exec(command(&"none".into(), "true")).await).map(drop)
}
