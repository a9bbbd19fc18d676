//! Volumes of CSI drivers: brought up, and grown, with what the claim's status says of that.

use std::path::Path;

use rubelet_api::v1;
use rubelet_apiserver::{Client, Patch, Path as Target};
use rubelet_core::now::Wall;
use rubelet_core::pod::Outcome;
use rubelet_core::pod::fact::{Done, Growth, VolumeNews};
use rubelet_core::pod::step::{CsiVolume, Expansion, VolumeKind, VolumePlan};
use rubelet_core::pod::volumes::expansion;
use rubelet_host::chain;
use rubelet_volumes::MountError;
use rubelet_volumes::csi::{CsiError, Mounting, Place};
use serde_json::Value;

use super::{PodRef, failed};
use crate::hands::Hands;

/// How often a claim is written that others write, too.
const TRIES: usize = 5;

/// Stages, grows and publishes a volume; one that is published already is published again only.
pub(super) async fn mount(hands: &Hands, pod: &PodRef, plan: &VolumePlan, volume: &CsiVolume) -> Outcome {
    let _turn = hands.drivers.turn(&volume.driver, &volume.handle).await;
    match try_mount(hands, pod, plan, volume).await {
        Ok(news) if news == VolumeNews::default() => Ok(Done::Mounted),
        Ok(news) => Ok(Done::Volume(news)),
        Err(error) => Err(failed(error.reason(), chain(&error))),
    }
}

async fn try_mount(
    hands: &Hands,
    pod: &PodRef,
    plan: &VolumePlan,
    volume: &CsiVolume,
) -> Result<VolumeNews, MountError> {
    let place = Place { root_dir: &hands.root_dir, uid: pod.uid.as_str() };
    let mounting = Mounting::begin(place, plan, volume, &hands.drivers).await?;
    if volume.is_again {
        mounting.publish().await?;
        return Ok(VolumeNews::default());
    }
    mounting.stage().await?;
    let mut news = VolumeNews::default();
    let expand = |phase, error: CsiError| MountError::Expand { volume: plan.name.clone(), phase, source: error.into() };
    let expansion = volume.expansion.as_ref();
    let is_device = volume.device.is_some();
    if let Some(expansion) = expansion.filter(|_| mounting.is_staged() && !is_device) {
        let grown = grow(hands, &mounting, expansion, &volume.staging).await;
        news.growth = Some(grown.map_err(|e| expand("MountDevice", e))?);
    }
    mounting.publish().await?;
    if let Some(expansion) = expansion.filter(|_| !mounting.is_staged() || is_device) {
        let grown = grow(hands, &mounting, expansion, published(plan, volume)).await;
        news.growth = Some(grown.map_err(|e| expand("Setup", e))?);
    }
    news.mapped = volume.device.as_ref().map(|device| (device.map.global.clone(), plan.path.clone()));
    Ok(news)
}

/// Grows a volume that is mounted.
pub(super) async fn expand(hands: &Hands, pod: &PodRef, plan: &VolumePlan) -> Outcome {
    let VolumeKind::Csi(volume) = &plan.kind else { return Ok(Done::Plain) };
    let Some(expansion) = &volume.expansion else { return Ok(Done::Plain) };
    let _turn = hands.drivers.turn(&volume.driver, &volume.handle).await;
    let place = Place { root_dir: &hands.root_dir, uid: pod.uid.as_str() };
    let mounting = Mounting::begin(place, plan, volume, &hands.drivers).await;
    let mounting = mounting.map_err(|e| failed("VolumeResizeFailed", chain(&e)))?;
    match grow(hands, &mounting, expansion, published(plan, volume)).await {
        Ok(growth) => Ok(Done::Volume(VolumeNews { growth: Some(growth), mapped: None })),
        Err(error) => {
            let told =
                format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {}", plan.name, chain(&error));
            Err(failed("VolumeResizeFailed", told))
        }
    }
}

