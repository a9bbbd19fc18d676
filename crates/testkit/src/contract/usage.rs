//! Statistics.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::ContainerId;
use rubelet_proto::cri;

use super::checks::{ensure, refused, same, some, until};
use super::pod::SOON;
use super::{Bench, Pod, Result, suite};

suite! {
    "a running container's usage is told" [Processes] => of_a_container;
    "the usage of containers is listed" [Processes] => listed;
    "the list of usage can be narrowed" [Processes] => filters;
    "the usage of what is not there is refused" [Processes] => unknown;
    "a sandbox's usage is told" [Processes] => of_a_sandbox;
    "a sandbox without a cgroup has not the machine's usage" [Processes] => without_cgroup;
    "the usage of sandboxes can be narrowed" [Processes] => sandbox_filters;
    "metrics are described and told" [Processes] => metrics;
    "what is written into a container is counted" [Processes] => writable_layer;
}

fn is_whole(stats: &cri::ContainerStats) -> Result {
    let cpu = some("the CPU's usage", stats.cpu.as_ref())?;
    ensure(cpu.timestamp > 0, || "the CPU's time is not told".to_owned())?;
    ensure(some("the CPU's nanoseconds", cpu.usage_core_nano_seconds)?.value > 0, || "no CPU was used".to_owned())?;
    let memory = some("the memory's usage", stats.memory.as_ref())?;
    ensure(memory.timestamp > 0, || "the memory's time is not told".to_owned())?;
    ensure(some("the working set", memory.working_set_bytes)?.value > 0, || "no memory is used".to_owned())
}

async fn of_a_container(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let config = pod.container("a", &["sh", "-c", "while true; do :; done"]);
    let id = pod.start(config.clone()).await?;
    let stats = some("the usage", bench.runtime().container_stats(&id).await?)?;
    let attributes = some("the attributes", stats.attributes.clone())?;
    same("the id", attributes.id.as_str(), id.as_str())?;
    same("the metadata", &attributes.metadata, &config.metadata)?;
    same("the labels", &attributes.labels, &config.labels)?;
    same("the annotations", &attributes.annotations, &config.annotations)?;
    is_whole(&stats)?;
    let used = |stats: &cri::ContainerStats| {
        stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.map(|usage| usage.value))
    };
    let before = used(&stats);
    until("the CPU's usage grows", SOON, async || {
        let now = bench.runtime().container_stats(&id).await?.as_ref().and_then(used);
        Ok((now > before).then_some(()))
    })
    .await
}

async fn ids(bench: &Arc<Bench>, filter: Option<cri::ContainerStatsFilter>) -> Result<Vec<String>> {
    let rows = bench.runtime().list_container_stats(filter).await?;
    let mut ids: Vec<String> = rows.into_iter().filter_map(|row| Some(row.attributes?.id)).collect();
    ids.sort();
    Ok(ids)
}

fn sorted(ids: &[&ContainerId]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

async fn three(pod: &Pod) -> Result<[ContainerId; 3]> {
    Ok([pod.waiting("a").await?, pod.waiting("b").await?, pod.waiting("c").await?])
}

async fn listed(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let three = three(&pod).await?;
    let all = ids(&bench, None).await?;
    ensure(three.iter().all(|id| all.contains(&id.to_string())), || format!("listed: {all:?}, made: {three:?}"))?;
    let filter = cri::ContainerStatsFilter { pod_sandbox_id: pod.id.to_string(), ..Default::default() };
    for stats in bench.runtime().list_container_stats(Some(filter)).await? {
        is_whole(&stats)?;
    }
    Ok(())
}

async fn filters(bench: Arc<Bench>) -> Result {
    let (one, two) = (bench.pod().await?, bench.pod().await?);
    let mark = BTreeMap::from([("mark".to_owned(), format!("m{}", bench.number()))]);
    let marked = |config: &mut cri::ContainerConfig| config.labels.extend(mark.clone());
    let (a, b) = (one.waiting_with("a", marked).await?, one.waiting("b").await?);
    let other = two.waiting_with("a", marked).await?;
    let by_id = cri::ContainerStatsFilter { id: a.to_string(), ..Default::default() };
    let by_pod = cri::ContainerStatsFilter { pod_sandbox_id: one.id.to_string(), ..Default::default() };
    let by_label = cri::ContainerStatsFilter { label_selector: mark.clone(), ..Default::default() };
    let by_both = cri::ContainerStatsFilter { label_selector: mark.clone(), ..by_pod.clone() };
    let none = cri::ContainerStatsFilter { id: "none".to_owned(), ..Default::default() };
    same("by id", ids(&bench, Some(by_id)).await?, sorted(&[&a]))?;
    same("by sandbox", ids(&bench, Some(by_pod)).await?, sorted(&[&a, &b]))?;
    same("by label", ids(&bench, Some(by_label)).await?, sorted(&[&a, &other]))?;
    same("by sandbox and label", ids(&bench, Some(by_both)).await?, sorted(&[&a]))?;
    same("by an id that is none", ids(&bench, Some(none)).await?, Vec::<String>::new())
}

async fn unknown(bench: Arc<Bench>) -> Result {
    refused("a container's usage", bench.runtime().container_stats(&"none".into()).await).map(drop)
}

async fn of_a_sandbox(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let stats = some("the usage", bench.runtime().pod_sandbox_stats(&pod.id).await?)?;
    let attributes = some("the attributes", stats.attributes)?;
    same("the id", attributes.id.as_str(), pod.id.as_str())?;
    same("the metadata", &attributes.metadata, &pod.config.metadata)?;
    same("the labels", &attributes.labels, &pod.config.labels)?;
    let linux = some("what Linux has", stats.linux)?;
    let containers: Vec<String> =
        linux.containers.iter().filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone())).collect();
    same("its containers", containers, vec![id.to_string()])?;
    is_whole(&linux.containers[0])?;
    if bench.has(super::Need::Network) {
        let network = some("the network's usage", linux.network)?;
        let interface = some("the usage of eth0", network.default_interface)?;
        same("the interface", interface.name.as_str(), "eth0")?;
    }
    Ok(())
}

