//! The life of sandboxes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::SandboxId;
use rubelet_cri::Code;
use rubelet_proto::cri::{self, PodSandboxState};

use super::checks::{ensure, refused, same, some};
use super::pod::pod_namespaces;
use super::{Bench, Failure, Pod, Result, suite};

suite! {
    "a sandbox runs and is told with all its attributes" => runs;
    "a sandbox's status says more when asked" [Processes] => verbose;
    "a sandbox is stopped, twice without harm" => stops;
    "stopping a sandbox ends its containers" => stops_containers;
    "a sandbox is removed with its containers, twice without harm" => removes;
    "a sandbox is removed while it runs" => removes_running;
    "sandboxes that never were are stopped and removed without harm" => unknown;
    "the list of sandboxes can be narrowed" => filters;
    "safe sysctls are set" [Processes, Network] => safe_sysctls;
    "unsafe sysctls are set" [Processes, Network] => unsafe_sysctls;
    "many sandboxes are made and removed at once" => many;
    "a sandbox whose cgroup has a parent is in it" [Processes] => cgroup_parent;
}

/// How the contract's states are named in messages.
fn state(status: &cri::PodSandboxStatus) -> PodSandboxState {
    status.state()
}

async fn runs(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let status = pod.sandbox_status().await?;
    same("the id", status.id.as_str(), pod.id.as_str())?;
    same("the state", state(&status), PodSandboxState::SandboxReady)?;
    same("the metadata", &status.metadata, &pod.config.metadata)?;
    same("the labels", &status.labels, &pod.config.labels)?;
    same("the annotations", &status.annotations, &pod.config.annotations)?;
    ensure(status.created_at > 0, || "the time of its creation is not told".to_owned())?;

    let filter = cri::PodSandboxFilter { id: pod.id.to_string(), ..Default::default() };
    let rows = bench.runtime().list_pod_sandbox(Some(filter)).await?;
    same("the number of rows", rows.len(), 1)?;
    let row = &rows[0];
    same("the row's id", row.id.as_str(), pod.id.as_str())?;
    same("the row's state", row.state(), PodSandboxState::SandboxReady)?;
    same("the row's metadata", &row.metadata, &pod.config.metadata)?;
    same("the row's labels", &row.labels, &pod.config.labels)?;
    same("the row's annotations", &row.annotations, &pod.config.annotations)?;
    same("the row's time", row.created_at, status.created_at)
}

async fn verbose(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let answer = bench.runtime().pod_sandbox_status(&pod.id, true).await?;
    ensure(!answer.info.is_empty(), || "there is no more".to_owned())?;
    let answer = bench.runtime().pod_sandbox_status(&pod.id, false).await?;
    ensure(answer.info.is_empty(), || "nobody asked".to_owned())?;
    let linux = some("what Linux has", some("the status", answer.status)?.linux)?;
    let options = some("the namespaces", some("the namespaces", linux.namespaces)?.options)?;
    same("the network's namespace", options.network, pod_namespaces(&mut pod.config.clone()).network)
}

async fn stops(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    for _ in 0..2 {
        bench.runtime().stop_pod_sandbox(&pod.id).await?;
        same("the state", state(&pod.sandbox_status().await?), PodSandboxState::SandboxNotready)?;
    }
    Ok(())
}

async fn stops_containers(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let (running, created) = (pod.waiting("a").await?, pod.create(pod.container("b", &["true"])).await?);
    bench.runtime().stop_pod_sandbox(&pod.id).await?;
    let status = pod.status(&running).await?;
    same("the state of what ran", status.state(), cri::ContainerState::ContainerExited)?;
    ensure(status.finished_at >= status.started_at, || format!("its times: {status:?}"))?;
    // One that never ran is still there to be removed.
    pod.status(&created).await.map(drop)
}

async fn is_gone(pod: &Pod) -> Result {
    let status = refused("the status of what was removed", pod.runtime().pod_sandbox_status(&pod.id, false).await)?;
    same("the code", status.code(), Some(Code::NotFound))?;
    let filter = cri::PodSandboxFilter { id: pod.id.to_string(), ..Default::default() };
    same("the list", pod.runtime().list_pod_sandbox(Some(filter)).await?, [])
}

async fn removes(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let container = pod.create(pod.container("a", &["true"])).await?;
    bench.runtime().stop_pod_sandbox(&pod.id).await?;
    for _ in 0..2 {
        bench.runtime().remove_pod_sandbox(&pod.id).await?;
        is_gone(&pod).await?;
    }
    let status = refused("the status of its container", bench.runtime().container_status(&container, false).await)?;
    same("the code", status.code(), Some(Code::NotFound))?;
    bench.runtime().stop_pod_sandbox(&pod.id).await.map_err(Into::into)
}

async fn removes_running(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let container = pod.waiting("a").await?;
    bench.runtime().remove_pod_sandbox(&pod.id).await?;
    is_gone(&pod).await?;
    let status = refused("the status of its container", bench.runtime().container_status(&container, false).await)?;
    same("the code", status.code(), Some(Code::NotFound))
}

