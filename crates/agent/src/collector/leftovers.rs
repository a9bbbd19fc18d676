//! Logs of pods that are gone, and links to logs that are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, PodUid};
use rubelet_host::{chain, paths};
use rubelet_proto::cri;
use tokio::sync::{mpsc, oneshot};

use crate::hands::Hands;
use crate::roster::RosterNote;

/// Removes both; says what could not be removed. Nothing is removed before every source has spoken.
pub(super) async fn remove(hands: &Arc<Hands>, roster: &mpsc::Sender<RosterNote>) -> Result<(), String> {
    let mut failures = Vec::new();
    // Looked at before the pods are asked for: what is made meanwhile is not among them.
    let (pod_logs, links) = (hands.pod_logs_dir.clone(), hands.container_logs_dir.clone());
    let looked = rubelet_host::task::blocking(move || (names(&pod_logs), dead_links(&links))).await;
    let (dirs, dead) = looked.map_err(|e| format!("looking for logs of pods that are gone: {e}"))?;
    let (asker, answer) = oneshot::channel();
    if !dirs.is_empty()
        && roster.send(RosterNote::Known(asker)).await.is_ok()
        && let Ok(known) = answer.await
        && known.is_all
    {
        let gone = gone(&hands.pod_logs_dir, dirs, &known.uids);
        let removed = rubelet_host::task::blocking(move || remove_trees(gone)).await;
        failures.extend(removed.map_err(|e| format!("removing logs of pods that are gone: {e}"))?);
    }
    for link in dead {
        if !is_alive(hands, &link).await
            && let Err(e) = fs::remove_file(&link)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            failures.push(format!("remove link {}: {e}", link.display()));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join(", ")) }
}

/// Removes directories; says what could not be removed.
fn remove_trees(dirs: Vec<PathBuf>) -> Vec<String> {
    let remove = |dir: PathBuf| {
        tracing::info!(path = %dir.display(), "removing logs of a pod that is gone");
        paths::remove_tree(&dir).err().map(|e| chain(&e))
    };
    dirs.into_iter().filter_map(remove).collect()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Directories `<namespace>_<name>_<uid>` of pods that nobody knows.
fn gone(pod_logs: &Path, names: Vec<String>, known: &BTreeSet<PodUid>) -> Vec<PathBuf> {
    let is_gone = |name: &String| {
        let mut parts = name.rsplitn(3, '_');
        let (uid, has_rest) = (parts.next(), parts.count() == 2);
        has_rest && uid.is_some_and(|uid| !known.contains(&PodUid::new(uid)))
    };
    names.into_iter().filter(is_gone).map(|name| pod_logs.join(name)).collect()
}

/// `*.log` links whose target is not there.
fn dead_links(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_link = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_symlink());
    let links = entries.filter(is_link).map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "log"));
    links.filter(|p| fs::metadata(p).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)).collect()
}

/// kubelet 1.36: the log of a container that runs is missing for a moment while it is rotated; its link stays.
async fn is_alive(hands: &Hands, link: &Path) -> bool {
    let name = link.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((_, id)) = name.rsplit_once('-') else { return false };
    let state = match hands.runtime.container_status(&ContainerId::new(id), false).await {
        Ok(answer) => answer.status.map(|s| s.state),
        Err(e) => return !e.is_not_found(),
    };
    state.is_some_and(|state| state != cri::ContainerState::ContainerExited as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_unknown_pods_are_gone_and_other_directories_stay() {
        let known = BTreeSet::from([PodUid::new("u1")]);
        let names = ["ns_web_u1", "ns_web_u2", "lost+found", "a_b"].map(str::to_owned).to_vec();
        assert_eq!(gone(Path::new("/logs"), names, &known), [PathBuf::from("/logs/ns_web_u2")]);
    }
}