fn published<'a>(plan: &'a VolumePlan, volume: &'a CsiVolume) -> &'a Path {
    match &volume.device {
        Some(device) => &device.publish,
        None => &plan.path,
    }
}

/// kubelet 1.36: the claim says that it is under way, then that it is done or why it cannot be.
async fn grow(hands: &Hands, mounting: &Mounting<'_>, expansion: &Expansion, at: &Path) -> Result<Growth, CsiError> {
    if !mounting.may_grow() {
        return Ok(Growth::Left(expansion.bytes));
    }
    let claim = Told::fetch(hands.client.as_ref(), expansion).await;
    claim.tell(expansion::started).await;
    match mounting.grow(expansion, at).await {
        Ok(()) => finish(hands.client.as_ref(), expansion).await.map(|()| Growth::Done(expansion.bytes)),
        // kubelet 1.36: not while it is in use; that is no failure.
        Err(error) if error.is_of(&["FailedPrecondition"]) => Ok(Growth::Left(expansion.bytes)),
        Err(error) => {
            let may_go_on = ["Canceled", "DeadlineExceeded", "Unavailable", "ResourceExhausted", "Aborted"];
            if !error.is_of(&may_go_on) {
                let is_infeasible = error.is_of(&["InvalidArgument", "OutOfRange", "NotFound"]);
                let (why, now) = (chain(&error), Wall::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                let claim = Told::fetch(hands.client.as_ref(), expansion).await;
                claim.tell(|claim| Some(expansion::failed(claim, &why, &now, is_infeasible))).await;
            }
            Err(error)
        }
    }
}

/// The claim has its size. kubelet 1.36: if that cannot be told the driver is asked again, for which it has nothing to do.
async fn finish(client: Option<&Client>, expansion: &Expansion) -> Result<(), CsiError> {
    let Some(client) = client else { return Ok(()) };
    let path = Target::to::<v1::PersistentVolumeClaim>(&expansion.claim.namespace, &expansion.claim.name);
    let mut left = TRIES;
    loop {
        left -= 1;
        // Each time as it is now: the controller writes into it, too.
        let told = match client.get::<v1::PersistentVolumeClaim>(&path).await {
            Ok(claim) => {
                let patch = Patch::Merge(expansion::finished(&claim, &expansion.size));
                client.patch::<v1::PersistentVolumeClaim>(&path.clone().part("status"), &patch).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => return Ok(()),
            // Nobody is left to be told.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() && left > 0 => {}
            Err(error) => return Err(CsiError::Claim { name: expansion.claim.name.clone(), why: chain(&error) }),
        }
    }
}

/// A claim whose status is told of; what cannot be told is in the log, and told with the end of its growth.
struct Told<'a> {
    client: Option<&'a Client>,
    path: Target,
    claim: Option<v1::PersistentVolumeClaim>,
}

impl<'a> Told<'a> {
    async fn fetch(client: Option<&'a Client>, expansion: &Expansion) -> Self {
        let path = Target::to::<v1::PersistentVolumeClaim>(&expansion.claim.namespace, &expansion.claim.name);
        let claim = match client {
            Some(client) => match client.get::<v1::PersistentVolumeClaim>(&path).await {
                Ok(claim) => Some(claim),
                Err(error) => {
                    tracing::warn!(
                        claim = expansion.claim.name,
                        err = chain(&error),
                        "reading a claim that grows failed"
                    );
                    None
                }
            },
            None => None,
        };
        Self { client, path, claim }
    }

    async fn tell(self, change: impl FnOnce(&v1::PersistentVolumeClaim) -> Option<Value>) {
        let (Some(client), Some(claim)) = (self.client, &self.claim) else { return };
        let Some(patch) = change(claim) else { return };
        let path = self.path.part("status");
        if let Err(error) = client.patch::<v1::PersistentVolumeClaim>(&path, &Patch::Merge(patch)).await {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(claim = name, err = chain(&error), "telling of a claim that grows failed");
        }
    }
}