async fn unknown(bench: Arc<Bench>) -> Result {
    let id = SandboxId::from("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    bench.runtime().stop_pod_sandbox(&id).await?;
    bench.runtime().remove_pod_sandbox(&id).await?;
    let error = refused("its status", bench.runtime().pod_sandbox_status(&id, false).await)?;
    same("the code", error.code(), Some(Code::NotFound))
}

async fn filters(bench: Arc<Bench>) -> Result {
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let mark = format!("m{}", bench.number());
    let make = |colour: &'static str| {
        let (bench, mark) = (bench.clone(), mark.clone());
        async move {
            let labels = BTreeMap::from([("mark".to_owned(), mark), ("colour".to_owned(), colour.to_owned())]);
            bench.pod_with(|config| config.labels = labels).await
        }
    };
    let (red, blue, stopped) = (make("red").await?, make("blue").await?, make("red").await?);
    bench.runtime().stop_pod_sandbox(&stopped.id).await?;
    let ready = |state: PodSandboxState| Some(cri::PodSandboxStateValue { state: state.into() });
    let both = BTreeMap::from([("mark".to_owned(), mark.clone()), ("colour".to_owned(), "red".to_owned())]);
    let cases: [(&str, cri::PodSandboxFilter, Vec<&Pod>); 8] = [
        ("by id", cri::PodSandboxFilter { id: red.id.to_string(), ..Default::default() }, vec![&red]),
        (
            "by a label",
            cri::PodSandboxFilter { label_selector: label("mark", &mark), ..Default::default() },
            vec![&red, &blue, &stopped],
        ),
        (
            "by two labels",
            cri::PodSandboxFilter { label_selector: both.clone(), ..Default::default() },
            vec![&red, &stopped],
        ),
        (
            "by label and state",
            cri::PodSandboxFilter {
                label_selector: both,
                state: ready(PodSandboxState::SandboxReady),
                ..Default::default()
            },
            vec![&red],
        ),
        (
            "by state",
            cri::PodSandboxFilter {
                label_selector: label("mark", &mark),
                state: ready(PodSandboxState::SandboxNotready),
                ..Default::default()
            },
            vec![&stopped],
        ),
        (
            "by id and a state that it is not in",
            cri::PodSandboxFilter {
                id: red.id.to_string(),
                state: ready(PodSandboxState::SandboxNotready),
                ..Default::default()
            },
            vec![],
        ),
        ("by an id that is none", cri::PodSandboxFilter { id: "none".to_owned(), ..Default::default() }, vec![]),
        (
            "by a label that none has",
            cri::PodSandboxFilter { label_selector: label("mark", "none"), ..Default::default() },
            vec![],
        ),
    ];
    for (what, filter, wanted) in cases {
        let rows = bench.runtime().list_pod_sandbox(Some(filter)).await?;
        let mut found: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let mut wanted: Vec<&str> = wanted.iter().map(|pod| pod.id.as_str()).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        same(what, found, wanted)?;
    }
    Ok(())
}

async fn safe_sysctls(bench: Arc<Bench>) -> Result {
    sysctls(bench, &[("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "1024 65000")]).await
}

async fn unsafe_sysctls(bench: Arc<Bench>) -> Result {
    sysctls(bench, &[("fs.mqueue.msg_max", "100"), ("net.core.somaxconn", "512")]).await
}

async fn sysctls(bench: Arc<Bench>, wanted: &[(&str, &str)]) -> Result {
    let set = wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let pod = bench.pod_with(|config| config.linux.get_or_insert_default().sysctls = set).await?;
    let container = pod.waiting("a").await?;
    for (name, value) in wanted {
        let found = pod.sh(&container, &format!("cat /proc/sys/{}", name.replace('.', "/"))).await?;
        same(name, found.split_whitespace().collect::<Vec<_>>().join(" "), *value)?;
    }
    Ok(())
}

async fn many(bench: Arc<Bench>) -> Result {
    let mut made = tokio::task::JoinSet::<Result>::new();
    for _ in 0..8 {
        let bench = bench.clone();
        made.spawn(async move {
            let pod = bench.pod().await?;
            pod.waiting("a").await?;
            bench.runtime().stop_pod_sandbox(&pod.id).await?;
            bench.runtime().remove_pod_sandbox(&pod.id).await?;
            Ok(())
        });
    }
    while let Some(done) = made.join_next().await {
        done.map_err(|error| Failure::Said(error.to_string()))??;
    }
    Ok(())
}

async fn cgroup_parent(bench: Arc<Bench>) -> Result {
    let parent = bench.settings.cgroup_parent.clone();
    let pod = bench.pod().await?;
    let container = pod.waiting("a").await?;
    let info = bench.runtime().container_status(&container, true).await?.info;
    let details: serde_json::Value = serde_json::from_str(some("info", info.get("info"))?).unwrap_or_default();
    let pid = some("the process", details.get("pid").and_then(serde_json::Value::as_u64))?;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure(cgroups.lines().any(|line| line.contains(&format!("{parent}/"))), || {
        format!("the container's cgroups: {cgroups}")
    })
}
