//! The steps that go to the container runtime.

use std::path::Path;
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::now::Wall;
use rubelet_core::pod::Outcome;
use rubelet_core::pod::fact::Done;
use rubelet_core::pod::step::{CreateContainer, LogLink};
use rubelet_core::render::CONFIG_ERROR;
use rubelet_core::render::users::{UserRange, fill_container, fill_sandbox, wants_range};
use rubelet_core::resources::{claims, devices};
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use tokio::time::Instant;

use super::{PodRef, dirs, failed};
use crate::hands::Hands;
use crate::observer::{Ask, Seen, Sighting, convert, look, look_surely};

pub(super) async fn run_sandbox(
    hands: &Arc<Hands>,
    uid: &PodUid,
    runtime_handler: String,
    mut config: cri::PodSandboxConfig,
) -> (Outcome, Vec<Sighting>) {
    match users(hands, uid, &config).await {
        Ok(None) => {}
        Ok(Some(range)) => fill_sandbox(&mut config, range),
        Err(e) => return (Err(failed("", e)), Vec::new()),
    }
    hands.allocation.fill_sandbox(&mut config, uid);
    if let Err(e) = dirs::make_log_dir(Path::new(&config.log_directory)) {
        return (Err(failed("", e)), Vec::new());
    }
    match hands.runtime.run_pod_sandbox(config, &runtime_handler).await {
        Ok(id) => (Ok(Done::Sandbox(id.clone())), look_surely(hands, uid, Ask::Sandbox(id)).await),
        // It may be there all the same: a lost answer, a half that was left.
        Err(e) => (Err(failed("", e.to_string())), look_surely(hands, uid, Ask::Pod).await),
    }
}

pub(super) async fn stop_sandbox(hands: &Hands, uid: &PodUid, id: SandboxId) -> (Outcome, Vec<Sighting>) {
    let outcome = gone_is_fine(hands.runtime.stop_pod_sandbox(&id).await);
    (outcome, look(hands, uid, Ask::Sandbox(id)).await)
}

pub(crate) async fn remove_sandbox(hands: &Hands, uid: &PodUid, id: SandboxId) -> (Outcome, Vec<Sighting>) {
    let outcome = gone_is_fine(hands.runtime.remove_pod_sandbox(&id).await);
    (outcome, look(hands, uid, Ask::Sandbox(id)).await)
}

/// The pod's range of users, when its sandbox is to have one.
async fn users(hands: &Arc<Hands>, uid: &PodUid, config: &cri::PodSandboxConfig) -> Result<Option<UserRange>, String> {
    if !wants_range(config) {
        return Ok(None);
    }
    let (hands, uid) = (hands.clone(), uid.clone());
    rubelet_host::task::blocking(move || hands.users.of(&uid).map(Some)).await.map_err(|e| e.to_string())?
}

pub(super) async fn create(hands: &Arc<Hands>, pod: &PodRef, mut create: CreateContainer) -> (Outcome, Vec<Sighting>) {
    match users(hands, &pod.uid, &create.sandbox_config).await {
        Ok(None) => {}
        Ok(Some(range)) => {
            fill_sandbox(&mut create.sandbox_config, range);
            fill_container(&mut create.config, range);
        }
        Err(e) => return (Err(failed("CreateContainerError", e)), Vec::new()),
    }
    hands.allocation.fill_sandbox(&mut create.sandbox_config, &pod.uid);
    let (on_disk, of) = (hands.clone(), pod.clone());
    if let Ok(false) = rubelet_host::task::blocking(move || dirs::are_there(&on_disk, &of)).await {
        tracing::warn!(pod = %pod.key, "somebody removed the pod's directory, it is made again");
        return (Ok(Done::GroundGone), Vec::new());
    }
    let cdi = match hands.claims.cdi_devices(&pod.pod, create.container.as_str()) {
        Ok(cdi) => cdi,
        Err(e) => return (Err(failed(CONFIG_ERROR, e)), Vec::new()),
    };
    let grants = match hands.devices.prepare(&pod.pod, create.container.as_str()).await {
        Ok(grants) => grants,
        Err(e) => return (Err(failed(CONFIG_ERROR, e)), Vec::new()),
    };
    let (sandbox, name) = (create.sandbox.clone(), create.container.clone());
    let (for_disk, owner) = (hands.clone(), pod.clone());
    let sandbox_config = create.sandbox_config.clone();
    let prepared = rubelet_host::task::blocking(move || dirs::prepare_container(&for_disk, &owner, create)).await;
    let config = match prepared {
        Ok(Ok(mut config)) => {
            devices::fill_container(&mut config, &grants);
            claims::fill_container(&mut config, cdi);
            hands.allocation.fill(&mut config, &pod.pod, name.as_str()).await;
            config
        }
        Ok(Err(failure)) => return (Err(failure), Vec::new()),
        Err(e) => return (Err(failed("CreateContainerError", e.to_string())), Vec::new()),
    };
    let wanted = convert::wanted(&config);
    let cpus = config.linux.as_ref().and_then(|linux| Some(linux.resources.as_ref()?.cpuset_cpus.clone()));
    match hands.runtime.create_container(&sandbox, config, sandbox_config).await {
        // The runtime is asked about it when it was told to start it.
        Ok(id) => {
            hands.allocation.made(&id, &cpus.unwrap_or_default());
            let made = convert::made(&id, wanted, &sandbox, Wall::now());
            let seen = Seen::Container(Box::new(made), None);
            (Ok(Done::Container(id)), vec![Sighting { at: Instant::now(), seen }])
        }
        Err(e) => (Err(failed("CreateContainerError", e.message())), look_surely(hands, &pod.uid, Ask::Pod).await),
    }
}

pub(super) async fn start(hands: &Hands, uid: &PodUid, id: ContainerId, log: LogLink) -> (Outcome, Vec<Sighting>) {
    let outcome = match hands.runtime.start_container(&id).await {
        Ok(()) => {
            if let Err(e) = dirs::link_log(&log) {
                tracing::warn!(container = %id, link = %log.link.display(), err = %e, "Failed to create legacy symbolic link");
            }
            Ok(Done::Plain)
        }
        Err(e) => Err(failed("RunContainerError", e.message())),
    };
    (outcome, look_surely(hands, uid, Ask::Container(id)).await)
}

pub(super) async fn stop(hands: &Hands, uid: &PodUid, id: ContainerId, grace_secs: i64) -> (Outcome, Vec<Sighting>) {
    let outcome = gone_is_fine(hands.runtime.stop_container(&id, grace_secs).await);
    (outcome, look(hands, uid, Ask::Container(id)).await)
}

pub(crate) async fn remove(hands: &Hands, uid: &PodUid, id: ContainerId, keep_logs: bool) -> (Outcome, Vec<Sighting>) {
    let log_path = if keep_logs { None } else { log_path(hands, &id).await };
    let outcome = gone_is_fine(hands.runtime.remove_container(&id).await);
    if outcome.is_ok()
        && let Some(path) = log_path
    {
        dirs::remove_logs(hands, &path, &id);
    }
    (outcome, look(hands, uid, Ask::Container(id)).await)
}

async fn log_path(hands: &Hands, id: &ContainerId) -> Option<String> {
    let answer = hands.runtime.container_status(id, false).await.ok()?;
    answer.status.map(|s| s.log_path).filter(|p| !p.is_empty())
}

fn gone_is_fine(answer: Result<(), RuntimeError>) -> Outcome {
    match answer {
        Ok(()) => Ok(Done::Plain),
        Err(e) if e.is_not_found() => Ok(Done::Plain),
        Err(e) => Err(failed("", e.to_string())),
    }
}
