//! Block devices of drivers: taken down, by what is on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use rubelet_core::pod::step::CsiDevice;
use rubelet_host::mount as host_mount;
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::{
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};

use super::client::{CsiError, Drivers};
use super::record::{self, RECORD, Record, children, remove_dir, remove_file, text};
use crate::devices;

/// Where one device is: `plugins/kubernetes.io/csi/volumeDevices`.
struct Places {
    all: PathBuf,
    volume: String,
}

impl Places {
    fn new(root_dir: &Path, volume: &str) -> Self {
        Self { all: root_dir.join("plugins/kubernetes.io/csi/volumeDevices"), volume: volume.to_owned() }
    }

    fn record(&self) -> PathBuf {
        self.all.join(&self.volume).join("data")
    }

    fn bound(&self) -> PathBuf {
        self.all.join(&self.volume).join("dev")
    }

    fn published(&self) -> PathBuf {
        self.all.join("publish").join(&self.volume)
    }

    fn staging(&self) -> PathBuf {
        self.all.join("staging").join(&self.volume)
    }
}

/// Whether another pod has the device.
pub(super) fn is_used(device: &CsiDevice, uid: &str) -> Result<bool, CsiError> {
    let dir = device.publish.parent().unwrap_or(&device.publish);
    Ok(children(dir)?.iter().any(|path| path.file_name().is_none_or(|name| name != uid)))
}

/// Takes down all devices of the pod, and unstages those that no other pod has. The pod's link goes last.
pub(super) async fn unmap_all(root_dir: &Path, uid: &str, drivers: &Drivers) -> Result<(), CsiError> {
    let links = root_dir.join("pods").join(uid).join("volumeDevices/kubernetes.io~csi");
    for link in children(&links)? {
        let Some(volume) = link.file_name().and_then(|name| name.to_str()) else { continue };
        let places = Places::new(root_dir, volume);
        if let Some(record) = record::read(&places.record())? {
            let _turn = drivers.turn(&record.driver, &record.handle).await;
            unmap(&places, uid, &record, drivers).await?;
        }
        remove_file(&link)?;
    }
    Ok(())
}

async fn unmap(places: &Places, uid: &str, record: &Record, drivers: &Drivers) -> Result<(), CsiError> {
    let driver = drivers.get(&record.driver, "blockMapper.UnmapPodDevice failed to get CSI client")?;
    let bound = places.bound().join(uid);
    devices::release(&bound)
        .map_err(|e| CsiError::Plugin { name: record.driver.clone(), why: rubelet_host::chain(&e) })?;
    let target = places.published().join(uid);
    let undo = NodeUnpublishVolumeRequest { volume_id: record.handle.clone(), target_path: text(&target) };
    let _: NodeUnpublishVolumeResponse = driver.call("/csi.v1.Node/NodeUnpublishVolume", undo).await?;
    if target.exists() && host_mount::is_mount_point(&target)? {
        return Err(CsiError::Plugin {
            name: record.driver.clone(),
            why: format!("{} is still mounted after NodeUnpublishVolume", target.display()),
        });
    }
    match fs::symlink_metadata(&target) {
        Ok(meta) if meta.is_dir() => remove_dir(&target)?,
        Ok(_) | Err(_) => remove_file(&target)?,
    }
    if !children(&places.published())?.is_empty() {
        return Ok(());
    }
    if driver.capabilities().await?.has(Type::StageUnstageVolume) {
        let undo =
            NodeUnstageVolumeRequest { volume_id: record.handle.clone(), staging_target_path: text(&places.staging()) };
        let _: NodeUnstageVolumeResponse = driver.call("/csi.v1.Node/NodeUnstageVolume", undo).await?;
    }
    drivers.let_go(&record.driver, &record.handle);
    for dir in [places.published(), places.staging(), places.bound()] {
        remove_dir(&dir)?;
    }
    remove_file(&places.record().join(RECORD))?;
    remove_dir(&places.record())?;
    remove_dir(&places.all.join(&places.volume))
}
