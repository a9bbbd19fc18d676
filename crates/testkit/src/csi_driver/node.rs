//! What CSI asks of a node.

use std::fs;

use prost::Message;
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::volume_capability::AccessType;
use rubelet_proto::csi::volume_usage::Unit;
use rubelet_proto::csi::{self, VolumeCapability};
use serde_json::{Value, json};

use super::options::Options;
use super::volumes::{Volume, Volumes};
use crate::grpc::Refusal;

/// One call; the answer's bytes.
pub(super) fn answer(options: &Options, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let volumes = Volumes::new(&options.data);
    match method {
        "GetPluginInfo" => {
            let info =
                csi::GetPluginInfoResponse { name: options.name.clone(), vendor_version: "1".into(), ..<_>::default() };
            Ok(info.encode_to_vec())
        }
        "GetPluginCapabilities" => Ok(csi::GetPluginCapabilitiesResponse {}.encode_to_vec()),
        "Probe" => Ok(csi::ProbeResponse {}.encode_to_vec()),
        "NodeGetInfo" => Ok(info(options).encode_to_vec()),
        "NodeGetCapabilities" => {
            let rpc = |kind: &i32| csi::NodeServiceCapability {
                r#type: Some(csi::node_service_capability::Type::Rpc(csi::node_service_capability::Rpc {
                    r#type: *kind,
                })),
            };
            let capabilities = options.capabilities.iter().map(rpc).collect();
            Ok(csi::NodeGetCapabilitiesResponse { capabilities }.encode_to_vec())
        }
        "NodeStageVolume" if options.has(Type::StageUnstageVolume) => {
            let request: csi::NodeStageVolumeRequest = decode(body)?;
            let volume = volumes.volume(&request.volume_id)?;
            // A block device is published as it is: nothing is done here but that there is one.
            match access(request.volume_capability.as_ref())? {
                AccessType::Block(_) => volume.device().map(drop)?,
                AccessType::Mount(mount) => {
                    volume.folder(&mount.volume_mount_group)?;
                    volume.bind_folder(request.staging_target_path.as_ref(), false)?;
                }
            }
            Ok(csi::NodeStageVolumeResponse {}.encode_to_vec())
        }
        "NodeUnstageVolume" if options.has(Type::StageUnstageVolume) => {
            let request: csi::NodeUnstageVolumeRequest = decode(body)?;
            Volume::unbind(request.staging_target_path.as_ref())?;
            volumes.volume(&request.volume_id)?.release_device()?;
            Ok(csi::NodeUnstageVolumeResponse {}.encode_to_vec())
        }
        "NodePublishVolume" => publish(&volumes, &decode(body)?),
        "NodeUnpublishVolume" => {
            let request: csi::NodeUnpublishVolumeRequest = decode(body)?;
            Volume::unbind(request.target_path.as_ref())?;
            Volume::remove_target(request.target_path.as_ref())?;
            let volume = volumes.volume(&request.volume_id)?;
            if !options.has(Type::StageUnstageVolume) {
                volume.release_device()?;
            }
            volume.forget_inline()?;
            Ok(csi::NodeUnpublishVolumeResponse {}.encode_to_vec())
        }
        "NodeExpandVolume" if options.has(Type::ExpandVolume) => {
            let request: csi::NodeExpandVolumeRequest = decode(body)?;
            let wanted = request.capacity_range.unwrap_or_default().required_bytes;
            volumes.volume(&request.volume_id)?.expand(wanted)?;
            Ok(csi::NodeExpandVolumeResponse { capacity_bytes: wanted }.encode_to_vec())
        }
        "NodeGetVolumeStats" if options.has(Type::GetVolumeStats) => stats(options, &volumes, &decode(body)?),
        other => Err(Refusal::unimplemented(other)),
    }
}

fn info(options: &Options) -> csi::NodeGetInfoResponse {
    let told = fs::read_to_string(options.data.join("volumes-max")).ok().and_then(|n| n.trim().parse().ok());
    let segments = options.topology.iter().cloned().collect();
    csi::NodeGetInfoResponse {
        node_id: options.node_id.clone(),
        max_volumes_per_node: told.unwrap_or(options.volumes_max),
        accessible_topology: (!options.topology.is_empty()).then_some(csi::Topology { segments }),
    }
}

