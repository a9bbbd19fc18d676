//! Letting a container run. What keeps it from running is its end, with code 128.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rubelet_host::cgroup::{CgroupError, Driver};
use rubelet_host::chain;
use rubelet_proto::cri::ContainerEventType;
use rubelet_shim::wire::Phase;
use rubelet_shim::{Shim, ShimError};

use super::{Refusal, now_nanos};
use crate::embedded::Engine;
use crate::pods::record::End;
use crate::pods::{Container, Life, SandboxLife};
use crate::{limits, watch};

pub(crate) async fn start_container(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    let _turn = container.turn.lock().await;
    if container.life() != Life::Created {
        let state = match container.life() {
            Life::Created => "CONTAINER_CREATED",
            Life::Running { .. } => "CONTAINER_RUNNING",
            Life::Ended(_) => "CONTAINER_EXITED",
        };
        return Err(Refusal::unknown(format!(
            "failed to set starting state for container {id:?}: container is in {state} state"
        )));
    }
    let sandbox = engine.pods().sandbox(container.sandbox.as_str());
    let is_ready = sandbox.is_some_and(|s| s.life() != SandboxLife::NotReady);
    if !is_ready {
        return Err(Refusal::unknown(format!("sandbox container {:?} is not running", container.sandbox.as_str())));
    }
    let begun = container.clone();
    let started = engine.blocking(move |engine| Ok(begin(engine, &begun))).await?;
    match started {
        Ok((shim, pid, started_at_nanos)) => {
            container.life.send_replace(Life::Running { pid, started_at_nanos });
            engine.tell(container.id.as_str(), ContainerEventType::ContainerStartedEvent, &container.sandbox);
            watch::container(engine, &container, shim);
            Ok(())
        }
        Err(error) => {
            let message = format!("failed to start container: {}", chain(&error));
            let end = End {
                code: watch::START_FAILED_CODE,
                reason: "StartError".to_owned(),
                message: message.clone(),
                started_at_nanos: 0,
                finished_at_nanos: now_nanos(),
            };
            watch::ended(engine, &container, end);
            Err(Refusal::unknown(message))
        }
    }
}

fn resources(container: &Container) -> rubelet_proto::cri::LinuxContainerResources {
    let record = container.record();
    let linux = record.config.as_ref().and_then(|c| c.linux.as_ref());
    linux.and_then(|l| l.resources.clone()).unwrap_or_default()
}

/// Whether an OCI runtime creates it.
fn is_oci(engine: &Engine, container: &Container) -> bool {
    let sandbox = engine.pods().sandbox(container.sandbox.as_str());
    let handler = sandbox.map(|sandbox| sandbox.record().runtime_handler.clone()).unwrap_or_default();
    engine.handlers.find(&handler).is_some_and(|handler| handler.program.is_some())
}

/// The shim, the pid, and when it was started.
fn begin(engine: &Arc<Engine>, container: &Container) -> Result<(Shim, u32, i64), ShimError> {
    let bundle = engine.places.container(container.id.as_str());
    let log = container.record().log_path.clone();
    if let Some(dir) = Path::new(&log).parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(|source| ShimError::Start { bundle: dir.to_owned(), source })?;
    }
    let values = limits::values(&resources(container));
    let failed = |e: CgroupError| ShimError::Refused(format!("make the container's cgroup: {}", chain(&e)));
    // systemd makes a scope around a process: that of an OCI runtime, which asks for it.
    let is_made_by_runtime = engine.cgroup_driver == Driver::Systemd && is_oci(engine, container);
    let held = match is_made_by_runtime {
        true => None,
        false => Some(engine.make_cgroup(&bundle, &values).map_err(failed)?),
    };
    engine.reached("start.cgroup");
    let (shim, _) = Shim::create(&engine.program, &bundle)?;
    drop(held);
    if is_made_by_runtime {
        engine.change_cgroup(&bundle, &values).map_err(failed)?;
    }
    engine.reached("start.created");
    shim.start()?;
    engine.reached("start.started");
    let state = shim.state();
    let (pid, started_at_nanos) = match state {
        Ok(state) => match state.phase {
            Phase::Running { started_at_nanos } => (state.pid, started_at_nanos),
            Phase::Created => (state.pid, now_nanos()),
            Phase::Ended(exit) => (state.pid, exit.started_at_nanos.unwrap_or_else(now_nanos)),
        },
        // It has run and ended already: who watches it reads how.
        Err(ShimError::Gone { .. }) => (0, now_nanos()),
        Err(error) => return Err(error),
    };
    Ok((shim, pid, started_at_nanos))
}
