//! The task that removes what is of no use: images, logs of pods that are gone, links that lead nowhere, and, when the node runs
//! out of room, containers that have ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::ids::{ContainerId, PodUid, SandboxId};
use rubelet_core::collect::images::{Images, Listed, Policy};
use rubelet_core::evict::Reclaim;
use rubelet_host::{chain, proc};
use rubelet_proto::cri;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::execute::containers;
use crate::hands::Hands;
use crate::observer::{Ask, UID_LABEL};
use crate::picture::Picture;
use crate::roster::RosterNote;

mod leftovers;

/// kubelet 1.36: how often images are looked at.
const IMAGE_PERIOD: Duration = Duration::from_secs(300);
/// kubelet 1.36: how often the rest is.
const REST_PERIOD: Duration = Duration::from_secs(60);

/// Somebody needs room now.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) what: Reclaim,
    /// Told when it was done.
    pub(crate) done: oneshot::Sender<()>,
}

/// What the task is given, and what it remembers.
pub(crate) struct Collector {
    pub(crate) policy: Policy,
    pub(crate) node_name: String,
    pub(crate) hands: Arc<Hands>,
    pub(crate) picture: Picture,
    pub(crate) clock: Clock,
    pub(crate) roster: mpsc::Sender<RosterNote>,
    pub(crate) images: Images,
    /// The last look at images failed.
    pub(crate) has_failed: bool,
}

