//! The task that rotates logs of containers that run.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use jiff::Zoned;
use jiff::civil::DateTime;
use rubelet_api::ids::ContainerId;
use rubelet_api::v1;
use rubelet_core::collect::logs::{self, Policy, UNFINISHED};
use rubelet_proto::cri::ContainerState;
use tokio::time::MissedTickBehavior;

use crate::hands::Hands;
use crate::picture::{Picture, Shown};

#[cfg(test)]
mod tests;

/// When logs are rotated, and how many at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    pub policy: Policy,
    /// `containerLogMaxWorkers`.
    pub at_once: usize,
    /// `containerLogMonitorInterval`.
    pub period: Duration,
}

/// A container that runs as far as we know, and its log.
#[derive(Debug)]
struct Running {
    id: ContainerId,
    log: PathBuf,
}

/// Rotates for ever. The runtime is only asked about logs that are too large, or not where they should be.
pub(crate) async fn run(rotation: Rotation, hands: Arc<Hands>, picture: Picture) {
    let mut ticks = tokio::time::interval(rotation.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running: Vec<Running> = picture.all().iter().flat_map(|shown| running(&hands, shown)).collect();
        let bytes_max = rotation.policy.bytes_max;
        let looked = rubelet_host::task::blocking(move || {
            running.into_iter().filter(|one| is_due(&one.log, bytes_max)).collect::<Vec<_>>()
        });
        let Ok(due) = looked.await else { return };
        let rotate = async |one: Running| {
            if let Err(err) = look_after(&hands, rotation.policy, &one.id).await {
                let (container, path) = (one.id.as_str(), one.log.display());
                tracing::error!(container, %path, err, "the log of a container is not rotated; it is tried again");
            }
        };
        stream::iter(due).for_each_concurrent(rotation.at_once, rotate).await;
    }
}

/// The containers of a pod that run, with their logs.
fn running(hands: &Hands, shown: &Shown) -> Vec<Running> {
    let dir = hands.pod_logs_dir.join(format!("{}_{}_{}", shown.key.namespace, shown.key.name, shown.uid));
    let status = &shown.status;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let of = |status: &v1::ContainerStatus| {
        status.state.as_ref()?.running.as_ref()?;
        let (_, id) = status.container_id.as_deref()?.split_once("://")?;
        let log = dir.join(&status.name).join(format!("{}.log", status.restart_count));
        Some(Running { id: ContainerId::new(id), log })
    };
    lists.into_iter().flatten().flatten().filter_map(of).collect()
}

/// Too large, or not there: it was renamed, and whoever did it was killed before the runtime was told.
fn is_due(log: &Path, bytes_max: u64) -> bool {
    fs::metadata(log).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |meta| meta.len() >= bytes_max)
}

/// Rotates the log of a container if the runtime says, too, that it runs.
async fn look_after(hands: &Hands, policy: Policy, id: &ContainerId) -> Result<(), String> {
    let status = match hands.runtime.container_status(id, false).await {
        Ok(answer) => answer.status.unwrap_or_default(),
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(format!("get container status: {e}")),
    };
    if status.state() != ContainerState::ContainerRunning || status.log_path.is_empty() {
        return Ok(());
    }
    let log = PathBuf::from(status.log_path);
    let reopen = async || hands.runtime.reopen_container_log(id).await.map_err(|e| format!("reopen the log: {e}"));
    if !log.exists() {
        return reopen().await;
    }
    if !is_due(&log, policy.bytes_max) {
        return Ok(());
    }
    rotate(&log, policy, Zoned::now().datetime(), reopen).await
}

/// Makes room among the older files, renames the log, and has the runtime go on in a new one.
async fn rotate(
    log: &Path,
    policy: Policy,
    now: DateTime,
    reopen: impl AsyncFnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let path = log.to_owned();
    let rotated = blocking(move || {
        tidy(&path, policy)?;
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let name = logs::rotated(name, now);
        let rotated = path.with_file_name(&name);
        // The clock was set back.
        if rotated.exists() || path.with_file_name(logs::compressed(&name)).exists() {
            return Err(format!("{} is there already", rotated.display()));
        }
        fs::rename(&path, &rotated).map_err(|e| format!("rename it to {}: {e}", rotated.display()))?;
        Ok(rotated)
    })
    .await?;
    let Err(why) = reopen().await else { return Ok(()) };
    // kubelet 1.36: it gets its name back, so that the next round can try again.
    let path = log.to_owned();
    blocking(move || {
        if path.exists() {
            return Err(format!("{why}; yet {} is there again", path.display()));
        }
        match fs::rename(&rotated, &path) {
            Ok(()) => Err(why),
            Err(e) => Err(format!("{why}; rename {} back: {e}", rotated.display())),
        }
    })
    .await
}

fn tidy(log: &Path, policy: Policy) -> Result<(), String> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(OsStr::to_str)) else {
        return Err(format!("{} is no path of a log", log.display()));
    };
    let entries = fs::read_dir(dir).map_err(|e| format!("list {}: {e}", dir.display()))?;
    let tidy = policy.tidy(name, entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
    for name in tidy.remove {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|e| format!("remove {}: {e}", path.display()))?;
    }
    for name in tidy.compress {
        compress(&dir.join(&name), &dir.join(logs::compressed(&name)))
            .map_err(|e| format!("compress {}: {e}", dir.join(&name).display()))?;
    }
    Ok(())
}

/// Under another name until it is whole.
fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = from.as_os_str().to_owned();
    name.push(UNFINISHED);
    let unfinished = PathBuf::from(name);
    let mut source = File::open(from)?;
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&unfinished)?;
    let mut encoder = GzEncoder::new(target, flate2::Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&unfinished, to)?;
    fs::remove_file(from)
}

/// Work that waits for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    rubelet_host::task::blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}
