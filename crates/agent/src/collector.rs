//! What dead pods left on the node: directories and cgroups that belong to nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use rubelet_api::ids::PodUid;

use crate::execute::dirs;
use crate::hands::Hands;

/// Removes directories and cgroups of pods that are neither wanted nor running. Runs beside; `known` are the others.
///
/// Called once, after a complete look and after every source has spoken.
pub fn sweep(hands: Arc<Hands>, known: BTreeSet<PodUid>) {
    tokio::task::spawn_blocking(move || {
        sweep_dirs(&hands, &known);
        sweep_cgroups(&hands, &known);
    });
}

fn sweep_dirs(hands: &Hands, known: &BTreeSet<PodUid>) {
    let Ok(entries) = std::fs::read_dir(hands.pods_dir()) else { return };
    for entry in entries.flatten() {
        let Some(uid) = entry.file_name().to_str().map(PodUid::new) else { continue };
        if known.contains(&uid) {
            continue;
        }
        match dirs::remove_pod_dir(hands, &uid) {
            Ok(()) => tracing::info!(%uid, "removed the directory of a pod that is gone"),
            Err(e) => tracing::warn!(%uid, err = %e, "removing the directory of a pod that is gone failed, it stays until the next start"),
        }
    }
}

fn sweep_cgroups(hands: &Hands, known: &BTreeSet<PodUid>) {
    let Some(tree) = &hands.cgroups else { return };
    for found in tree.list_pods() {
        let uid = PodUid::new(&found);
        if known.contains(&uid) {
            continue;
        }
        match hands.remove_pod_cgroup(&uid) {
            Ok(()) => tracing::info!(%uid, "removed the cgroup of a pod that is gone"),
            Err(e) => tracing::warn!(%uid, err = %e, "removing the cgroup of a pod that is gone failed, it stays until the next start"),
        }
    }
}
