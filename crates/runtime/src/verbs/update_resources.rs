//! Changing the resources of a living container or sandbox.

use std::sync::Arc;

use rubelet_proto::cri;

use super::{Doing, Refusal};
use crate::embedded::Engine;
use crate::limits;
use crate::pods::Life;

pub(crate) async fn update_container_resources(
    engine: &Arc<Engine>,
    request: cri::UpdateContainerResourcesRequest,
) -> Result<(), Refusal> {
    let id = request.container_id;
    let container = engine.pods().container(&id).ok_or_else(|| Refusal::no_container(&id))?;
    let _turn = container.turn.lock().await;
    if let Life::Ended(_) = container.life() {
        return Err(Refusal::unknown(format!("failed to update resources: container {id:?} has ended")));
    }
    let wanted = request.linux.unwrap_or_default();
    let bundle = engine.places.container(container.id.as_str());
    let written = limits::merge(&earlier(&container), &wanted);
    // One that is not started has no cgroup yet: it gets it with what is recorded.
    if let Life::Running { .. } = container.life() {
        let values = limits::values(&written);
        engine
            .blocking(move |engine| engine.change_cgroup(&bundle, &values).doing("failed to update resources"))
            .await?;
        engine.reached("update-container.changed");
    }
    let record = {
        let mut record = container.record();
        if let Some(config) = &mut record.config {
            let linux = config.linux.get_or_insert_default();
            linux.resources = Some(limits::merge(&linux.resources.clone().unwrap_or_default(), &wanted));
        }
        record.clone()
    };
    engine.container_records.write(container.id.as_str(), &record).doing("record the container's resources")?;
    engine.reached("update-container.recorded");
    Ok(())
}

/// The pod's resources are in its own cgroup, which is the agent's; what is kept here is what status answers.
pub(crate) async fn update_pod_sandbox_resources(
    engine: &Arc<Engine>,
    request: cri::UpdatePodSandboxResourcesRequest,
) -> Result<(), Refusal> {
    let id = request.pod_sandbox_id;
    let sandbox = engine.pods().sandbox(&id).ok_or_else(|| Refusal::no_sandbox(&id))?;
    let _turn = sandbox.turn.lock().await;
    let record = {
        let mut record = sandbox.record();
        if let Some(config) = &mut record.config {
            let linux = config.linux.get_or_insert_default();
            linux.overhead = request.overhead.or(linux.overhead.take());
            linux.resources = request.resources.or(linux.resources.take());
        }
        record.clone()
    };
    engine.sandbox_records.write(sandbox.id.as_str(), &record).doing("record the sandbox's resources")?;
    engine.reached("update-pod.recorded");
    Ok(())
}

fn earlier(container: &crate::pods::Container) -> cri::LinuxContainerResources {
    let record = container.record();
    let linux = record.config.as_ref().and_then(|c| c.linux.as_ref());
    linux.and_then(|l| l.resources.clone()).unwrap_or_default()
}
