//! What a runtime says of itself.

use std::sync::Arc;

use super::checks::{ensure, same, some, until};
use super::pod::SOON;
use super::{Bench, Result, suite};

suite! {
    "the version is told whole" => version;
    "the runtime and its network are ready" => conditions;
    "the status tells details when asked" [Processes] => details;
    "the cgroup driver is told" [Processes] => driver;
    "the file systems of images are told" [Processes] => file_systems;
}

async fn version(bench: Arc<Bench>) -> Result {
    let version = rubelet_cri::check_version(bench.runtime()).await?;
    same("the version of the interface", version.runtime_api_version, "v1")
}

async fn conditions(bench: Arc<Bench>) -> Result {
    let status = some("the status", bench.runtime().status(false).await?.status)?;
    for kind in ["RuntimeReady", "NetworkReady"] {
        let condition = some(kind, status.conditions.iter().find(|condition| condition.r#type == kind))?;
        ensure(condition.status || kind == "NetworkReady" && !bench.has(super::Need::Network), || {
            format!("{kind} is false: {} {}", condition.reason, condition.message)
        })?;
    }
    Ok(())
}

async fn details(bench: Arc<Bench>) -> Result {
    let brief = bench.runtime().status(false).await?;
    ensure(brief.info.is_empty(), || format!("nobody asked for {:?}", brief.info))?;
    let verbose = bench.runtime().status(true).await?;
    ensure(!verbose.info.is_empty(), || "there are no details".to_owned())
}

async fn driver(bench: Arc<Bench>) -> Result {
    let config = bench.runtime().runtime_config().await?;
    some("the configuration for Linux", config.linux).map(drop)
}

async fn file_systems(bench: Arc<Bench>) -> Result {
    // Runtimes look now and then.
    let answer = until("used bytes are told", SOON, async || {
        let answer = bench.runtime().image_fs_info().await?;
        let is_told = answer.image_filesystems.iter().any(|usage| usage.used_bytes.is_some_and(|used| used.value > 0));
        Ok(is_told.then_some(answer))
    })
    .await?;
    for usage in answer.image_filesystems {
        let mountpoint = some("the identifier", usage.fs_id)?.mountpoint;
        ensure(std::path::Path::new(&mountpoint).is_dir(), || format!("{mountpoint:?} is no directory"))?;
        ensure(usage.timestamp > 0, || "the time is not told".to_owned())?;
        ensure(some("inodes_used", usage.inodes_used)?.value > 0, || "no inodes are used".to_owned())?;
    }
    Ok(())
}
