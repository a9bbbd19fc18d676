//! Removing a container, by force if it runs.

use std::sync::Arc;

use rubelet_proto::cri::ContainerEventType;

use super::{Refusal, stop_container};
use crate::embedded::Engine;
use crate::pods::Container;
use crate::sweep;

/// A container that is not there is removed.
pub(crate) async fn remove_container(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let Some(container) = engine.pods().container(id) else { return Ok(()) };
    remove(engine, &container).await
}

pub(crate) async fn remove(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<(), Refusal> {
    let _turn = container.turn.lock().await;
    stop_container::stop(engine, container, 0).await?;
    engine.reached("remove-container.stopped");
    let id = container.id.to_string();
    engine.blocking(move |engine| sweep::container(engine, &id)).await?;
    engine.pods().forget_container(&container.id);
    engine.tell(container.id.as_str(), ContainerEventType::ContainerDeletedEvent, &container.sandbox);
    Ok(())
}
