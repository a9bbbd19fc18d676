//! Volumes of CSI drivers: what they wait for, and what the driver is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rubelet_api::gather::Gather;
use rubelet_api::v1;
use sha2::{Digest, Sha256};

use super::View;
use super::claim::{self, Persistent};
use crate::node::NodeFacts;
use crate::pod::needs::{
    AttachmentNeed, Claim, CsiDriver, FsGroupPolicy, Got, Inputs, Lack, Need, Needs, ObjectName, driver_token_need,
};
use crate::pod::step::{CsiDevice, CsiVolume, Expansion, VolumeKind};
use crate::render::RenderError;

pub(super) const PLUGIN: &str = "kubernetes.io/csi";

/// What a volume of a driver waits for, as far as is known which volume it is.
pub(in crate::pod) fn needs(pod: &v1::Pod, volume: &v1::Volume, node: &NodeFacts, inputs: &Inputs) -> Needs {
    let mut needs = Needs::new();
    if let Some(source) = &volume.csi {
        needs.insert(Need::CsiDriver(source.driver.clone()));
        let secret = source.node_publish_secret_ref.as_ref();
        needs.extend(secret.map(|s| Need::Secret(ObjectName::beside(pod, &s.name))));
    }
    let view = View { pod, node, pod_ips: &[], inputs };
    if let Some(driver) = driver_name(&view, volume).and_then(|name| inputs.csi_driver(name).ok()) {
        needs.extend(driver.tokens.iter().map(|token| Need::Token(driver_token_need(pod, token))));
    }
    let Some(Ok(claim)) = claim::found(&view, volume) else { return needs };
    let Persistent::Csi(source) = claim::persistent(&claim.volume) else { return needs };
    needs.insert(Need::CsiDriver(source.driver.clone()));
    needs.extend(awaited(&view, source).map(Need::Attachment));
    let secrets = [&source.node_stage_secret_ref, &source.node_publish_secret_ref, &source.node_expand_secret_ref];
    needs.extend(secrets.into_iter().flatten().map(|s| Need::Secret(secret_name(s))));
    needs
}

/// The attachment that a volume waits for.
fn awaited(view: &View<'_>, source: &v1::CSIPersistentVolumeSource) -> Option<AttachmentNeed> {
    let is_attached = view.inputs.csi_driver(&source.driver).is_ok_and(|driver| driver.needs_attachment);
    is_attached.then(|| attachment(source, view.node))
}

/// Whether a volume is to be attached to the node, and is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::pod) enum Attaching {
    Awaited,
    /// The node takes no more volumes of its driver, and the scheduler is told how many it takes.
    NoRoom,
}

/// `None`: it is attached, or does not have to be.
pub(in crate::pod) fn attaching(view: &View<'_>, volume: &v1::Volume) -> Option<Attaching> {
    let Persistent::Csi(source) = claim::persistent(&claim::found(view, volume)?.ok()?.volume) else { return None };
    match view.inputs.get(&Need::Attachment(awaited(view, source)?)) {
        Some(Got::Attachment(_)) => None,
        Some(Got::NoRoom(_)) if view.inputs.csi_driver(&source.driver).is_ok_and(|d| d.has_moving_limits) => {
            Some(Attaching::NoRoom)
        }
        Some(_) | None => Some(Attaching::Awaited),
    }
}

/// The driver of a volume, as far as is known which volume it is.
pub(super) fn driver_name<'a>(view: &View<'a>, volume: &'a v1::Volume) -> Option<&'a str> {
    if let Some(source) = &volume.csi {
        return Some(&source.driver);
    }
    match claim::persistent(&claim::found(view, volume)?.ok()?.volume) {
        Persistent::Csi(source) => Some(&source.driver),
        Persistent::HostPath(_) | Persistent::Local(_) | Persistent::Nfs(_) | Persistent::Other { .. } => None,
    }
}

fn secret_name(of: &v1::SecretReference) -> ObjectName {
    ObjectName { namespace: of.namespace.clone().unwrap_or_default(), name: of.name.clone().unwrap_or_default() }
}

/// kubelet 1.36: the name follows from the volume, its driver and the node.
fn attachment(source: &v1::CSIPersistentVolumeSource, node: &NodeFacts) -> AttachmentNeed {
    AttachmentNeed {
        name: format!("csi-{}", sha256(&[&source.volume_handle, &source.driver, &node.name])),
        driver: source.driver.clone(),
        handle: source.volume_handle.clone(),
    }
}

