//! One volume: staged, published, unpublished, unstaged.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rubelet_core::pod::step::{CsiVolume, VolumePlan};
use rubelet_core::pod::volumes::csi_staging;
use rubelet_host::mount as host_mount;
use rubelet_host::paths;

use super::client::{CsiError, Driver, Drivers};
use super::messages::{AccessMode, Capabilities, Capability, Empty, MountCapability, Publish, Stage, Undo};
use crate::mount::{Cause, MountError};
use crate::ownership::{self, Access, Policy};

const RECORD: &str = "vol_data.json";
/// No record is larger.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
const PLUGIN_DIR: &str = "volumes/kubernetes.io~csi";

/// Stages the volume unless its driver does not, publishes it to the plan's path, and gives it to the fsGroup.
///
/// # Errors
/// The chain reads as in upstream's `FailedMount`.
pub async fn mount(plan: &VolumePlan, volume: &CsiVolume, drivers: &Drivers) -> Result<(), MountError> {
    let _turn = drivers.turn(&volume.driver, &volume.handle).await;
    let device = |source: CsiError| MountError::Device { volume: plan.name.clone(), source: Cause::Csi(source) };
    let set_up = |source: Cause| MountError::SetUp { volume: plan.name.clone(), source };
    let driver = if volume.is_ephemeral {
        let found = drivers.get(&volume.driver, "mounter.SetUpAt failed to get CSI client");
        found.map_err(|e| set_up(Cause::Csi(e)))?
    } else {
        let found = drivers.get(&volume.driver, "attacher.MountDevice failed to create newCsiDriverClient");
        found.map_err(device)?
    };
    let can = driver.capabilities().await.map_err(|e| set_up(Cause::Csi(e)))?;
    let is_staged = !volume.is_ephemeral && can.has(Capabilities::STAGE_UNSTAGE);
    if is_staged {
        stage(&driver, volume, &can).await.map_err(device)?;
    }
    publish(&driver, plan, volume, (&can, is_staged)).await.map_err(|e| set_up(Cause::Csi(e)))?;
    let Some(gid) = plan.fs_group.filter(|_| !can.has(Capabilities::VOLUME_MOUNT_GROUP)) else { return Ok(()) };
    let (path, on_mismatch) = (plan.path.clone(), plan.fs_group_on_root_mismatch);
    let given = tokio::task::spawn_blocking(move || {
        let policy = if on_mismatch { Policy::OnRootMismatch } else { Policy::Always };
        ownership::give_to_group(&path, gid, policy, Access::ReadWrite)
    });
    match given.await {
        Ok(given) => given.map_err(set_up),
        Err(e) => Err(set_up(Cause::Refused { message: format!("giving the volume to its group broke: {e}") })),
    }
}

async fn stage(driver: &Driver, volume: &CsiVolume, can: &Capabilities) -> Result<(), CsiError> {
    paths::ensure_dir(&volume.staging, 0o750)?;
    if let Some(parent) = volume.staging.parent() {
        let record = [("driverName", &volume.driver), ("volumeHandle", &volume.handle)];
        write_record(parent, record.map(|(k, v)| (k, v.as_str())).into())?;
    }
    let request = Stage {
        volume_id: volume.handle.clone(),
        publish_context: volume.publish_context.clone(),
        staging_target_path: text(&volume.staging),
        volume_capability: Some(capability(volume, can)),
        secrets: volume.stage_secrets.clone(),
        volume_context: volume.attributes.clone(),
    };
    let _: Empty = driver.call("/csi.v1.Node/NodeStageVolume", request).await?;
    Ok(())
}

async fn publish(
    driver: &Driver,
    plan: &VolumePlan,
    volume: &CsiVolume,
    (can, is_staged): (&Capabilities, bool),
) -> Result<(), CsiError> {
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
    write_record(dir, record.into())?;
    let request = Publish {
        volume_id: volume.handle.clone(),
        publish_context: volume.publish_context.clone(),
        staging_target_path: if is_staged { text(&volume.staging) } else { String::new() },
        target_path: text(&plan.path),
        volume_capability: Some(capability(volume, can)),
        readonly: volume.is_read_only,
        secrets: volume.publish_secrets.clone(),
        volume_context: volume.attributes.clone(),
    };
    let _: Empty = driver.call("/csi.v1.Node/NodePublishVolume", request).await?;
    Ok(())
}

fn capability(volume: &CsiVolume, can: &Capabilities) -> Capability {
    let has_fine_modes = can.has(Capabilities::SINGLE_NODE_MULTI_WRITER);
    let mode = match (volume.access_mode.as_str(), has_fine_modes) {
        ("ReadOnlyMany", _) => 3,
        ("ReadWriteMany", _) => 5,
        ("ReadWriteOncePod", true) => 6,
        ("ReadWriteOnce", true) => 7,
        _ => 1,
    };
    let group = volume.mount_group.filter(|_| can.has(Capabilities::VOLUME_MOUNT_GROUP));
    Capability {
        mount: Some(MountCapability {
            fs_type: volume.fs_type.clone(),
            mount_flags: volume.mount_flags.clone(),
            volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
        }),
        access_mode: Some(AccessMode { mode }),
    }
}

