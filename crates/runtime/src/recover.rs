//! Finding again what an earlier process has left: pods that run are taken over, what was half made goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_host::chain;
use rubelet_shim::wire::Phase;
use rubelet_shim::{Shim, Standing};

use crate::embedded::Engine;
use crate::pods::record::{ContainerRecord, End, SandboxRecord};
use crate::pods::{Container, Life, Sandbox, SandboxLife, container_name, sandbox_name};
use crate::{sweep, watch};

/// What was found of one thing: what to remember, and the shim to follow.
type Found<T> = (Arc<T>, Option<Shim>);
type All = (Vec<Found<Sandbox>>, Vec<Found<Container>>);

pub(crate) async fn recover(engine: &Arc<Engine>) -> Result<(), String> {
    let found = engine.blocking(|engine| Ok(look(engine))).await.map_err(|refusal| refusal.message)??;
    let (sandboxes, containers) = found;
    for (sandbox, shim) in sandboxes {
        let name = sandbox_name(&sandbox.record().metadata());
        let mut pods = engine.pods();
        // Two records of one name are there only if somebody copied one; both are shown, so that both can be removed.
        let _ = pods.reserve(&name, sandbox.id.as_str());
        pods.add_sandbox(sandbox.clone());
        drop(pods);
        if let Some(shim) = shim {
            watch::sandbox(engine, &sandbox, shim);
        }
    }
    for (container, shim) in containers {
        let sandbox = engine.pods().sandbox(container.sandbox.as_str());
        let metadata = container.record().config.as_ref().and_then(|c| c.metadata.clone()).unwrap_or_default();
        let name = sandbox.map(|s| container_name(&metadata, &s.record().metadata()));
        let mut pods = engine.pods();
        if let Some(name) = name {
            let _ = pods.reserve(&name, container.id.as_str());
        }
        pods.add_container(container.clone());
        drop(pods);
        if let Some(shim) = shim {
            watch::container(engine, &container, shim);
        }
    }
    tidy_until_clean(engine).await
}

/// Looks at records and bundles.
fn look(engine: &Arc<Engine>) -> Result<All, String> {
    let read = |e: std::io::Error| format!("read the records: {e}");
    let sandboxes = engine.sandbox_records.read::<SandboxRecord>().map_err(read)?;
    let mut containers = engine.container_records.read::<ContainerRecord>().map_err(read)?;
    let living: BTreeSet<&str> = sandboxes.iter().map(|(id, _)| id.as_str()).collect();
    // A container without its sandbox is nobody's.
    containers.retain(|(_, record)| living.contains(record.sandbox.as_str()));
    let sandboxes = sandboxes.into_iter().map(|(id, record)| sandbox(engine, id, record)).collect();
    let containers = containers.into_iter().map(|(id, record)| container(engine, id, record)).collect();
    Ok((sandboxes, containers))
}

/// Sweeps what has a directory, a file system, a record or an address, but is not known. What does not go is logged; whether all went.
fn tidy(engine: &Arc<Engine>) -> Result<bool, String> {
    let read = |e: std::io::Error| format!("look at what is in use: {e}");
    let mut containers: BTreeSet<String> = engine.places.containers().map_err(read)?.into_iter().collect();
    containers.extend(engine.images.claimed().iter().map(|claim| sweep::owner_of(claim).to_owned()));
    let records = engine.container_records.read::<ContainerRecord>().map_err(read)?;
    containers.extend(records.into_iter().map(|(id, _)| id));
    let sandboxes = engine.places.sandboxes().map_err(read)?;
    // Looked at last: what was being made meanwhile is known by now.
    let known = engine.pods().ids();
    let mut is_clean = true;
    let mut told = |id: &str, done: Result<(), crate::verbs::Refusal>| {
        if let Err(refusal) = done {
            is_clean = false;
            tracing::warn!(id, err = %refusal.message, "something of an earlier pod does not go; it is tried again");
        }
    };
    for id in containers.iter().filter(|id| !known.contains(*id)) {
        told(id, sweep::container(engine, id));
    }
    for id in sandboxes.iter().filter(|id| !known.contains(*id)) {
        told(id, sweep::sandbox(engine, id));
    }
    let attached: Vec<String> = engine.pods().attached();
    let attached: Vec<&str> = attached.iter().map(String::as_str).collect();
    let swept = engine.network.sweep(&attached).map_err(|e| chain(&e))?;
    Ok(is_clean && swept.failed.is_empty())
}

/// How long after a sweep that left something the next one comes.
const AGAIN: Duration = Duration::from_secs(60);

/// Tidies now, and again until nothing is left.
async fn tidy_until_clean(engine: &Arc<Engine>) -> Result<(), String> {
    let once = async |engine: Arc<Engine>| engine.blocking(|engine| Ok(tidy(engine))).await.map_err(|r| r.message)?;
    if once(engine.clone()).await? {
        return Ok(());
    }
    let engine = Arc::downgrade(engine);
    rubelet_host::task::spawn(async move {
        loop {
            tokio::time::sleep(AGAIN).await;
            let Some(engine) = engine.upgrade() else { return };
            match engine.blocking(|engine| Ok(tidy(engine))).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(err)) => tracing::warn!(err, "what earlier pods left is not known"),
            }
        }
    });
    Ok(())
}