fn sha256(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A volume that is made for the pod and goes with it.
pub(super) fn inline(
    view: &View<'_>,
    volume: &v1::Volume,
    source: &v1::CSIVolumeSource,
) -> Result<VolumeKind, RenderError> {
    let driver = driver(view, &source.driver)?;
    if !driver.is_ephemeral {
        return Err(refusal(unsupported(&source.driver, "Ephemeral")));
    }
    let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
    let handle = format!("csi-{}", sha256(&[uid, &volume.name]));
    let mut attributes = source.volume_attributes.clone().unwrap_or_default();
    pod_attributes(view, driver, true, &mut attributes);
    let mut publish_secrets = match &source.node_publish_secret_ref {
        Some(secret) => secrets(view, ObjectName::beside(view.pod, &secret.name))?,
        None => BTreeMap::new(),
    };
    give_tokens(view, driver, &mut attributes, &mut publish_secrets)?;
    Ok(VolumeKind::Csi(Box::new(CsiVolume {
        attachment: format!("csi-{}", sha256(&[&handle, &source.driver, &view.node.name])),
        staging: staging(&view.node.root_dir, &source.driver, &handle),
        driver: source.driver.clone(),
        handle,
        node: view.node.name.clone(),
        attributes,
        publish_context: BTreeMap::new(),
        fs_type: source.fs_type.clone().unwrap_or_default(),
        mount_flags: Vec::new(),
        access_mode: "ReadWriteOnce".to_owned(),
        is_read_only: source.read_only == Some(true),
        stage_secrets: BTreeMap::new(),
        publish_secrets,
        is_ephemeral: true,
        mount_group: fs_group(view),
        device: None,
        is_attached: false,
        is_exclusive: false,
        is_again: false,
        expansion: None,
    })))
}

/// A volume that outlives the pod.
pub(super) fn persistent(
    view: &View<'_>,
    claim: &Claim,
    source: &v1::CSIPersistentVolumeSource,
    is_read_only: bool,
) -> Result<VolumeKind, RenderError> {
    let volume = &claim.volume;
    let driver = driver(view, &source.driver)?;
    if !driver.is_persistent {
        return Err(refusal(unsupported(&source.driver, "Persistent")));
    }
    let need = attachment(source, view.node);
    let name = need.name.clone();
    let publish_context =
        if driver.needs_attachment { view.inputs.attachment(need).map_err(lacking)?.clone() } else { BTreeMap::new() };
    let mut attributes = source.volume_attributes.clone().unwrap_or_default();
    pod_attributes(view, driver, false, &mut attributes);
    let secrets_of = |of: &Option<v1::SecretReference>| match of {
        Some(of) => secrets(view, secret_name(of)),
        None => Ok(BTreeMap::new()),
    };
    let spec = volume.spec.as_ref();
    let access_modes = spec.and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    let is_exclusive = access_modes == ["ReadWriteOncePod"];
    refuse_label(view, driver, is_exclusive)?;
    let mut publish_secrets = secrets_of(&source.node_publish_secret_ref)?;
    give_tokens(view, driver, &mut attributes, &mut publish_secrets)?;
    let is_read_only = is_read_only || source.read_only == Some(true);
    let name_of_volume = volume.metadata.name.as_deref().unwrap_or_default();
    let device = claim::is_block(volume).then(|| device(view, name_of_volume));
    let expansion = match super::expansion::wanted(claim).filter(|_| !is_read_only) {
        Some((size, bytes)) => Some(Expansion {
            claim: ObjectName {
                namespace: claim.claim.metadata.namespace.clone().unwrap_or_default(),
                name: claim.claim.metadata.name.clone().unwrap_or_default(),
            },
            size,
            bytes,
            secrets: secrets_of(&source.node_expand_secret_ref)?,
        }),
        None => None,
    };
    let staging = match &device {
        Some(_) => devices(view).join("staging").join(name_of_volume),
        None => staging(&view.node.root_dir, &source.driver, &source.volume_handle),
    };
    Ok(VolumeKind::Csi(Box::new(CsiVolume {
        attachment: name,
        staging,
        driver: source.driver.clone(),
        handle: source.volume_handle.clone(),
        node: view.node.name.clone(),
        attributes,
        publish_context,
        fs_type: source.fs_type.clone().unwrap_or_default(),
        mount_flags: spec.and_then(|s| s.mount_options.clone()).unwrap_or_default(),
        access_mode: access_modes.first().cloned().unwrap_or_else(|| "ReadWriteOnce".to_owned()),
        is_read_only,
        stage_secrets: secrets_of(&source.node_stage_secret_ref)?,
        publish_secrets,
        is_ephemeral: false,
        mount_group: fs_group(view),
        device,
        is_attached: driver.needs_attachment,
        is_exclusive,
        is_again: false,
        expansion,
    })))
}

/// Whether the volume is given to the pod's fsGroup, by the driver's policy.
pub(super) fn takes_group(view: &View<'_>, volume: &CsiVolume) -> bool {
    let policy = view.inputs.csi_driver(&volume.driver).map_or(FsGroupPolicy::None, |d| d.fs_group);
    let is_single_writer = matches!(volume.access_mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
    match policy {
        FsGroupPolicy::None => false,
        FsGroupPolicy::File => !volume.is_read_only,
        FsGroupPolicy::ReadWriteOnceWithFsType => {
            !volume.is_read_only && is_single_writer && !volume.fs_type.is_empty()
        }
    }
}

fn fs_group(view: &View<'_>) -> Option<i64> {
    view.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group)
}

/// kubelet 1.36: `plugins/kubernetes.io/csi/<driver>/<hash of the handle>/globalmount`.
pub fn staging(root_dir: &Path, driver: &str, handle: &str) -> PathBuf {
    let plugin = root_dir.join("plugins").join(PLUGIN);
    plugin.join(driver).join(sha256(&[handle])).join("globalmount")
}

/// kubelet 1.36: `plugins/kubernetes.io/csi/volumeDevices`, with `staging`, `publish` and one folder for each volume.
fn devices(view: &View<'_>) -> PathBuf {
    view.node.root_dir.join("plugins").join(PLUGIN).join("volumeDevices")
}

fn device(view: &View<'_>, volume: &str) -> CsiDevice {
    let (all, uid) = (devices(view), view.pod.metadata.uid.as_deref().unwrap_or_default());
    CsiDevice {
        map: super::device_map(view.pod, all.join(volume).join("dev")),
        publish: all.join("publish").join(volume).join(uid),
        record: all.join(volume).join("data"),
    }
}

fn driver<'a>(view: &View<'a>, name: &str) -> Result<&'a CsiDriver, RenderError> {
    view.inputs.csi_driver(name).map_err(lacking)
}

