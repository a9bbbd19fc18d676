//! Telling what runs of its new size.

use std::sync::Arc;

use rubelet_api::ids::{ContainerId, PodUid};
use rubelet_core::pod::Outcome;
use rubelet_core::pod::fact::Done;
use rubelet_core::pod::step::{ResizeContainer, ResizePod};
use rubelet_host::cgroup::Values;
use rubelet_host::chain;
use rubelet_proto::cri;

use super::{PodRef, failed};
use crate::hands::Hands;
use crate::observer::{Ask, Sighting, look};

/// Asks the runtime, then writes the pod's cgroup.
pub(super) async fn pod(hands: &Arc<Hands>, pod: &PodRef, resize: ResizePod) -> (Outcome, Vec<Sighting>) {
    let resource = resize.part.resource();
    match hands.runtime.update_pod_sandbox_resources(resize.request.clone()).await {
        Ok(()) => {}
        // Kubelet 1.36: older runtimes do not know the call, and need not.
        Err(e) if e.is_unimplemented() => {}
        Err(e) => {
            let message = format!(
                "failed to notify runtime for UpdatePodSandboxResources (resource={resource}); resize rejected: {e}"
            );
            return (Err(failed("", message)), Vec::new());
        }
    }
    let hands = hands.clone();
    let written = rubelet_host::task::blocking(move || write(&hands, &resize)).await;
    let outcome = match written {
        Ok(Ok(())) => Ok(Done::Plain),
        Ok(Err(message)) => Err(failed("", message)),
        Err(e) => Err(failed("", format!("resize of pod {}: {e}", pod.key))),
    };
    (outcome, Vec::new())
}

fn write(hands: &Hands, resize: &ResizePod) -> Result<(), String> {
    let Some(tree) = &hands.cgroups else { return Ok(()) };
    if let Some(most) = resize.usage_below {
        let usage = tree.memory_usage(&resize.path).map_err(|e| chain(&e))?;
        if usage >= most {
            return Err(format!(
                "cannot decrease memory limits: attempting to set pod memory limit ({most}) below current usage ({usage})"
            ));
        }
    }
    let values = Values {
        cpu_shares: resize.cpu_shares,
        cpu_quota_us: resize.cpu_quota_us,
        cpu_period_us: resize.cpu_period_us,
        memory_limit_bytes: resize.memory_limit_bytes,
        ..Values::default()
    };
    tree.update(&resize.path, &values).map_err(|e| chain(&e))
}

/// Tells the runtime of a container's new size.
pub(super) async fn container(hands: &Hands, uid: &PodUid, resize: ResizeContainer) -> (Outcome, Vec<Sighting>) {
    if let Some(most) = resize.usage_below
        && let Err(message) = is_below(hands, &resize, most).await
    {
        return (Err(failed("", message)), Vec::new());
    }
    let request = cri::UpdateContainerResourcesRequest {
        container_id: resize.id.to_string(),
        linux: Some(resize.resources),
        ..Default::default()
    };
    let outcome = hands.runtime.update_container_resources(request).await;
    let outcome = outcome.map(|()| Done::Plain).map_err(|e| failed("", e.to_string()));
    (outcome, look(hands, uid, Ask::Container(resize.id)).await)
}

/// Kubelet 1.36: memory that is in use is not taken away.
async fn is_below(hands: &Hands, resize: &ResizeContainer, most: i64) -> Result<(), String> {
    let usage = memory_usage(hands, &resize.id).await.map_err(|e| {
        format!("cannot decrease memory limits: unable to read memory usage of container {:?}: {e}", resize.container)
    })?;
    match usage {
        Some(usage) if usage < most => Ok(()),
        Some(usage) => Err(format!(
            "cannot decrease memory limits: attempting to set container {:?} memory limit ({most}) below current usage ({usage})",
            resize.container
        )),
        None => Err(format!("cannot decrease memory limits: missing container {:?} memory usage", resize.container)),
    }
}

async fn memory_usage(hands: &Hands, id: &ContainerId) -> Result<Option<i64>, String> {
    let stats = hands.runtime.container_stats(id).await.map_err(|e| e.to_string())?;
    let usage = stats.and_then(|s| s.memory).and_then(|m| m.usage_bytes);
    Ok(usage.map(|u| i64::try_from(u.value).unwrap_or(i64::MAX)))
}