/// Runtimes may refuse it, too.
async fn without_cgroup(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| config.linux.get_or_insert_default().cgroup_parent.clear()).await?;
    let stats = bench.runtime().pod_sandbox_stats(&pod.id).await.ok().flatten();
    let linux = stats.and_then(|stats| stats.linux).unwrap_or_default();
    same("the CPU's usage", linux.cpu, None)?;
    same("the memory's usage", linux.memory, None)
}

async fn sandbox_filters(bench: Arc<Bench>) -> Result {
    let (one, two) = (bench.pod().await?, bench.pod().await?);
    let found = async |filter: Option<cri::PodSandboxStatsFilter>| -> Result<Vec<String>> {
        let rows = bench.runtime().list_pod_sandbox_stats(filter).await?;
        Ok(rows.into_iter().filter_map(|row| Some(row.attributes?.id)).collect())
    };
    let by_id = cri::PodSandboxStatsFilter { id: one.id.to_string(), ..Default::default() };
    let by_label = cri::PodSandboxStatsFilter {
        label_selector: BTreeMap::from([("pod".to_owned(), two.config.labels["pod"].clone())]),
        ..Default::default()
    };
    same("by id", found(Some(by_id)).await?, vec![one.id.to_string()])?;
    same("by label", found(Some(by_label)).await?, vec![two.id.to_string()])?;
    let all = found(None).await?;
    ensure([&one, &two].iter().all(|pod| all.contains(&pod.id.to_string())), || format!("listed: {all:?}"))
}

async fn writable_layer(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    pod.sh(&id, "head -c 3000000 /dev/urandom > /big; sync").await?;
    // Runtimes look now and then.
    until("three million bytes are counted", SOON, async || {
        let layer = bench.runtime().container_stats(&id).await?.and_then(|stats| stats.writable_layer);
        let used = layer.and_then(|layer| layer.used_bytes).map_or(0, |used| used.value);
        Ok((used >= 3_000_000).then_some(()))
    })
    .await
}

async fn metrics(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let descriptors = bench.runtime().list_metric_descriptors().await?;
    let keys: BTreeMap<_, _> = descriptors.into_iter().map(|one| (one.name, one.label_keys)).collect();
    let pods = bench.runtime().list_pod_sandbox_metrics().await?;
    let ours = some("the pod", pods.into_iter().find(|one| one.pod_sandbox_id == pod.id.as_str()))?;
    let its = some("the container", ours.container_metrics.iter().find(|one| one.container_id == id.as_str()))?;
    let known = |row: &cri::Metric| keys.get(&row.name).is_some_and(|keys| keys.len() == row.label_values.len());
    for row in ours.metrics.iter().chain(&its.metrics) {
        ensure(known(row), || format!("{} has other labels than described: {:?}", row.name, row.label_values))?;
    }
    let is_there = |rows: &[cri::Metric], name: &str| rows.iter().any(|row| row.name == name);
    for name in
        ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_memory_usage_bytes"]
    {
        ensure(is_there(&its.metrics, name), || format!("{name} is not told of the container"))?;
    }
    let network = "container_network_receive_bytes_total";
    let is_told = !bench.has(super::Need::Network) || is_there(&ours.metrics, network);
    ensure(is_told, || format!("{network} is not told of the pod"))
}