/// Mounting with a label of SELinux is not built: where upstream would do it, the volume is refused.
fn refuse_label(view: &View<'_>, driver: &CsiDriver, is_exclusive: bool) -> Result<(), RenderError> {
    let context = view.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let has_label = context.is_some_and(|c| c.se_linux_options.as_ref().is_some_and(|o| o.level.is_some()));
    let is_recursive = context.and_then(|c| c.se_linux_change_policy.as_deref()) == Some("Recursive");
    if view.node.machine.has_selinux && driver.mounts_selinux && is_exclusive && has_label && !is_recursive {
        return Err(refusal(
            "the volume is to be mounted with a label of SELinux, which rubelet does not do yet; \
             seLinuxChangePolicy: Recursive has its files labelled one by one"
                .to_owned(),
        ));
    }
    Ok(())
}

/// kubelet 1.36: by audience, as the API wrote them.
fn give_tokens(
    view: &View<'_>,
    driver: &CsiDriver,
    attributes: &mut BTreeMap<String, String>,
    secrets: &mut BTreeMap<String, String>,
) -> Result<(), RenderError> {
    if driver.tokens.is_empty() {
        return Ok(());
    }
    let mut all = serde_json::Map::new();
    for wanted in &driver.tokens {
        let token = view.inputs.token(driver_token_need(view.pod, wanted)).map_err(lacking)?;
        let status = serde_json::json!({"token": token.text, "expirationTimestamp": token.ends});
        all.insert(wanted.audience.clone(), status);
    }
    let to = if driver.are_tokens_secret { secrets } else { attributes };
    to.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), serde_json::Value::Object(all).to_string());
    Ok(())
}

/// What drivers with `podInfoOnMount` are told.
fn pod_attributes(view: &View<'_>, driver: &CsiDriver, is_ephemeral: bool, attributes: &mut BTreeMap<String, String>) {
    if driver.wants_pod {
        let metadata = &view.pod.metadata;
        let account = view.pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
        for (key, value) in [
            ("pod.name", metadata.name.clone()),
            ("pod.namespace", metadata.namespace.clone()),
            ("pod.uid", metadata.uid.clone()),
            ("serviceAccount.name", account),
            ("ephemeral", Some(is_ephemeral.to_string())),
        ] {
            attributes.insert(format!("csi.storage.k8s.io/{key}"), value.unwrap_or_default());
        }
    }
}

fn secrets(view: &View<'_>, of: ObjectName) -> Result<BTreeMap<String, String>, RenderError> {
    let secret = view.inputs.secret(of).map_err(lacking)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(secret.data.iter().flatten().map(|(key, value)| (key.clone(), text(&value.0))).into_map())
}

fn unsupported(driver: &str, mode: &str) -> String {
    format!("volume mode \"{mode}\" not supported by driver {driver} (no CSIDriver object says so)")
}

fn lacking(lack: Lack) -> RenderError {
    refusal(match lack {
        Lack::NoServer => "this kind of volume needs an API server, no kubeClient defined".to_owned(),
        Lack::NotYet => "an object of its driver has not been fetched yet".to_owned(),
        Lack::NotFound(text) | Lack::Failed(text) => text,
    })
}

fn refusal(message: String) -> RenderError {
    RenderError { reason: "FailedMount", message }
}
