//! Which namespaces are shared, and what pods are called.

use std::fs;
use std::sync::Arc;

use rubelet_proto::cri::{self, NamespaceMode};

use super::checks::{ensure, same};
use super::pod::{pod_namespaces, security};
use super::{Bench, Result, suite};

suite! {
    "a pod has its hostname" [Processes, Network] => hostname;
    "a pod in the host's network has the host's name" [Processes] => host_name;
    "a pod has the name servers that it is given" [Processes] => dns;
    "a pod without name servers has the host's" [Processes] => dns_of_host;
    "containers have process namespaces of their own" [Processes] => own_pid;
    "containers of a pod may share their processes" [Processes] => pod_pid;
    "a pod may see the host's processes" [Processes] => host_pid;
    "a container may see the processes of another" [Processes] => target_pid;
    "a pod has inter-process communication of its own" [Processes] => own_ipc;
    "a pod may have the host's inter-process communication" [Processes] => host_ipc;
    "a pod has a network of its own" [Processes, Network] => own_network;
    "a pod may have the host's network" [Processes] => host_network;
}

async fn hostname(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| "some-name".clone_into(&mut config.hostname)).await?;
    same(
        "the name",
        pod.said("hostname; cat /etc/hostname; echo $HOSTNAME", |_| {}).await?.as_str(),
        "some-name\nsome-name\nsome-name",
    )
}

pub(super) fn in_host_network(config: &mut cri::PodSandboxConfig) {
    pod_namespaces(config).set_network(NamespaceMode::Node);
    // kubelet 1.36: none is asked for then.
    config.hostname.clear();
}

async fn host_name(bench: Arc<Bench>) -> Result {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    let pod = bench.pod_with(in_host_network).await?;
    same("the name", pod.said("hostname", |_| {}).await?, host)
}

async fn dns(bench: Arc<Bench>) -> Result {
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let pod = bench
        .pod_with(|config| {
            config.dns_config = Some(cri::DnsConfig {
                servers: strings(&["10.96.0.10", "1.1.1.1"]),
                searches: strings(&["a.example", "b.example"]),
                options: strings(&["ndots:5", "edns0"]),
            });
        })
        .await?;
    let said = pod.said("cat /etc/resolv.conf", |_| {}).await?;
    let found: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let wanted = ["search a.example b.example", "nameserver 10.96.0.10", "nameserver 1.1.1.1", "options ndots:5 edns0"];
    same("the file", found, wanted)
}

async fn dns_of_host(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let host = fs::read_to_string("/etc/resolv.conf")?;
    let said = pod.said("cat /etc/resolv.conf; touch /etc/resolv.conf && echo '#'", |_| {}).await?;
    same("the file", said.trim_end_matches('#').trim_end(), host.trim_end())
}

async fn own_pid(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod.said("echo $$", |_| {}).await?;
    same("its number", said.as_str(), "1")
}

async fn pod_pid(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| pod_namespaces(config).set_pid(NamespaceMode::Pod)).await?;
    let (a, b) = (pod.waiting("a").await?, pod.waiting("b").await?);
    let namespace = "readlink /proc/self/ns/pid";
    same("their namespaces", pod.sh(&a, namespace).await?, pod.sh(&b, namespace).await?)?;
    let host = fs::read_link("/proc/self/ns/pid")?.display().to_string();
    ensure(pod.sh(&a, namespace).await? != host, || "it is the host's".to_owned())?;
    // The first process is the sandbox's, which takes over whom the others leave behind.
    let first = pod.sh(&a, "tr '\\0' ' ' < /proc/1/cmdline").await?;
    ensure(!first.contains("sleep") && !first.starts_with("sh "), || format!("the first process is {first:?}"))
}

async fn host_pid(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| pod_namespaces(config).set_pid(NamespaceMode::Node)).await?;
    let host = fs::read_link("/proc/self/ns/pid")?.display().to_string();
    same("the namespace", pod.said("readlink /proc/self/ns/pid", |_| {}).await?, host)
}

async fn target_pid(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let target = pod.waiting("a").await?;
    let said = pod
        .said("cat /proc/1/cmdline | tr '\\0' ' '", |config| {
            let options = security(config).namespace_options.get_or_insert_default();
            options.set_pid(NamespaceMode::Target);
            target.as_str().clone_into(&mut options.target_id);
        })
        .await?;
    ensure(said.contains("sleep 1000"), || format!("the first process is {said:?}"))
}

async fn own_ipc(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let (a, b) = (pod.waiting("a").await?, pod.waiting("b").await?);
    let namespace = "readlink /proc/self/ns/ipc";
    let found = pod.sh(&a, namespace).await?;
    same("their namespaces", found.as_str(), pod.sh(&b, namespace).await?.as_str())?;
    let host = fs::read_link("/proc/self/ns/ipc")?.display().to_string();
    ensure(found != host, || "it is the host's".to_owned())
}

async fn host_ipc(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| pod_namespaces(config).set_ipc(NamespaceMode::Node)).await?;
    let host = fs::read_link("/proc/self/ns/ipc")?.display().to_string();
    same("the namespace", pod.said("readlink /proc/self/ns/ipc", |_| {}).await?, host)?;
    let mark = format!("contract-{}", bench.number());
    let said = pod.said(&format!("echo shared > /dev/shm/{mark}; echo done"), |_| {}).await?;
    let path = std::path::Path::new("/dev/shm").join(&mark);
    let found = fs::read_to_string(&path);
    // Whether it was there is judged below.
    let _ = fs::remove_file(&path);
    same("the host's shared memory", (said.as_str(), found.unwrap_or_default().as_str()), ("done", "shared\n"))
}

async fn own_network(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let (a, b) = (pod.waiting("a").await?, pod.waiting("b").await?);
    let namespace = "readlink /proc/self/ns/net";
    let found = pod.sh(&a, namespace).await?;
    same("their namespaces", found.as_str(), pod.sh(&b, namespace).await?.as_str())?;
    let host = fs::read_link("/proc/self/ns/net")?.display().to_string();
    ensure(found != host, || "it is the host's".to_owned())?;
    let interfaces = pod.sh(&a, "ls /sys/class/net").await?;
    same("the interfaces", interfaces.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"])
}

async fn host_network(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(in_host_network).await?;
    let host = fs::read_link("/proc/self/ns/net")?.display().to_string();
    same("the namespace", pod.said("readlink /proc/self/ns/net", |_| {}).await?, host)?;
    let network = pod.sandbox_status().await?.network.unwrap_or_default();
    same("the address", network.ip.as_str(), "")
}
