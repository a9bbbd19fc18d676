//! One volume on its way up: staged, grown, published.

use std::path::Path;

use rubelet_core::pod::step::{CsiVolume, Expansion, VolumePlan};
use rubelet_host::paths;
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::volume_capability::access_mode::Mode;
use rubelet_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use rubelet_proto::csi::{
    CapacityRange, NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeStageVolumeRequest, NodeStageVolumeResponse, VolumeCapability,
};

use super::block;
use super::client::{Capabilities, CsiError, Driver, Drivers};
use super::record::{self, Record, text};
use super::stats::Published;
use crate::mount::{Cause, MountError};
use crate::ownership::{self, Access, Policy};

/// Where volumes are, and for which pod.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub root_dir: &'a Path,
    pub uid: &'a str,
}

/// A volume whose driver is there. Whoever has it holds the volume's turn ([`Drivers::turn`]).
pub struct Mounting<'a> {
    place: Place<'a>,
    plan: &'a VolumePlan,
    volume: &'a CsiVolume,
    drivers: &'a Drivers,
    driver: Driver,
    can: Capabilities,
}

impl<'a> Mounting<'a> {
    /// Asks the driver what it can do.
    ///
    /// # Errors
    /// There is no such driver, or it does not say. The chain reads as in upstream's `FailedMount`, as all here do.
    pub async fn begin(
        place: Place<'a>,
        plan: &'a VolumePlan,
        volume: &'a CsiVolume,
        drivers: &'a Drivers,
    ) -> Result<Self, MountError> {
        let is_block = volume.device.is_some();
        let wanted_by = match (is_block, volume.is_ephemeral) {
            (true, _) => "blockMapper.SetUpDevice failed to get CSI client",
            (false, true) => "mounter.SetUpAt failed to get CSI client",
            (false, false) => "attacher.MountDevice failed to create newCsiDriverClient",
        };
        let failed = |source: CsiError| {
            let (volume, source) = (plan.name.clone(), Cause::Csi(source));
            match (is_block, wanted_by.starts_with("attacher")) {
                (true, _) => MountError::MapDevice { volume, source },
                (false, true) => MountError::Device { volume, source },
                (false, false) => MountError::SetUp { volume, source },
            }
        };
        let driver = drivers.get(&volume.driver, wanted_by).map_err(failed)?;
        if volume.is_attached {
            drivers.hold(&volume.driver, &volume.handle);
        }
        let can = driver.capabilities().await.map_err(failed)?;
        Ok(Self { place, plan, volume, drivers, driver, can })
    }

    /// Whether the volume is staged before it is published.
    pub fn is_staged(&self) -> bool {
        !self.volume.is_ephemeral && self.can.has(Type::StageUnstageVolume)
    }

    /// Stages the volume, unless its driver does not.
    ///
    /// # Errors
    /// The driver's.
    pub async fn stage(&self) -> Result<(), MountError> {
        if !self.is_staged() {
            return Ok(());
        }
        let volume = self.plan.name.clone();
        self.try_stage().await.map_err(|source| match self.volume.device {
            Some(_) => MountError::MapDevice { volume, source: Cause::Csi(source) },
            None => MountError::Device { volume, source: Cause::Csi(source) },
        })
    }

    async fn try_stage(&self) -> Result<(), CsiError> {
        let volume = self.volume;
        paths::ensure_dir(&volume.staging, 0o750)?;
        let dir = match &volume.device {
            Some(device) => Some(device.record.as_path()),
            None => volume.staging.parent(),
        };
        if let Some(dir) = dir {
            paths::ensure_dir(dir, 0o750)?;
            self.write_record(dir)?;
        }
        let request = NodeStageVolumeRequest {
            volume_id: volume.handle.clone(),
            publish_context: volume.publish_context.clone(),
            staging_target_path: text(&volume.staging),
            volume_capability: Some(self.capability()),
            secrets: volume.stage_secrets.clone(),
            volume_context: volume.attributes.clone(),
        };
        let _: NodeStageVolumeResponse = self.driver.call("/csi.v1.Node/NodeStageVolume", request).await?;
        Ok(())
    }

    /// What upstream writes beside a staged file system, and beside a device.
    fn write_record(&self, dir: &Path) -> Result<(), CsiError> {
        let volume = self.volume;
        let mut record = vec![("driverName", volume.driver.as_str()), ("volumeHandle", volume.handle.as_str())];
        if volume.device.is_some() {
            record.extend([
                ("specVolID", self.plan.name.as_str()),
                ("nodeName", &volume.node),
                ("attachmentID", &volume.attachment),
            ]);
        }
        record::write(dir, record.into_iter().collect())
    }

    /// Whether the driver has something to do on a node for a volume that grows.
    pub fn may_grow(&self) -> bool {
        self.can.has(Type::ExpandVolume)
    }

    /// Asks the driver to bring the volume to its new size.
    ///
    /// # Errors
    /// The driver's.
    pub async fn grow(&self, expansion: &Expansion, at: &Path) -> Result<(), CsiError> {
        let request = NodeExpandVolumeRequest {
            volume_id: self.volume.handle.clone(),
            volume_path: text(at),
            capacity_range: Some(CapacityRange { required_bytes: expansion.bytes, limit_bytes: 0 }),
            staging_target_path: if self.is_staged() { text(&self.volume.staging) } else { String::new() },
            volume_capability: Some(self.capability()),
            secrets: expansion.secrets.clone(),
        };
        let _: NodeExpandVolumeResponse = self.driver.call("/csi.v1.Node/NodeExpandVolume", request).await?;
        Ok(())
    }

