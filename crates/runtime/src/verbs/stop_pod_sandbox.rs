//! Stopping a sandbox: its containers at once, then its network and its pause process.

use std::sync::Arc;

use rubelet_proto::cri::ContainerEventType;

use super::{Doing, Refusal, stop_container};
use crate::embedded::Engine;
use crate::pods::{Sandbox, SandboxLife};
use crate::sweep;

/// A sandbox that is not there is stopped.
pub(crate) async fn stop_pod_sandbox(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let Some(sandbox) = engine.pods().sandbox(id) else { return Ok(()) };
    let _turn = sandbox.turn.lock().await;
    stop(engine, &sandbox).await
}

/// For who has the sandbox's turn.
pub(crate) async fn stop(engine: &Arc<Engine>, sandbox: &Arc<Sandbox>) -> Result<(), Refusal> {
    let containers = engine.pods().containers_of(&sandbox.id);
    for container in containers {
        stop_container::stop(engine, &container, 0).await?;
    }
    engine.reached("stop-pod.containers");
    if sandbox.record().is_stopped {
        return Ok(());
    }
    let id = sandbox.id.to_string();
    engine.blocking(move |engine| sweep::stop_sandbox(engine, &id)).await?;
    engine.reached("stop-pod.swept");
    let record = {
        let mut record = sandbox.record();
        record.is_stopped = true;
        record.addresses.clear();
        record.clone()
    };
    // Who watches the pause process may not have heard of its end yet; whoever is first tells it.
    if sandbox.life.send_replace(SandboxLife::NotReady) != SandboxLife::NotReady {
        engine.tell(sandbox.id.as_str(), ContainerEventType::ContainerStoppedEvent, &sandbox.id);
    }
    engine.sandbox_records.write(sandbox.id.as_str(), &record).doing("record that the sandbox is stopped")?;
    engine.reached("stop-pod.recorded");
    Ok(())
}