/// Asks the network, beside everything else and one pod after the other, whether the pods that were found again still have what they were
/// given. What is missing of the built-in network's rules is put back thereby; of the rest the log tells.
pub(crate) fn check_networks(engine: &Arc<Engine>) {
    let mut found = engine.pods().sandboxes();
    found.retain(|sandbox| matches!(sandbox.life(), SandboxLife::Ready { .. }) && !sandbox.record().netns.is_empty());
    let engine = Arc::downgrade(engine);
    rubelet_host::task::spawn(async move {
        for sandbox in found {
            let Some(engine) = engine.upgrade() else { return };
            let id = sandbox.id.to_string();
            let checked = engine.blocking(move |engine| Ok(engine.network.check(&id))).await;
            // Who is being stopped may have lost it already.
            let is_left_alone = sandbox.turn.try_lock().is_ok() && sandbox.life() != SandboxLife::NotReady;
            if let Ok(Err(error)) = checked
                && is_left_alone
            {
                let pod = sandbox_name(&sandbox.record().metadata());
                tracing::warn!(
                    pod,
                    sandbox = %sandbox.id,
                    err = %chain(&error),
                    "the network of a running pod is not what it was given; the pod has to be made anew to get another"
                );
            }
        }
    });
}

fn sandbox(engine: &Arc<Engine>, id: String, record: SandboxRecord) -> Found<Sandbox> {
    let bundle = engine.places.sandbox(&id);
    let shim = match record.boot_id == engine.boot_id && !record.is_stopped {
        true => Shim::attach(&bundle),
        false => Ok(Standing::Unborn),
    };
    let (life, shim) = match shim {
        Ok(Standing::Kept(shim)) => match shim.state() {
            Ok(state) if matches!(state.phase, Phase::Running { .. }) => {
                (SandboxLife::Ready { pid: state.pid }, Some(shim))
            }
            Ok(_) | Err(_) => (SandboxLife::NotReady, None),
        },
        Ok(Standing::Lost(birth)) => {
            if let Err(error) = Shim::end_lost(&bundle, &birth) {
                tracing::warn!(sandbox = id, err = %chain(&error), "the rest of a sandbox does not end");
            }
            (SandboxLife::NotReady, None)
        }
        Ok(Standing::Ended(_) | Standing::Unborn) => (SandboxLife::NotReady, None),
        Err(error) => {
            tracing::warn!(sandbox = id, err = %chain(&error), "a sandbox cannot be asked how it is");
            (SandboxLife::NotReady, None)
        }
    };
    (Sandbox::new(SandboxId::from(id), record, life), shim)
}

fn container(engine: &Arc<Engine>, id: String, record: ContainerRecord) -> Found<Container> {
    let (life, shim) = match record.end.clone() {
        Some(end) => (Life::Ended(end), None),
        None => life(engine, &id, &record),
    };
    let mut record = record;
    if let Life::Ended(end) = &life
        && record.end.is_none()
    {
        record.end = Some(end.clone());
        if let Err(error) = engine.container_records.write(&id, &record) {
            tracing::warn!(container = id, err = %error, "the end of a container is not recorded");
        }
    }
    (Container::new(ContainerId::from(id), record, life), shim)
}

fn life(engine: &Arc<Engine>, id: &str, record: &ContainerRecord) -> (Life, Option<Shim>) {
    let ended = |end: End| (Life::Ended(end), None);
    if record.boot_id != engine.boot_id {
        return ended(watch::unseen(0, "the machine was restarted".to_owned()));
    }
    let bundle = engine.places.container(id);
    match Shim::attach(&bundle) {
        Ok(Standing::Kept(shim)) => match shim.state() {
            Ok(state) => match state.phase {
                Phase::Running { started_at_nanos } => (Life::Running { pid: state.pid, started_at_nanos }, Some(shim)),
                Phase::Ended(exit) => ended(watch::end_of(&exit, 0)),
                // It was created by a start that was not finished: it starts anew.
                Phase::Created => match sweep::end_process(&bundle) {
                    Ok(()) => (Life::Created, None),
                    Err(refusal) => ended(watch::unseen(0, refusal.message)),
                },
            },
            Err(error) => ended(watch::unseen(0, chain(&error))),
        },
        Ok(Standing::Ended(exit)) if exit.started_at_nanos.is_none() => (Life::Created, None),
        Ok(Standing::Ended(exit)) => ended(watch::end_of(&exit, 0)),
        Ok(Standing::Lost(birth)) => match Shim::end_lost(&bundle, &birth) {
            Ok(exit) => ended(End { reason: "Unknown".to_owned(), ..watch::end_of(&exit, 0) }),
            Err(error) => ended(watch::unseen(0, chain(&error))),
        },
        Ok(Standing::Unborn) => (Life::Created, None),
        Err(error) => ended(watch::unseen(0, chain(&error))),
    }
}
