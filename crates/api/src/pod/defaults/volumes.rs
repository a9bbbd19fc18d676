//! Defaults inside a volume.

use super::{containers, or_text, resources};
use crate::v1;

/// Mode of files in a volume made from objects: 0644.
const FILE_MODE: i32 = 0o644;
/// Life of a projected service account token, seconds.
const TOKEN_SECONDS: i64 = 60 * 60;

/// Fills in one volume; one without a source is an empty directory.
pub(super) fn set_defaults(volume: &mut v1::Volume) {
    let nameless = v1::Volume { name: volume.name.clone(), ..Default::default() };
    if *volume == nameless {
        volume.empty_dir = Some(v1::EmptyDirVolumeSource::default());
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        projected.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(image) = &mut volume.image
        && image.pull_policy.as_deref().unwrap_or_default().is_empty()
    {
        let reference = image.reference.as_deref().unwrap_or_default();
        image.pull_policy = Some(containers::pull_policy(reference).to_owned());
    }
    if let Some(ephemeral) = &mut volume.ephemeral
        && let Some(template) = &mut ephemeral.volume_claim_template
    {
        or_text(&mut template.spec.volume_mode, "Filesystem");
    }
    remote(volume);
}

fn downward_file(file: &mut v1::DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        or_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        resources::divisor_default(resource);
    }
}

fn projection(source: &mut v1::VolumeProjection) {
    if let Some(downward) = &mut source.downward_api {
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(token) = &mut source.service_account_token {
        token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
    }
}

/// Sources that live on other machines.
fn remote(volume: &mut v1::Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        or_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        or_text(&mut rbd.pool, "rbd");
        or_text(&mut rbd.user, "admin");
        or_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = &mut volume.scale_io {
        or_text(&mut scale.storage_mode, "ThinProvisioned");
        or_text(&mut scale.fs_type, "xfs");
    }
}
