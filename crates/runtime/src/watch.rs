//! Hearing how sandboxes and containers end.

use std::path::PathBuf;
use std::sync::Arc;

use rubelet_host::chain;
use rubelet_host::ready::readable;
use rubelet_proto::cri::ContainerEventType;
use rubelet_shim::wire::Exit;
use rubelet_shim::{Shim, ShimError, Standing};

use crate::embedded::Engine;
use crate::pods::record::End;
use crate::pods::{Container, Life, Sandbox, SandboxLife};
use crate::sweep;

/// Code of a container that never ran, as containerd's.
pub(crate) const START_FAILED_CODE: i32 = 128;
/// Code of an end that nobody saw.
pub(crate) const UNSEEN_CODE: i32 = 255;

/// Follows a sandbox's pause process.
pub(crate) fn sandbox(engine: &Arc<Engine>, sandbox: &Arc<Sandbox>, shim: Shim) {
    let (engine, sandbox) = (engine.clone(), sandbox.clone());
    let bundle = engine.places.sandbox(sandbox.id.as_str());
    rubelet_host::task::spawn(async move {
        let _ = until_end(shim, bundle).await;
        let was_ready = sandbox.life.send_replace(SandboxLife::NotReady) != SandboxLife::NotReady;
        if was_ready {
            engine.tell(sandbox.id.as_str(), ContainerEventType::ContainerStoppedEvent, &sandbox.id);
        }
    });
}

/// Follows a container that runs.
pub(crate) fn container(engine: &Arc<Engine>, container: &Arc<Container>, shim: Shim) {
    let (engine, container) = (engine.clone(), container.clone());
    let bundle = engine.places.container(container.id.as_str());
    rubelet_host::task::spawn(async move {
        let started_at_nanos = match container.life() {
            Life::Running { started_at_nanos, .. } => started_at_nanos,
            Life::Created | Life::Ended(_) => 0,
        };
        let end = match until_end(shim, bundle.clone()).await {
            Ok(exit) => end_of(&exit, started_at_nanos),
            Err(error) => unseen(started_at_nanos, chain(&error)),
        };
        // What is empty goes at once; should it stay, it goes with the container.
        let _ = engine.blocking(move |engine| sweep::remove_cgroup(engine, &bundle)).await;
        ended(&engine, &container, end);
    });
}

/// Records an end and tells it, once.
pub(crate) fn ended(engine: &Engine, container: &Container, end: End) {
    let record = {
        let mut record = container.record();
        record.end = Some(end.clone());
        record.clone()
    };
    engine.reached("end.seen");
    // One that is being removed has lost its record, and gets none again.
    let is_known = engine.pods().container(container.id.as_str()).is_some();
    if is_known && let Err(error) = engine.container_records.write(container.id.as_str(), &record) {
        tracing::warn!(container = %container.id, err = %error, "the end of a container is not recorded");
    }
    engine.reached("end.recorded");
    container.life.send_replace(Life::Ended(end));
    engine.tell(container.id.as_str(), ContainerEventType::ContainerStoppedEvent, &container.sandbox);
}

/// What users are told about an exit.
pub(crate) fn end_of(exit: &Exit, started_at_nanos: i64) -> End {
    let reason = match (exit.oom_kills, exit.code) {
        (1.., code) if code != 0 => "OOMKilled",
        (_, 0) => "Completed",
        (_, _) => "Error",
    };
    End {
        code: exit.code,
        reason: reason.to_owned(),
        message: String::new(),
        started_at_nanos: exit.started_at_nanos.unwrap_or(started_at_nanos),
        finished_at_nanos: exit.finished_at_nanos,
    }
}

/// An end that nobody saw.
pub(crate) fn unseen(started_at_nanos: i64, message: String) -> End {
    End {
        code: UNSEEN_CODE,
        reason: "Unknown".to_owned(),
        message,
        started_at_nanos,
        finished_at_nanos: crate::verbs::now_nanos(),
    }
}

/// The exit of what a shim keeps. A shim that was killed is cleaned up after.
async fn until_end(shim: Shim, bundle: PathBuf) -> Result<Exit, ShimError> {
    let failed = |source| ShimError::Talk { bundle: PathBuf::new(), source };
    let watch = match shim.watch_exit() {
        // It has ended already.
        Err(ShimError::Gone { .. }) => None,
        watch => Some(watch?),
    };
    drop(shim);
    if let Some(watch) = &watch {
        readable(watch).await.map_err(failed)?;
    }
    let find = move || match watch.map(rubelet_shim::ExitWatch::wait) {
        None | Some(Err(ShimError::Gone { .. })) => match Shim::attach(&bundle)? {
            Standing::Ended(exit) => Ok(exit),
            Standing::Lost(birth) => Shim::end_lost(&bundle, &birth),
            Standing::Kept(_) | Standing::Unborn => Err(ShimError::Gone { bundle }),
        },
        Some(exit) => exit,
    };
    rubelet_host::task::blocking(find).await.map_err(|e| failed(std::io::Error::other(e)))?
}