    /// Publishes the volume to the pod's path and gives it to the fsGroup; a device is bound and linked.
    ///
    /// # Errors
    /// The driver's, and what stands in the way on the disk.
    pub async fn publish(&self) -> Result<(), MountError> {
        let name = || self.plan.name.clone();
        if let Some(device) = &self.volume.device {
            let failed = |source: Cause| MountError::Map { volume: name(), source };
            self.refuse_second(&failed)?;
            if !self.is_staged() {
                let recorded = paths::ensure_dir(&device.record, 0o750)
                    .map_err(CsiError::from)
                    .and_then(|()| self.write_record(&device.record));
                recorded.map_err(|e| failed(Cause::Csi(e)))?;
            }
            if let Some(dir) = device.publish.parent() {
                paths::ensure_dir(dir, 0o750).map_err(|e| failed(e.into()))?;
            }
            self.call_publish(&device.publish).await.map_err(|e| failed(Cause::Csi(e)))?;
            let (source, map, link) = (device.publish.clone(), device.map.clone(), self.plan.path.clone());
            return blocking(move || crate::devices::map(&source, &map, &link)).await.map_err(failed);
        }
        let failed = |source: Cause| MountError::SetUp { volume: name(), source };
        self.refuse_second(&failed)?;
        self.publish_file_system().await.map_err(|e| failed(Cause::Csi(e)))?;
        let key = (self.place.uid.to_owned(), self.plan.name.clone());
        let staging = if self.is_staged() { Some(self.volume.staging.clone()) } else { None };
        self.drivers.note(key, Published::new(self.plan, self.volume, staging));
        let takes_group = !self.volume.is_again && !self.can.has(Type::VolumeMountGroup);
        let Some(gid) = self.plan.fs_group.filter(|_| takes_group) else { return Ok(()) };
        let (path, on_mismatch) = (self.plan.path.clone(), self.plan.fs_group_on_root_mismatch);
        let policy = if on_mismatch { Policy::OnRootMismatch } else { Policy::Always };
        blocking(move || ownership::give_to_group(&path, gid, policy, Access::ReadWrite)).await.map_err(failed)
    }

    /// kubelet 1.36: `ReadWriteOncePod` is the scheduler's business, and looked at again here.
    fn refuse_second(&self, failed: &impl Fn(Cause) -> MountError) -> Result<(), MountError> {
        if !self.volume.is_exclusive {
            return Ok(());
        }
        let Place { root_dir, uid } = self.place;
        let used = match &self.volume.device {
            Some(device) => block::is_used(device, uid),
            None => {
                let record = Record { driver: self.volume.driver.clone(), handle: self.volume.handle.clone() };
                record::is_used(root_dir, &record, Some(uid))
            }
        };
        match used {
            Ok(false) => Ok(()),
            Ok(true) => Err(failed(Cause::Refused {
                message: "volume uses the ReadWriteOncePod access mode and is already in use by another pod".to_owned(),
            })),
            Err(error) => Err(failed(Cause::Csi(error))),
        }
    }

    async fn publish_file_system(&self) -> Result<(), CsiError> {
        let (plan, volume) = (self.plan, self.volume);
        // The driver makes the path itself.
        let dir = plan.path.parent().unwrap_or(&plan.path);
        paths::ensure_dir(dir, 0o750)?;
        let lifecycle = if volume.is_ephemeral { "Ephemeral" } else { "Persistent" };
        let record = [
            ("specVolID", plan.name.as_str()),
            ("volumeHandle", &volume.handle),
            ("driverName", &volume.driver),
            ("nodeName", &volume.node),
            ("attachmentID", &volume.attachment),
            ("volumeLifecycleMode", lifecycle),
        ];
        record::write(dir, record.into())?;
        self.call_publish(&plan.path).await
    }

    async fn call_publish(&self, target: &Path) -> Result<(), CsiError> {
        let volume = self.volume;
        let request = NodePublishVolumeRequest {
            volume_id: volume.handle.clone(),
            publish_context: volume.publish_context.clone(),
            staging_target_path: if self.is_staged() { text(&volume.staging) } else { String::new() },
            target_path: text(target),
            volume_capability: Some(self.capability()),
            readonly: volume.is_read_only,
            secrets: volume.publish_secrets.clone(),
            volume_context: volume.attributes.clone(),
        };
        let _: NodePublishVolumeResponse = self.driver.call("/csi.v1.Node/NodePublishVolume", request).await?;
        Ok(())
    }

    fn capability(&self) -> VolumeCapability {
        let volume = self.volume;
        let has_fine_modes = self.can.has(Type::SingleNodeMultiWriter);
        let mode = match (volume.access_mode.as_str(), has_fine_modes) {
            ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
            ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
            ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
            ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
            _ => Mode::SingleNodeWriter,
        };
        let access_type = if volume.device.is_some() {
            AccessType::Block(BlockVolume {})
        } else {
            let group = volume.mount_group.filter(|_| self.can.has(Type::VolumeMountGroup));
            AccessType::Mount(MountVolume {
                fs_type: volume.fs_type.clone(),
                mount_flags: volume.mount_flags.clone(),
                volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
            })
        };
        VolumeCapability { access_mode: Some(AccessMode { mode: mode.into() }), access_type: Some(access_type) }
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), Cause> + Send + 'static) -> Result<(), Cause> {
    match rubelet_host::task::blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Cause::Refused { message: format!("work on the volume's files broke: {e}") }),
    }
}
