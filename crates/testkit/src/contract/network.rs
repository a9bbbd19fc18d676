//! The network of pods.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rubelet_proto::cri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::checks::{ensure, same, some, until};
use super::pod::SOON;
use super::{Bench, Failure, Pod, Result, suite};

suite! {
    "a pod's address is told and answers" [Processes, Network] => address;
    "pods reach each other" [Processes, Network] => each_other;
    "a pod reaches itself" [Processes, Network] => loopback;
    "a port of the host leads to a pod" [Processes, Network] => host_port;
    "a port of one of the host's addresses leads to a pod" [Processes, Network] => host_port_at;
    "a port is given back when its pod is stopped" [Processes, Network] => port_again;
    "a pod's port needs none of the host" [Processes, Network] => container_port;
    "a stopped pod has no address any more" [Processes, Network] => given_back;
}

/// Serves a text over HTTP at port 80.
const SERVER: &str = "mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";

async fn server(bench: &Arc<Bench>, change: impl FnOnce(&mut cri::PodSandboxConfig)) -> Result<(Pod, IpAddr)> {
    let pod = bench.pod_with(change).await?;
    pod.start(pod.container("server", &["sh", "-c", SERVER])).await?;
    let network = some("the network", pod.sandbox_status().await?.network)?;
    let ip = network.ip.parse().map_err(|_| Failure::Said(format!("the address {:?} is none", network.ip)))?;
    Ok((pod, ip))
}

/// What is served there; `None`: nobody answers.
async fn get(at: SocketAddr) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(at).await.ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.rsplit_once("\r\n\r\n")?.1.trim().to_owned())
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok()?
}

async fn answers(at: SocketAddr) -> Result {
    until(&format!("{at} answers"), SOON, async || Ok(get(at).await))
        .await
        .and_then(|said| same(&format!("what {at} said"), said.as_str(), "served"))
}

async fn address(bench: Arc<Bench>) -> Result {
    let (_pod, ip) = server(&bench, |_| {}).await?;
    answers(SocketAddr::new(ip, 80)).await
}

async fn each_other(bench: Arc<Bench>) -> Result {
    let (_pod, ip) = server(&bench, |_| {}).await?;
    answers(SocketAddr::new(ip, 80)).await?;
    let other = bench.pod().await?;
    let id = other.waiting("a").await?;
    same("what the other got", other.sh(&id, &format!("wget -q -O - http://{ip}/")).await?.as_str(), "served")
}

async fn loopback(bench: Arc<Bench>) -> Result {
    let (pod, ip) = server(&bench, |_| {}).await?;
    answers(SocketAddr::new(ip, 80)).await?;
    let id = pod.waiting("a").await?;
    for host in ["127.0.0.1".to_owned(), ip.to_string()] {
        let said = pod.sh(&id, &format!("wget -q -O - http://{host}/")).await?;
        same(&host, said.as_str(), "served")?;
    }
    Ok(())
}

/// A port that nobody has at the moment.
async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port())
}

fn mapping(port: u16, host_ip: &str) -> Vec<cri::PortMapping> {
    vec![cri::PortMapping {
        host_port: port.into(),
        container_port: 80,
        host_ip: host_ip.to_owned(),
        ..Default::default()
    }]
}

async fn host_port(bench: Arc<Bench>) -> Result {
    let port = free_port().await?;
    let (_pod, _) = server(&bench, |config| config.port_mappings = mapping(port, "")).await?;
    answers(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)).await
}

async fn host_port_at(bench: Arc<Bench>) -> Result {
    let port = free_port().await?;
    let (_pod, _) = server(&bench, |config| config.port_mappings = mapping(port, "127.0.0.1")).await?;
    answers(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)).await?;
    let elsewhere = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), port);
    same("what another address answers", get(elsewhere).await, None)
}

async fn port_again(bench: Arc<Bench>) -> Result {
    let port = free_port().await?;
    let at = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
    for _ in 0..2 {
        let (pod, _) = server(&bench, |config| config.port_mappings = mapping(port, "")).await?;
        answers(at).await?;
        bench.runtime().stop_pod_sandbox(&pod.id).await?;
        same("what it answers after the stop", get(at).await, None)?;
    }
    Ok(())
}

async fn container_port(bench: Arc<Bench>) -> Result {
    let (_pod, ip) = server(&bench, |config| config.port_mappings = mapping(0, "")).await?;
    answers(SocketAddr::new(ip, 80)).await
}

async fn given_back(bench: Arc<Bench>) -> Result {
    let (pod, ip) = server(&bench, |_| {}).await?;
    answers(SocketAddr::new(ip, 80)).await?;
    bench.runtime().stop_pod_sandbox(&pod.id).await?;
    ensure(get(SocketAddr::new(ip, 80)).await.is_none(), || format!("{ip} answers still"))?;
    let network = pod.sandbox_status().await?.network.unwrap_or_default();
    same("the address", network.ip.as_str(), "")
}