/// Takes down all CSI volumes of the pod whose directory is `pods_dir/<uid>`, by what their records say, and unstages those that
/// no other pod has.
///
/// # Errors
/// A driver is away or refuses: the volume and its record stay, to be tried again.
pub async fn unmount_all(root_dir: &Path, uid: &str, drivers: &Drivers) -> Result<(), CsiError> {
    for dir in volume_dirs(&root_dir.join("pods").join(uid))? {
        let Some(record) = read_record(&dir)? else {
            // Its record was removed last but for the directory, or it was never written.
            remove_dir(&dir.join("mount"))?;
            remove_dir(&dir)?;
            continue;
        };
        let _turn = drivers.turn(&record.driver, &record.handle).await;
        let driver = drivers.get(&record.driver, "Unmounter.TearDownAt failed to get CSI client")?;
        let target = dir.join("mount");
        let undo = Undo { volume_id: record.handle.clone(), path: text(&target) };
        let _: Empty = driver.call("/csi.v1.Node/NodeUnpublishVolume", undo).await?;
        if target.exists() && host_mount::is_mount_point(&target)? {
            return Err(CsiError::Plugin {
                name: record.driver,
                why: format!("{} is still mounted after NodeUnpublishVolume", target.display()),
            });
        }
        remove_dir(&target)?;
        remove_file(&dir.join(RECORD))?;
        remove_dir(&dir)?;
        unstage_if_unused(root_dir, &driver, &record).await?;
    }
    Ok(())
}

/// Unstages what a driver has staged and no pod has: left over by an agent that ended in between.
///
/// # Errors
/// As [`unmount_all`].
pub async fn unstage_unused(root_dir: &Path, name: &str, drivers: &Drivers) -> Result<(), CsiError> {
    for dir in children(&root_dir.join("plugins/kubernetes.io/csi").join(name))? {
        if let Some(record) = read_record(&dir)?.filter(|r| r.driver == name) {
            let _turn = drivers.turn(&record.driver, &record.handle).await;
            let driver = drivers.get(name, "attacher.UnmountDevice failed to create newCsiDriverClient")?;
            unstage_if_unused(root_dir, &driver, &record).await?;
        }
    }
    Ok(())
}

/// Under the volume's turn: nobody publishes it meanwhile.
async fn unstage_if_unused(root_dir: &Path, driver: &Driver, record: &Record) -> Result<(), CsiError> {
    let staging = csi_staging(root_dir, &record.driver, &record.handle);
    let Some(parent) = staging.parent() else { return Ok(()) };
    if !parent.join(RECORD).exists() || is_used(root_dir, record)? {
        return Ok(());
    }
    if driver.capabilities().await?.has(Capabilities::STAGE_UNSTAGE) {
        let undo = Undo { volume_id: record.handle.clone(), path: text(&staging) };
        let _: Empty = driver.call("/csi.v1.Node/NodeUnstageVolume", undo).await?;
    }
    remove_dir(&staging)?;
    remove_file(&parent.join(RECORD))?;
    remove_dir(parent)
}

/// Whether a pod on the disk has the volume.
fn is_used(root_dir: &Path, record: &Record) -> Result<bool, CsiError> {
    for pod in children(&root_dir.join("pods"))? {
        for dir in volume_dirs(&pod)? {
            if read_record(&dir)?.is_some_and(|r| r == *record) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What identifies a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    driver: String,
    handle: String,
}

fn volume_dirs(pod_dir: &Path) -> Result<Vec<PathBuf>, CsiError> {
    children(&pod_dir.join(PLUGIN_DIR))
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, CsiError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CsiError::file("read", dir)(e)),
    };
    let found: Result<Vec<_>, _> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut found = found.map_err(CsiError::file("read", dir))?;
    found.sort();
    Ok(found)
}

fn write_record(dir: &Path, record: BTreeMap<&str, &str>) -> Result<(), CsiError> {
    let path = dir.join(RECORD);
    let mut text = serde_json::Value::from_iter(record).to_string();
    text.push('\n');
    // Written beside and renamed: a record is whole or not there.
    let next = dir.join(".vol_data.json.tmp");
    fs::write(&next, text).map_err(CsiError::file("write", &next))?;
    fs::rename(&next, &path).map_err(CsiError::file("rename", &path))
}

/// `None` when there is no record.
fn read_record(dir: &Path) -> Result<Option<Record>, CsiError> {
    let path = dir.join(RECORD);
    let broken = |why: &str| CsiError::Record { path: path.clone(), why: why.to_owned() };
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() <= RECORD_BYTES_MAX => {}
        Ok(_) => return Err(broken("it is no file of at most 64 KiB")),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(CsiError::file("stat", &path)(e)),
    }
    let text = fs::read(&path).map_err(CsiError::file("read", &path))?;
    let record: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|e| broken(&e.to_string()))?;
    match (record.get("driverName"), record.get("volumeHandle")) {
        (Some(driver), Some(handle)) => Ok(Some(Record { driver: driver.clone(), handle: handle.clone() })),
        _ => Err(broken("it names no driver or no volume")),
    }
}

fn remove_dir(dir: &Path) -> Result<(), CsiError> {
    gone(fs::remove_dir(dir)).map_err(CsiError::file("remove", dir))
}

fn remove_file(path: &Path) -> Result<(), CsiError> {
    gone(fs::remove_file(path)).map_err(CsiError::file("remove", path))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
