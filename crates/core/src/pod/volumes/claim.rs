//! Volumes behind a claim: a PersistentVolumeClaim, or the claim of a generic ephemeral volume.

use rubelet_api::v1;

use super::{View, csi};
use crate::pod::needs::{Claim, Lack, claim_of};
use crate::pod::step::VolumeKind;
use crate::render::RenderError;

/// What kind of PersistentVolume this node mounts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Persistent<'a> {
    HostPath(&'a v1::HostPathVolumeSource),
    Local(&'a v1::LocalVolumeSource),
    Csi(&'a v1::CSIPersistentVolumeSource),
    Nfs(&'a v1::NFSVolumeSource),
    Other { what: &'static str, plugin: &'static str },
}

/// The claim of a volume and what it is bound to, once both are known.
pub(super) fn found<'a>(view: &View<'a>, volume: &v1::Volume) -> Option<Result<&'a Claim, Lack>> {
    claim_of(view.pod, volume).map(|name| view.inputs.claim(name))
}

pub(super) fn persistent(volume: &v1::PersistentVolume) -> Persistent<'_> {
    let Some(spec) = &volume.spec else {
        return Persistent::Other { what: "a PersistentVolume without a source", plugin: "kubernetes.io/empty" };
    };
    if let Some(host) = &spec.host_path {
        return Persistent::HostPath(host);
    }
    if let Some(local) = &spec.local {
        return Persistent::Local(local);
    }
    if let Some(csi) = &spec.csi {
        return Persistent::Csi(csi);
    }
    if let Some(nfs) = &spec.nfs {
        return Persistent::Nfs(nfs);
    }
    let (what, plugin) = [
        (spec.iscsi.is_some(), "iscsi", "kubernetes.io/iscsi"),
        (spec.fc.is_some(), "fc", "kubernetes.io/fc"),
        (spec.flex_volume.is_some(), "flexVolume", "kubernetes.io/flexvolume"),
    ]
    .into_iter()
    .find_map(|(is_it, what, plugin)| is_it.then_some((what, plugin)))
    .unwrap_or(("unknown", "kubernetes.io/unknown"));
    Persistent::Other { what, plugin }
}

pub(super) fn kind(
    view: &View<'_>,
    volume: &v1::Volume,
    found: Result<&Claim, Lack>,
) -> Result<VolumeKind, RenderError> {
    let refusal = |message: String| RenderError { reason: "FailedMount", message };
    let unprocessed = |why: &str| Ok(VolumeKind::Unprocessed { message: why.to_owned() });
    let claim = match found {
        Ok(claim) => claim,
        Err(Lack::NoServer) => {
            return Err(refusal("this kind of volume needs an API server, no kubeClient defined".to_owned()));
        }
        Err(Lack::NotYet) => return unprocessed("its claim has not been fetched yet"),
        Err(Lack::NotFound(text) | Lack::Failed(text)) => return unprocessed(&text),
    };
    if volume.ephemeral.is_some() && !is_owned(view.pod, &claim.claim) {
        return unprocessed(&not_ours(view.pod, &claim.claim));
    }
    if let Some(why) = wrong_use(view.pod, volume, &claim.volume) {
        return unprocessed(&why);
    }
    check_affinity(view, &claim.volume).map_err(refusal)?;
    let is_read_only = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
    match persistent(&claim.volume) {
        Persistent::Csi(source) => csi::persistent(view, claim, source, is_read_only),
        Persistent::Local(source) if is_block(&claim.volume) => {
            let name = claim.volume.metadata.name.as_deref().unwrap_or_default();
            Ok(VolumeKind::Device { source: source.path.clone().into(), map: super::local_device(view, name) })
        }
        Persistent::HostPath(_) | Persistent::Nfs(_) | Persistent::Other { .. } if is_block(&claim.volume) => {
            Err(refusal(format!("volume {} has volumeMode Block, which its plugin does not support", volume.name)))
        }
        Persistent::HostPath(source) => Ok(VolumeKind::HostPath { type_: source.type_.clone().unwrap_or_default() }),
        Persistent::Local(source) => Ok(VolumeKind::Local { source: source.path.clone().into(), is_read_only }),
        Persistent::Nfs(source) => {
            let options = claim.volume.spec.as_ref().and_then(|s| s.mount_options.as_deref()).unwrap_or_default();
            Ok(super::nfs(source, options, is_read_only))
        }
        Persistent::Other { what, .. } => {
            Err(refusal(format!("PersistentVolumes of the kind {what} are not supported by rubelet yet")))
        }
    }
}

/// `volumeMode: Block`.
pub(super) fn is_block(volume: &v1::PersistentVolume) -> bool {
    volume.spec.as_ref().and_then(|s| s.volume_mode.as_deref()) == Some("Block")
}

/// kubelet 1.36: a file system is mounted, a device is passed in.
fn wrong_use(pod: &v1::Pod, volume: &v1::Volume, bound: &v1::PersistentVolume) -> Option<String> {
    let is_block = is_block(bound);
    let ephemeral = crate::render::ephemeral(pod);
    let mut all = crate::render::containers(pod).chain(&ephemeral);
    let is_misused = all.any(|c| match is_block {
        true => c.volume_mounts.iter().flatten().any(|m| m.name == volume.name),
        false => c.volume_devices.iter().flatten().any(|d| d.name == volume.name),
    });
    let (mode, field) = if is_block { ("Block", "volumeMounts") } else { ("Filesystem", "volumeDevices") };
    is_misused.then(|| format!("volume {} has volumeMode {mode}, but is specified in {field}", volume.name))
}

/// Whether the claim was made for this very pod.
fn is_owned(pod: &v1::Pod, claim: &v1::PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|o| o.controller == Some(true));
    owners.any(|o| Some(o.uid.as_str()) == pod.metadata.uid.as_deref())
}

fn not_ours(pod: &v1::Pod, claim: &v1::PersistentVolumeClaim) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (of, name) = (claim.metadata.name.as_deref(), pod.metadata.name.as_deref());
    let (of, name) = (of.unwrap_or_default(), name.unwrap_or_default());
    format!(
        "error processing PVC {namespace}/{of}: PVC {namespace}/{of} was not created for pod {namespace}/{name} (pod is not owner)"
    )
}

/// kubelet 1.36: a volume that names this node by its host name label only; other labels are the scheduler's business.
fn check_affinity(view: &View<'_>, volume: &v1::PersistentVolume) -> Result<(), String> {
    const HOSTNAME: &str = "kubernetes.io/hostname";
    let spec = volume.spec.as_ref();
    let required = spec.and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    let Some(required) = required else { return Ok(()) };
    let is_here = |term: &v1::NodeSelectorTerm| {
        let by_host = term.match_expressions.iter().flatten().filter(|e| e.key == HOSTNAME);
        by_host.into_iter().all(|e| {
            let is_listed = e.values.iter().flatten().any(|v| *v == view.node.name);
            match e.operator.as_str() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                _ => true,
            }
        })
    };
    if required.node_selector_terms.iter().any(is_here) {
        Ok(())
    } else {
        Err("MountVolume.NodeAffinity check failed: no matching NodeSelectorTerms".to_owned())
    }
}
