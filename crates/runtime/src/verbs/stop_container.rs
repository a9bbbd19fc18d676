//! Stopping a container: its stop signal, its grace, SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use rubelet_cri::Code;
use rubelet_shim::{Shim, Standing};

use super::{Doing, Refusal};
use crate::embedded::Engine;
use crate::pods::{Container, Life};

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
/// How long a process may take to end after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A container that is not there, or does not run, is stopped.
pub(crate) async fn stop_container(engine: &Arc<Engine>, id: &str, grace_secs: i64) -> Result<(), Refusal> {
    let Some(container) = engine.pods().container(id) else { return Ok(()) };
    stop(engine, &container, grace_secs).await
}

pub(crate) async fn stop(engine: &Arc<Engine>, container: &Arc<Container>, grace_secs: i64) -> Result<(), Refusal> {
    if !matches!(container.life(), Life::Running { .. }) {
        return Ok(());
    }
    let grace = Duration::from_secs(u64::try_from(grace_secs).unwrap_or(0));
    let (signal, is_alone) = {
        let record = container.record();
        (record.stop_signal, record.has_pid_namespace)
    };
    if !grace.is_zero() {
        send(engine, container, signal, false).await?;
        engine.reached("stop.asked");
        if tokio::time::timeout(grace, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    // Without a PID namespace of its own its other processes would stay behind.
    send(engine, container, SIGKILL, !is_alone).await?;
    engine.reached("stop.killed");
    match tokio::time::timeout(KILL_PATIENCE, container.ended()).await {
        Ok(_) => Ok(()),
        Err(_) => {
            let said = format!("failed to kill container {:?}: it does not end after SIGKILL", container.id.as_str());
            Err(Refusal::new(Code::DeadlineExceeded, said))
        }
    }
}

/// Sends a signal to the first process, or to all. A container that has ended meanwhile is not there to get it.
async fn send(engine: &Arc<Engine>, container: &Container, signal: i32, all: bool) -> Result<(), Refusal> {
    let bundle = engine.places.container(container.id.as_str());
    let said = format!("failed to stop container {:?}", container.id.as_str());
    engine
        .blocking(move |_| match Shim::attach(&bundle).doing(said.clone())? {
            Standing::Kept(shim) => shim.kill(signal, all).doing(said),
            // Who watches it hears of its end.
            Standing::Lost(birth) => Shim::end_lost(&bundle, &birth).map(drop).doing(said),
            Standing::Ended(_) | Standing::Unborn => Ok(()),
        })
        .await
}
