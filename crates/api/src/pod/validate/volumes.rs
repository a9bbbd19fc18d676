//! The volumes of a pod.

use std::collections::BTreeSet;

use super::mounts::{climbs, local_path};
use super::{all_invalid, names, one_of, projected};
use crate::problem::{Path, Problems};
use crate::quantity::{self, Amount};
use crate::v1;

/// All volumes of a pod.
pub(super) fn validate(spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (nth, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.field("volumes").index(nth);
        if volume.name.is_empty() {
            problems.required(&path.field("name"), "");
        } else {
            let reasons = names::label(&volume.name);
            if reasons.is_empty() && !seen.insert(volume.name.as_str()) {
                problems.duplicate(&path.field("name"), &volume.name);
            }
            all_invalid(&volume.name, reasons, &path.field("name"), problems);
        }
        one_source(volume, &path, problems);
        local(volume, &path, problems);
        objects(volume, &path, problems);
        remote(volume, &path, problems);
    }
}

/// The sources that a volume names, in the order of the rules.
pub(super) fn sources(volume: &v1::Volume) -> impl Iterator<Item = &'static str> {
    let all = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    all.into_iter().filter(|(_, given)| *given).map(|(field, _)| field)
}

fn one_source(volume: &v1::Volume, path: &Path, problems: &mut Problems) {
    let mut given = sources(volume);
    if given.next().is_none() {
        problems.required(path, "must specify a volume type");
    }
    for further in given {
        problems.forbidden(&path.field(further), "may not specify more than 1 volume type");
    }
}

