//! Keeps containers on their CPUs: what others have for themselves is taken from those who share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, PodUid};
use rubelet_proto::cri;

use crate::hands::Hands;
use crate::life::Life;
use crate::picture::{Picture, Shown};

/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Follows the pods, where CPUs are given to containers alone. `again`: `cpuManagerReconcilePeriod`, after which what failed is tried
/// again.
pub(crate) fn spawn(life: &Life, hands: Arc<Hands>, picture: Picture, again: Duration) {
    let Some(mut given) = hands.allocation.pins.version() else { return };
    life.spawn(async move {
        let mut pods = picture.version();
        loop {
            let failed = follow(&hands, &picture).await;
            let retry = async {
                match failed {
                    true => tokio::time::sleep(again).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = retry => {}
                changed = given.changed() => if changed.is_err() { return },
                changed = pods.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(TOGETHER).await;
            given.mark_unchanged();
            pods.mark_unchanged();
        }
    });
}

/// Takes from pods that have ended, and tells the runtime of what changed; whether something failed.
async fn follow(hands: &Hands, picture: &Picture) -> bool {
    let pins = &hands.allocation.pins;
    if pins.keep(|uid| !picture.has_ended(uid)) {
        pins.write().await;
    }
    let mut any_failed = false;
    for (id, cpus) in pins.untold(&running(&picture.all())) {
        let linux =
            cri::LinuxContainerResources { cpuset_cpus: cpus.clone(), ..cri::LinuxContainerResources::default() };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(linux),
            ..cri::UpdateContainerResourcesRequest::default()
        };
        match hands.runtime.update_container_resources(request).await {
            Ok(()) => pins.told(&id, &cpus),
            // It has gone meanwhile.
            Err(e) if e.is_not_found() => {}
            Err(err) => {
                any_failed = true;
                tracing::error!(container = %id, cpus, %err, "moving a container to its CPUs failed; it is tried again");
            }
        }
    }
    any_failed
}

/// Containers that run, and whose they are.
fn running(pods: &[Shown]) -> BTreeMap<ContainerId, (PodUid, String)> {
    let mut all = BTreeMap::new();
    for shown in pods {
        let status = &shown.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for container in lists.into_iter().flatten().flatten() {
            let is_running = container.state.as_ref().is_some_and(|state| state.running.is_some());
            let id = container.container_id.as_ref().filter(|_| is_running).and_then(|id| id.split_once("://"));
            if let Some((_, id)) = id {
                all.insert(ContainerId::new(id), (shown.uid.clone(), container.name.clone()));
            }
        }
    }
    all
}
