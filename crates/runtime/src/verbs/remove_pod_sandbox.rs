//! Removing a sandbox with its containers.

use std::sync::Arc;

use rubelet_proto::cri::ContainerEventType;

use super::{Refusal, remove_container, stop_pod_sandbox};
use crate::embedded::Engine;
use crate::sweep;

/// A sandbox that is not there is removed.
pub(crate) async fn remove_pod_sandbox(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let Some(sandbox) = engine.pods().sandbox(id) else { return Ok(()) };
    let _turn = sandbox.turn.lock().await;
    stop_pod_sandbox::stop(engine, &sandbox).await?;
    engine.reached("remove-pod.stopped");
    let containers = engine.pods().containers_of(&sandbox.id);
    for container in containers {
        remove_container::remove(engine, &container).await?;
    }
    engine.reached("remove-pod.containers");
    let id = sandbox.id.to_string();
    engine.blocking(move |engine| sweep::sandbox(engine, &id)).await?;
    engine.pods().forget_sandbox(&sandbox.id);
    engine.tell(sandbox.id.as_str(), ContainerEventType::ContainerDeletedEvent, &sandbox.id);
    Ok(())
}
