//! Volumes on their way down, by what their records say.

use std::path::Path;

use rubelet_core::pod::volumes::csi_staging;
use rubelet_host::mount as host_mount;
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::{
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};

use super::block;
use super::client::{CsiError, Driver, Drivers};
use super::record::{self, RECORD, Record, children, is_used, remove_dir, remove_file, text, volume_dirs};

/// Takes down all CSI volumes of the pod whose directory is `pods_dir/<uid>`, by what their records say, and unstages those that
/// no other pod has.
///
/// # Errors
/// A driver is away or refuses: the volume and its record stay, to be tried again.
pub async fn unmount_all(root_dir: &Path, uid: &str, drivers: &Drivers) -> Result<(), CsiError> {
    block::unmap_all(root_dir, uid, drivers).await?;
    for dir in volume_dirs(&root_dir.join("pods").join(uid))? {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(record) = record::read(&dir)? else {
            // Its record was removed last but for the directory, or it was never written.
            remove_dir(&dir.join("mount"))?;
            remove_dir(&dir)?;
            continue;
        };
        let _turn = drivers.turn(&record.driver, &record.handle).await;
        let driver = drivers.get(&record.driver, "Unmounter.TearDownAt failed to get CSI client")?;
        let target = dir.join("mount");
        let undo = NodeUnpublishVolumeRequest { volume_id: record.handle.clone(), target_path: text(&target) };
        let _: NodeUnpublishVolumeResponse = driver.call("/csi.v1.Node/NodeUnpublishVolume", undo).await?;
        if target.exists() && host_mount::is_mount_point(&target)? {
            return Err(CsiError::Plugin {
                name: record.driver,
                why: format!("{} is still mounted after NodeUnpublishVolume", target.display()),
            });
        }
        drivers.forget(&(uid.to_owned(), name));
        remove_dir(&target)?;
        remove_file(&dir.join(RECORD))?;
        remove_dir(&dir)?;
        unstage_if_unused(root_dir, &driver, &record).await?;
        if !is_used(root_dir, &record, None)? {
            drivers.let_go(&record.driver, &record.handle);
        }
    }
    Ok(())
}

/// Says of all that an earlier agent staged that it is in use, until it is taken down.
///
/// # Errors
/// A record cannot be read.
pub fn hold_found(root_dir: &Path, drivers: &Drivers) -> Result<(), CsiError> {
    for driver in children(&root_dir.join("plugins/kubernetes.io/csi"))? {
        for dir in children(&driver)? {
            // Beside a staged file system, or in the folder of a device.
            for place in [dir.clone(), dir.join("data")] {
                if let Some(record) = record::read(&place)? {
                    drivers.hold(&record.driver, &record.handle);
                }
            }
        }
    }
    Ok(())
}

/// Unstages what a driver has staged and no pod has: left over by an agent that ended in between.
///
/// # Errors
/// As [`unmount_all`].
pub async fn unstage_unused(root_dir: &Path, name: &str, drivers: &Drivers) -> Result<(), CsiError> {
    for dir in children(&root_dir.join("plugins/kubernetes.io/csi").join(name))? {
        if let Some(record) = record::read(&dir)?.filter(|r| r.driver == name) {
            let _turn = drivers.turn(&record.driver, &record.handle).await;
            let driver = drivers.get(name, "attacher.UnmountDevice failed to create newCsiDriverClient")?;
            unstage_if_unused(root_dir, &driver, &record).await?;
            if !is_used(root_dir, &record, None)? {
                drivers.let_go(&record.driver, &record.handle);
            }
        }
    }
    Ok(())
}

/// Under the volume's turn: nobody publishes it meanwhile.
async fn unstage_if_unused(root_dir: &Path, driver: &Driver, record: &Record) -> Result<(), CsiError> {
    let staging = csi_staging(root_dir, &record.driver, &record.handle);
    let Some(parent) = staging.parent() else { return Ok(()) };
    if !parent.join(RECORD).exists() || is_used(root_dir, record, None)? {
        return Ok(());
    }
    if driver.capabilities().await?.has(Type::StageUnstageVolume) {
        let undo = NodeUnstageVolumeRequest { volume_id: record.handle.clone(), staging_target_path: text(&staging) };
        let _: NodeUnstageVolumeResponse = driver.call("/csi.v1.Node/NodeUnstageVolume", undo).await?;
    }
    remove_dir(&staging)?;
    remove_file(&parent.join(RECORD))?;
    remove_dir(parent)
}
