//! What a driver says of the use of its volumes.

use std::path::PathBuf;

use rubelet_core::pod::step::{CsiVolume, VolumePlan};
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::volume_usage::Unit;
use rubelet_proto::csi::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse};

use super::client::{CsiError, Drivers};
use super::record::text;

/// A pod's UID and the name of the volume's folder.
pub(super) type Key = (String, String);

/// A volume that a driver published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Its name in the pod.
    pub volume: String,
    /// Its name in directories.
    pub name: String,
    driver: String,
    handle: String,
    path: PathBuf,
    staging: Option<PathBuf>,
}

/// How much of a volume is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Available, in all, used; in bytes.
    pub bytes: Option<(u64, u64, u64)>,
    /// The same in inodes.
    pub inodes: Option<(u64, u64, u64)>,
}

/// How a volume is, by its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    pub is_abnormal: bool,
    pub message: String,
}

impl Published {
    pub(super) fn new(plan: &VolumePlan, volume: &CsiVolume, staging: Option<PathBuf>) -> Self {
        Self {
            volume: plan.volume.clone(),
            name: plan.name.clone(),
            driver: volume.driver.clone(),
            handle: volume.handle.clone(),
            path: plan.path.clone(),
            staging,
        }
    }

    /// Asks the driver; `None` when it does not tell of volumes.
    ///
    /// # Errors
    /// It is away, or fails.
    pub async fn usage(&self, drivers: &Drivers) -> Result<Option<(Usage, Option<Condition>)>, CsiError> {
        let driver = drivers.get(&self.driver, "metrics failed to get CSI client")?;
        let can = driver.capabilities().await?;
        if !can.has(Type::GetVolumeStats) {
            return Ok(None);
        }
        let request = NodeGetVolumeStatsRequest {
            volume_id: self.handle.clone(),
            volume_path: text(&self.path),
            staging_target_path: self.staging.as_deref().map(text).unwrap_or_default(),
        };
        let answer: NodeGetVolumeStatsResponse = driver.call("/csi.v1.Node/NodeGetVolumeStats", request).await?;
        let mut usage = Usage::default();
        for one in &answer.usage {
            let number = |n: i64| u64::try_from(n).unwrap_or(0);
            let figures = Some((number(one.available), number(one.total), number(one.used)));
            match one.unit() {
                Unit::Bytes => usage.bytes = figures,
                Unit::Inodes => usage.inodes = figures,
                Unit::Unknown => {}
            }
        }
        let said = answer.volume_condition.filter(|_| can.has(Type::VolumeCondition));
        Ok(Some((usage, said.map(|c| Condition { is_abnormal: c.abnormal, message: c.message }))))
    }
}
