//! Limits, as the container sees them in its cgroup.

use std::sync::Arc;

use rubelet_proto::cri;

use super::checks::{refused, same, some};
use super::pod::resources;
use super::{Bench, Pod, Result, suite};

suite! {
    "a container has the limits that it is given" [Processes] => created;
    "limits of a running container can be changed" [Processes] => updated;
    "limits of a created container can be changed" [Processes] => updated_early;
    "limits are told in the status" [Processes] => told;
    "limits of what is not there are refused" [Processes] => unknown;
}

/// Prints the limit of memory, then quota and period, whatever the version of cgroups is.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max cpu.max; \
    else cat memory/memory.limit_in_bytes; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); fi";
/// Prints the CPU's weight; on version 1 its shares.
const WEIGHT: &str = "cd /sys/fs/cgroup; cat cpu.weight 2>/dev/null || cat cpu/cpu.shares";

fn limits(memory: i64, quota: i64, shares: i64) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_quota: quota,
        cpu_period: 100_000,
        cpu_shares: shares,
        ..Default::default()
    }
}

async fn are(pod: &Pod, id: &rubelet_api::ids::ContainerId, memory: i64, quota: i64) -> Result {
    same("the limits", pod.sh(id, LIMITS).await?, format!("{memory}\n{quota} 100000"))
}

async fn created(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting_with("a", |config| *resources(config) = limits(64 << 20, 50_000, 512)).await?;
    are(&pod, &id, 64 << 20, 50_000).await?;
    let weight: u64 = pod.sh(&id, WEIGHT).await?.parse().unwrap_or_default();
    // Kernels and runtimes differ in how shares become weights; all are far from the usual 100.
    super::checks::ensure(weight == 512 || (15..=70).contains(&weight), || format!("the weight is {weight}"))
}

async fn updated(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting_with("a", |config| *resources(config) = limits(64 << 20, 50_000, 512)).await?;
    let linux = Some(limits(96 << 20, 70_000, 1024));
    let request = cri::UpdateContainerResourcesRequest { container_id: id.to_string(), linux, ..Default::default() };
    bench.runtime().update_container_resources(request).await?;
    are(&pod, &id, 96 << 20, 70_000).await
}

async fn updated_early(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &["sh", "-c", "sleep 1000"]);
    *resources(&mut config) = limits(64 << 20, 50_000, 512);
    let id = pod.create(config).await?;
    let linux = Some(limits(96 << 20, 70_000, 512));
    let request = cri::UpdateContainerResourcesRequest { container_id: id.to_string(), linux, ..Default::default() };
    bench.runtime().update_container_resources(request).await?;
    bench.runtime().start_container(&id).await?;
    are(&pod, &id, 96 << 20, 70_000).await
}

async fn told(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting_with("a", |config| *resources(config) = limits(64 << 20, 50_000, 512)).await?;
    let told = async || -> Result<(i64, i64, i64)> {
        let linux = some("resources", pod.status(&id).await?.resources.and_then(|resources| resources.linux))?;
        Ok((linux.memory_limit_in_bytes, linux.cpu_quota, linux.cpu_shares))
    };
    same("at first", told().await?, (64 << 20, 50_000, 512))?;
    let linux = Some(limits(96 << 20, 70_000, 512));
    let request = cri::UpdateContainerResourcesRequest { container_id: id.to_string(), linux, ..Default::default() };
    bench.runtime().update_container_resources(request).await?;
    same("after a change", told().await?, (96 << 20, 70_000, 512))
}

async fn unknown(bench: Arc<Bench>) -> Result {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: "none".to_owned(),
        linux: Some(limits(96 << 20, 70_000, 512)),
        ..Default::default()
    };
    refused("new limits of nothing", bench.runtime().update_container_resources(request).await).map(drop)
}