/// Sources on this machine.
fn local(volume: &v1::Volume, path: &Path, problems: &mut Problems) {
    if let Some(size) = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref())
        && quantity::parsed(size).is_none_or(|size| size < Amount::ZERO)
    {
        problems.forbidden(&path.at("emptyDir.sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    if let Some(host) = &volume.host_path {
        host_path(host, &path.field("hostPath"), problems);
    }
    if let Some(repository) = &volume.git_repo {
        let path = path.field("gitRepo");
        if repository.repository.is_empty() {
            problems.required(&path.field("repository"), "");
        }
        if let Some(directory) = repository.directory.as_deref() {
            local_path(directory, &path.field("directory"), problems);
        }
    }
    if let Some(image) = &volume.image {
        let path = path.field("image");
        let reference = image.reference.as_deref().unwrap_or_default();
        if reference.is_empty() {
            problems.required(&path.field("reference"), "");
        } else if reference.trim() != reference {
            problems.invalid(&path.field("reference"), reference, "must not have leading or trailing whitespace");
        }
        let policy = image.pull_policy.as_deref().unwrap_or_default();
        one_of(policy, &["Always", "IfNotPresent", "Never"], &path.field("pullPolicy"), problems);
    }
}

fn host_path(host: &v1::HostPathVolumeSource, path: &Path, problems: &mut Problems) {
    if host.path.is_empty() {
        problems.required(&path.field("path"), "");
    } else if climbs(&host.path) {
        problems.invalid(&path.field("path"), &host.path, "must not contain '..'");
    }
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(kind) = host.type_.as_deref()
        && !TYPES.contains(&kind)
    {
        problems.unsupported(&path.field("type"), kind, &TYPES);
    }
}

/// Sources made from objects and from the pod itself.
fn objects(volume: &v1::Volume, path: &Path, problems: &mut Problems) {
    if let Some(secret) = &volume.secret {
        let path = path.field("secret");
        if secret.secret_name.as_deref().unwrap_or_default().is_empty() {
            problems.required(&path.field("secretName"), "");
        }
        projected::mode(secret.default_mode, &path.field("defaultMode"), problems);
        projected::items(secret.items.as_deref(), &path.field("items"), problems);
    }
    if let Some(config_map) = &volume.config_map {
        let path = path.field("configMap");
        if config_map.name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        projected::mode(config_map.default_mode, &path.field("defaultMode"), problems);
        projected::items(config_map.items.as_deref(), &path.field("items"), problems);
    }
    if let Some(downward) = &volume.downward_api {
        let path = path.field("downwardAPI");
        projected::mode(downward.default_mode, &path.field("defaultMode"), problems);
        for (nth, file) in downward.items.iter().flatten().enumerate() {
            projected::downward_file(file, &path.field("items").index(nth), problems);
        }
    }
    if let Some(source) = &volume.projected {
        projected::validate(source, &path.field("projected"), problems);
    }
    if let Some(claim) = &volume.persistent_volume_claim
        && claim.claim_name.is_empty()
    {
        problems.required(&path.at("persistentVolumeClaim.claimName"), "");
    }
    if let Some(ephemeral) = &volume.ephemeral
        && ephemeral.volume_claim_template.is_none()
    {
        problems.required(&path.at("ephemeral.volumeClaimTemplate"), "");
    }
    if let Some(csi) = &volume.csi
        && csi.driver.is_empty()
    {
        problems.required(&path.at("csi.driver"), "");
    }
}

/// Sources on other machines.
fn remote(volume: &v1::Volume, path: &Path, problems: &mut Problems) {
    if let Some(nfs) = &volume.nfs {
        let path = path.field("nfs");
        if nfs.server.is_empty() {
            problems.required(&path.field("server"), "");
        }
        if nfs.path.is_empty() {
            problems.required(&path.field("path"), "");
        } else if !nfs.path.starts_with('/') {
            problems.invalid(&path.field("path"), &nfs.path, "must be an absolute path");
        }
    }
    if let Some(iscsi) = &volume.iscsi {
        self::iscsi(iscsi, &path.field("iscsi"), problems);
    }
    if let Some(fc) = &volume.fc {
        let path = path.field("fc");
        let targets = fc.target_wwns.as_ref().is_some_and(|all| !all.is_empty());
        let ids = fc.wwids.as_ref().is_some_and(|all| !all.is_empty());
        match (targets, ids) {
            (false, false) => {
                problems.required(&path.field("targetWWNs"), "must specify either targetWWNs or wwids, but not both")
            }
            (true, true) => {
                problems.invalid(
                    &path.field("targetWWNs"),
                    "",
                    "targetWWNs and wwids can not be specified simultaneously",
                );
            }
            (true, false) => match fc.lun {
                None => problems.required(&path.field("lun"), "lun is required if targetWWNs is specified"),
                Some(lun) => lun_number(lun, &path.field("lun"), problems),
            },
            (false, true) => {}
        }
    }
    let drivers = [
        ("flexVolume.driver", volume.flex_volume.as_ref().map(|flex| flex.driver.as_str())),
        ("gcePersistentDisk.pdName", volume.gce_persistent_disk.as_ref().map(|disk| disk.pd_name.as_str())),
        ("awsElasticBlockStore.volumeID", volume.aws_elastic_block_store.as_ref().map(|disk| disk.volume_id.as_str())),
        ("cinder.volumeID", volume.cinder.as_ref().map(|disk| disk.volume_id.as_str())),
        ("glusterfs.endpoints", volume.glusterfs.as_ref().map(|gluster| gluster.endpoints.as_str())),
        ("glusterfs.path", volume.glusterfs.as_ref().map(|gluster| gluster.path.as_str())),
        ("rbd.image", volume.rbd.as_ref().map(|rbd| rbd.image.as_str())),
        ("azureFile.secretName", volume.azure_file.as_ref().map(|file| file.secret_name.as_str())),
        ("azureFile.shareName", volume.azure_file.as_ref().map(|file| file.share_name.as_str())),
        ("azureDisk.diskName", volume.azure_disk.as_ref().map(|disk| disk.disk_name.as_str())),
        ("azureDisk.diskURI", volume.azure_disk.as_ref().map(|disk| disk.disk_uri.as_str())),
        ("vsphereVolume.volumePath", volume.vsphere_volume.as_ref().map(|disk| disk.volume_path.as_str())),
        ("photonPersistentDisk.pdID", volume.photon_persistent_disk.as_ref().map(|disk| disk.pd_id.as_str())),
        ("portworxVolume.volumeID", volume.portworx_volume.as_ref().map(|disk| disk.volume_id.as_str())),
    ];
    for (field, text) in drivers {
        if text == Some("") {
            problems.required(&path.at(field), "");
        }
    }
    let monitors = [
        ("rbd.monitors", volume.rbd.as_ref().map(|rbd| &rbd.monitors)),
        ("cephfs.monitors", volume.cephfs.as_ref().map(|ceph| &ceph.monitors)),
    ];
    for (field, list) in monitors {
        if list.is_some_and(Vec::is_empty) {
            problems.required(&path.at(field), "");
        }
    }
}

fn iscsi(iscsi: &v1::ISCSIVolumeSource, path: &Path, problems: &mut Problems) {
    if iscsi.target_portal.is_empty() {
        problems.required(&path.field("targetPortal"), "");
    }
    if iscsi.iqn.is_empty() {
        problems.required(&path.field("iqn"), "");
    } else if !["iqn", "eui", "naa"].iter().any(|head| iscsi.iqn.starts_with(head)) {
        problems.invalid(&path.field("iqn"), &iscsi.iqn, "must be valid format");
    }
    lun_number(iscsi.lun, &path.field("lun"), problems);
    let chap = iscsi.chap_auth_discovery == Some(true) || iscsi.chap_auth_session == Some(true);
    if chap && iscsi.secret_ref.is_none() {
        problems.required(&path.field("secretRef"), "");
    }
}

fn lun_number(lun: i32, path: &Path, problems: &mut Problems) {
    if !(0..=255).contains(&lun) {
        problems.invalid(path, &lun, "must be between 0 and 255, inclusive");
    }
}
