//! What CSI drivers say of the use of their volumes. They are asked when somebody asks us, and not more often than settings say.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rubelet_api::gather::Gather;
use rubelet_api::stats::FsStats;
use rubelet_host::chain;
use rubelet_volumes::csi::{Published, Usage};
use tokio::time::{Instant, timeout};

use super::ground::Pod;
use super::{Inner, now};

/// A page does not wait longer for a driver; what it said before is told then.
const PATIENCE: Duration = Duration::from_secs(5);

/// By the pod's UID and the name of the volume's folder.
type Key = (String, String);

/// A volume of a driver.
#[derive(Clone, Debug)]
pub(crate) struct DriverVolume {
    /// Its name in the pod.
    pub(crate) volume: String,
    /// `None`: its driver does not say.
    pub(crate) usage: Option<Usage>,
}

/// What was said last, and when.
pub(super) type Said = BTreeMap<Key, (Instant, DriverVolume)>;

/// Asks the drivers of these pods, all at once.
pub(super) async fn ask(inner: &Inner, pods: &[Pod]) -> BTreeMap<Key, DriverVolume> {
    let Some(age_max) = inner.settings.volumes_age_max else { return BTreeMap::new() };
    let mut said = std::mem::take(&mut inner.kept().drivers);
    let asked = pods.iter().flat_map(|pod| {
        let published = inner.hands.drivers.published(&pod.uid);
        published.into_iter().map(|one| ((pod.uid.clone(), one.name.clone()), one)).collect::<Vec<_>>()
    });
    let (fresh, old): (Vec<_>, Vec<_>) =
        asked.partition(|(key, _)| said.get(key).is_some_and(|(at, _)| at.elapsed() < age_max));
    let answers = join_all(old.into_iter().map(|(key, one)| async move { (usage(inner, &one).await, key, one) })).await;
    let mut all = Said::new();
    for (key, _) in fresh {
        all.extend(said.remove_entry(&key));
    }
    for (answer, key, one) in answers {
        let usage = match answer {
            Ok(usage) => usage,
            Err(err) => {
                tracing::debug!(volume = one.name, err, "a driver does not tell how much of a volume is used");
                said.remove(&key).and_then(|(_, known)| known.usage)
            }
        };
        all.insert(key, (Instant::now(), DriverVolume { volume: one.volume, usage }));
    }
    let told = all.iter().map(|(key, (_, volume))| (key.clone(), volume.clone())).into_map();
    inner.kept().drivers = all;
    told
}

async fn usage(inner: &Inner, one: &Published) -> Result<Option<Usage>, String> {
    match timeout(PATIENCE, one.usage(&inner.hands.drivers)).await {
        Ok(Ok(said)) => Ok(said.map(|(usage, _)| usage)),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// As the summary has it.
pub(super) fn fs_stats(usage: Usage) -> FsStats {
    let (bytes, inodes) = (usage.bytes, usage.inodes);
    FsStats {
        time: now(),
        available_bytes: bytes.map(|(available, _, _)| available),
        capacity_bytes: bytes.map(|(_, total, _)| total),
        used_bytes: bytes.map(|(_, _, used)| used),
        inodes_free: inodes.map(|(available, _, _)| available),
        inodes: inodes.map(|(_, total, _)| total),
        inodes_used: inodes.map(|(_, _, used)| used),
    }
}