fn publish(volumes: &Volumes, request: &csi::NodePublishVolumeRequest) -> Result<Vec<u8>, Refusal> {
    let volume = volumes.volume(&request.volume_id)?;
    let target = request.target_path.as_ref();
    if request.volume_context.get("csi.storage.k8s.io/ephemeral").map(String::as_str) == Some("true") {
        volume.note_inline()?;
    }
    match access(request.volume_capability.as_ref())? {
        AccessType::Block(_) => volume.bind_device(target)?,
        AccessType::Mount(mount) => {
            volume.folder(&mount.volume_mount_group)?;
            volume.bind_folder(target, request.readonly)?;
        }
    }
    Ok(csi::NodePublishVolumeResponse {}.encode_to_vec())
}

fn stats(options: &Options, volumes: &Volumes, request: &csi::NodeGetVolumeStatsRequest) -> Result<Vec<u8>, Refusal> {
    let volume = volumes.volume(&request.volume_id)?;
    let (used, inodes, total) = (volume.used_bytes(), volume.files(), volume.size());
    let usage = vec![
        csi::VolumeUsage { available: total - used, total, used, unit: Unit::Bytes.into() },
        csi::VolumeUsage { available: 1000 - inodes, total: 1000, used: inodes, unit: Unit::Inodes.into() },
    ];
    let abnormal = fs::read_to_string(options.data.join("abnormal").join(&request.volume_id)).ok();
    let volume_condition = options.has(Type::VolumeCondition).then(|| csi::VolumeCondition {
        abnormal: abnormal.is_some(),
        message: abnormal.unwrap_or_default().trim().to_owned(),
    });
    Ok(csi::NodeGetVolumeStatsResponse { usage, volume_condition }.encode_to_vec())
}

fn access(capability: Option<&VolumeCapability>) -> Result<AccessType, Refusal> {
    let access = capability.and_then(|c| c.access_type.clone());
    access.ok_or_else(|| Refusal::invalid("volume_capability has no access_type"))
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Refusal> {
    M::decode(body).map_err(|error| Refusal::invalid(error.to_string()))
}

/// A request as the record of calls shows it, secrets and tokens too: tests look for them.
pub(super) fn shown(method: &str, body: &[u8]) -> Value {
    let of = |capability: Option<VolumeCapability>| match capability {
        None => Value::Null,
        Some(VolumeCapability { access_mode, access_type }) => {
            let mode = access_mode.map(|m| m.mode().as_str_name());
            match access_type {
                Some(AccessType::Mount(m)) => json!({"access_mode": mode, "mount": {"fs_type": m.fs_type,
                    "mount_flags": m.mount_flags, "volume_mount_group": m.volume_mount_group}}),
                Some(AccessType::Block(_)) => json!({"access_mode": mode, "block": {}}),
                None => json!({"access_mode": mode}),
            }
        }
    };
    match method {
        "NodeStageVolume" => csi::NodeStageVolumeRequest::decode(body).ok().map(|r| {
            json!({"volume_id": r.volume_id, "publish_context": r.publish_context, "staging_target_path":
                r.staging_target_path, "volume_capability": of(r.volume_capability), "secrets": r.secrets,
                "volume_context": r.volume_context})
        }),
        "NodePublishVolume" => csi::NodePublishVolumeRequest::decode(body).ok().map(|r| {
            json!({"volume_id": r.volume_id, "publish_context": r.publish_context, "staging_target_path":
                r.staging_target_path, "target_path": r.target_path, "volume_capability": of(r.volume_capability),
                "readonly": r.readonly, "secrets": r.secrets, "volume_context": r.volume_context})
        }),
        "NodeUnstageVolume" => csi::NodeUnstageVolumeRequest::decode(body)
            .ok()
            .map(|r| json!({"volume_id": r.volume_id, "staging_target_path": r.staging_target_path})),
        "NodeUnpublishVolume" => csi::NodeUnpublishVolumeRequest::decode(body)
            .ok()
            .map(|r| json!({"volume_id": r.volume_id, "target_path": r.target_path})),
        "NodeGetVolumeStats" => csi::NodeGetVolumeStatsRequest::decode(body).ok().map(|r| {
            json!({"volume_id": r.volume_id, "volume_path": r.volume_path, "staging_target_path":
                r.staging_target_path})
        }),
        "NodeExpandVolume" => csi::NodeExpandVolumeRequest::decode(body).ok().map(|r| {
            json!({"volume_id": r.volume_id, "volume_path": r.volume_path, "required_bytes":
                r.capacity_range.unwrap_or_default().required_bytes, "staging_target_path": r.staging_target_path,
                "volume_capability": of(r.volume_capability), "secrets": r.secrets})
        }),
        _ => None,
    }
    .unwrap_or_else(|| json!({}))
}