impl Collector {
    /// Works until nobody demands anything any more.
    pub(crate) async fn run(mut self, mut demands: mpsc::Receiver<Demand>) {
        let mut images = tokio::time::interval(IMAGE_PERIOD);
        let mut rest = tokio::time::interval(REST_PERIOD);
        images.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                demand = demands.recv() => match demand {
                    Some(Demand { what, done }) => {
                        self.meet(what).await;
                        if done.send(()).is_err() {
                            tracing::debug!(?what, "who asked for room has ended");
                        }
                    }
                    None => return,
                },
                _ = images.tick() => self.look_at_images().await,
                _ = rest.tick() => self.remove_leftovers().await,
            }
        }
    }

    async fn meet(&mut self, what: Reclaim) {
        let outcome = match what {
            Reclaim::Containers => self.remove_ended().await,
            Reclaim::Images => self.remove_unused().await,
        };
        if let Err(err) = outcome {
            tracing::warn!(?what, err, "freeing what is of no use failed");
        }
    }

    /// kubelet 1.36: every failure is told.
    async fn remove_leftovers(&self) {
        if let Err(err) = leftovers::remove(&self.hands, &self.roster).await {
            tracing::error!(err, "removing what containers have left failed, it is tried again in a minute");
            self.hands.events.tell_of_node(&self.node_name, "Warning", "ContainerGCFailed", &err);
        }
    }

    /// The regular look. kubelet 1.36: one failure may be chance, the second one in a row is told.
    async fn look_at_images(&mut self) {
        match self.collect_images().await {
            Ok(()) => self.has_failed = false,
            Err(err) if self.has_failed => {
                tracing::error!(err, "collecting images failed multiple times in a row");
                self.hands.events.tell_of_node(&self.node_name, "Warning", "ImageGCFailed", &err);
            }
            Err(err) => {
                tracing::info!(err, "collecting images failed once; the runtime may not be ready yet");
                self.has_failed = true;
            }
        }
    }

    async fn collect_images(&mut self) -> Result<(), String> {
        let looked_at = Timestamp::now();
        self.detect().await?;
        if self.policy.is_off() {
            return Ok(());
        }
        let old = self.images.too_old(&self.policy, self.clock.now().mono);
        let are_some_old = !old.is_empty();
        self.free(old, u64::MAX, "age").await.1?;
        if are_some_old {
            self.forget_pulls(looked_at).await;
        }
        let Some(disk) = self.disk().await? else { return Ok(()) };
        let excess = self.policy.excess(disk.capacity, disk.available).map_err(|e| {
            self.hands.events.tell_of_node(&self.node_name, "Warning", "InvalidDiskCapacity", &e.to_string());
            e.to_string()
        })?;
        let Some(excess) = excess else { return Ok(()) };
        tracing::info!(
            percent = excess.used_percent,
            bytes = excess.bytes,
            "the disk of images is full; removing unused ones"
        );
        let (freed, outcome) =
            self.free(self.images.for_room(&self.policy, self.clock.now().mono), excess.bytes, "space").await;
        outcome?;
        self.forget_pulls(looked_at).await;
        if freed < excess.bytes {
            let message = excess.not_enough(disk.capacity, freed);
            self.hands.events.tell_of_node(&self.node_name, "Warning", "FreeDiskSpaceFailed", &message);
            return Err(message);
        }
        Ok(())
    }

    /// Removes all images that may go.
    async fn remove_unused(&mut self) -> Result<(), String> {
        let looked_at = Timestamp::now();
        self.detect().await?;
        self.free(self.images.for_room(&self.policy, self.clock.now().mono), u64::MAX, "space").await.1?;
        self.forget_pulls(looked_at).await;
        Ok(())
    }

    /// How images came that are gone is of no use any more.
    async fn forget_pulls(&self, looked_at: Timestamp) {
        let Some(records) = self.hands.pulled.clone() else { return };
        let here = self.images.ids();
        let done = rubelet_host::task::blocking(move || records.forget(&here, looked_at)).await;
        if let Err(err) = done {
            tracing::error!(%err, "removing records of pulls failed");
        }
    }

    /// The file system of images; `None` when the runtime does not tell where they are.
    async fn disk(&self) -> Result<Option<proc::Disk>, String> {
        let answer = match self.hands.runtime.image_fs_info().await {
            Ok(answer) => answer,
            Err(e) if e.is_unimplemented() => return Ok(None),
            Err(e) => return Err(format!("get image filesystem: {e}")),
        };
        let first = answer.image_filesystems.into_iter().next().and_then(|f| f.fs_id);
        let Some(place) = first.filter(|id| !id.mountpoint.is_empty()) else { return Ok(None) };
        let read = rubelet_host::task::blocking(move || proc::disk(place.mountpoint.as_ref()).map_err(|e| chain(&e)));
        read.await.map_err(|e| e.to_string())?.map(Some)
    }

    /// Removes images until `bytes` are free; how many are, and what went wrong. `reason`: the metrics' word.
    async fn free(&mut self, images: Vec<Listed>, bytes: u64, reason: &'static str) -> (u64, Result<(), String>) {
        let (mut freed, mut errors) = (0_u64, Vec::new());
        for image in images {
            tracing::info!(image = image.id, bytes = image.bytes, "removing an image that nobody uses");
            let spec = cri::ImageSpec { image: image.id.clone(), ..Default::default() };
            match self.hands.runtime.remove_image(spec).await {
                Ok(()) => {
                    self.images.removed(&image.id);
                    self.hands.metrics.storage.collected.of(&[reason]).add_one();
                    freed = freed.saturating_add(image.bytes);
                }
                Err(e) => errors.push(e.to_string()),
            }
            if freed >= bytes {
                break;
            }
        }
        let said = || {
            let errors = errors.join(", ");
            format!(
                "wanted to free {bytes} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
            )
        };
        (freed, if errors.is_empty() { Ok(()) } else { Err(said()) })
    }

    /// Looks at all images and at who uses them.
    async fn detect(&mut self) -> Result<(), String> {
        let failed = |what: &str, e: rubelet_cri::RuntimeError| format!("{what}: {e}");
        let listed = self.hands.runtime.list_images(None).await.map_err(|e| failed("list images", e))?;
        let users = self.hands.runtime.list_containers(None).await.map_err(|e| failed("list containers", e))?;
        let mut used: BTreeSet<String> = BTreeSet::new();
        for container in users {
            used.extend(self.mounted(&container).await?);
            used.extend([container.image_id, container.image_ref]);
            used.extend(container.image.map(|i| i.image));
        }
        // Runtimes name an image by its id, by its digest or by the words of the manifest.
        let is_used = |image: &cri::Image| {
            let mut names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
            names.any(|name| used.contains(name))
        };
        let in_use = listed.iter().filter(|i| is_used(i)).map(|i| i.id.clone()).collect();
        let listed = listed.into_iter().map(|i| Listed { id: i.id, bytes: i.size, is_pinned: i.pinned }).collect();
        self.images.detect(listed, in_use, self.clock.now().mono);
        Ok(())
    }

    /// Images that a container of a pod with image volumes has mounted.
    async fn mounted(&self, container: &cri::Container) -> Result<Vec<String>, String> {
        let uid = PodUid::new(container.labels.get(UID_LABEL).map(String::as_str).unwrap_or_default());
        if self.picture.pod(&uid).is_some_and(|pod| !has_image_volume(&pod)) {
            return Ok(Vec::new());
        }
        match self.hands.runtime.container_status(&ContainerId::new(&container.id), false).await {
            Ok(answer) => {
                let mounts = answer.status.map(|s| s.mounts).unwrap_or_default();
                Ok(mounts.into_iter().filter_map(|m| m.image).map(|i| i.image).collect())
            }
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            Err(e) => Err(format!("get container status: {e}")),
        }
    }

    /// Removes containers and sandboxes that are kept of pods that have ended. kubelet 1.36: with their logs; what they were is in the
    /// pod's status.
    async fn remove_ended(&self) -> Result<(), String> {
        let failed = |e: rubelet_cri::RuntimeError| format!("list containers: {e}");
        let all = self.hands.runtime.list_containers(None).await.map_err(failed)?;
        let mut pods = BTreeSet::new();
        let running = cri::ContainerState::ContainerRunning as i32;
        for container in all.into_iter().filter(|c| c.state != running) {
            let Some(uid) = container.labels.get(UID_LABEL).map(PodUid::new) else { continue };
            if self.picture.has_ended(&uid) {
                tracing::info!(%uid, container = container.id, "removing a container that has ended");
                let id = ContainerId::new(&container.id);
                let (outcome, _) = containers::remove(&self.hands, &uid, id, false).await;
                outcome.map_err(|e| e.message)?;
                pods.insert(uid);
            }
        }
        let left = self.hands.runtime.list_containers(None).await.map_err(failed)?;
        let is_empty = |id: &str| left.iter().all(|c| c.pod_sandbox_id != id);
        let ready = cri::PodSandboxState::SandboxReady as i32;
        let sandboxes = self.hands.runtime.list_pod_sandbox(None).await.map_err(|e| format!("list sandboxes: {e}"))?;
        for sandbox in sandboxes.into_iter().filter(|s| s.state != ready && is_empty(&s.id)) {
            let uid = PodUid::new(sandbox.metadata.map(|m| m.uid).unwrap_or_default());
            if self.picture.has_ended(&uid) {
                let (outcome, _) = containers::remove_sandbox(&self.hands, &uid, SandboxId::new(&sandbox.id)).await;
                outcome.map_err(|e| e.message)?;
                pods.insert(uid);
            }
        }
        for uid in pods {
            // A roster that has ended needs to know nothing.
            drop(self.roster.send(RosterNote::Changed(uid, Ask::Pod)).await);
        }
        Ok(())
    }
}

fn has_image_volume(pod: &rubelet_api::v1::Pod) -> bool {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().any(|v| v.image.is_some())
}
