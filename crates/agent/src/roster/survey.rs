//! The first complete look: every pod in the runtime with all its containers, and what pods left on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::meta::ObjectMeta;
use rubelet_api::v1;
use rubelet_core::pod::Source;
use rubelet_cri::RuntimeError;
use tokio::time::Instant;

use crate::hands::Hands;
use crate::observer::relist::{ListedPod, relist};
use crate::observer::{Ask, View, look};

/// Status calls under way at once.
const AT_ONCE: usize = 16;
/// How often what did not answer is looked at again, and after which pause.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);
/// How long a pod whose runtime does not answer may hold up the start; its worker goes on asking.
const SURVEY_SECS_MAX: Duration = Duration::from_secs(10);

/// A pod that was found in the runtime.
#[derive(Clone, Debug)]
pub struct FoundPod {
    pub listed: ListedPod,
    pub view: View,
}

impl FoundPod {
    pub(super) fn key(&self) -> Option<&PodKey> {
        self.listed.key.as_ref()
    }

    pub(super) fn is_of(&self, source: Source) -> bool {
        self.listed.is_of(source)
    }

    /// Something of it is in the runtime, or may be.
    pub(super) fn is_there(&self) -> bool {
        !self.view.is_empty() || !self.is_complete()
    }

    /// Everything that is listed was seen.
    pub(super) fn is_complete(&self) -> bool {
        self.view.differences(&self.listed.rows).is_empty()
    }

    /// A pod object with nothing but what labels and annotations say, for a pod without manifest.
    pub(super) fn skeleton(&self, uid: &PodUid) -> v1::Pod {
        let metadata = ObjectMeta {
            uid: Some(uid.to_string()),
            name: self.key().map(|k| k.name.to_string()),
            namespace: self.key().map(|k| k.namespace.to_string()),
            ..Default::default()
        };
        v1::Pod { metadata, spec: Some(self.listed.spec.clone()), status: None }
    }
}

/// Proof that the whole runtime was looked at.
#[derive(Debug)]
pub struct Surveyed {
    pub(super) pods: BTreeMap<PodUid, FoundPod>,
    /// Pods of which only directories, logs or a cgroup are left.
    pub(super) leftovers: BTreeSet<PodUid>,
}

impl Surveyed {
    /// The UIDs found in the runtime.
    pub fn uids(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys()
    }
}

/// Looks at everything once.
///
/// # Errors
/// When one of the two lists fails.
pub async fn survey(hands: &Arc<Hands>) -> Result<Surveyed, RuntimeError> {
    // The disk first: what a pod leaves there is left by pods that were in the runtime before.
    let for_disk = hands.clone();
    let mut leftovers = rubelet_host::task::blocking(move || on_disk(&for_disk)).await.unwrap_or_default();
    let listed = relist(hands).await?.pods;
    let deadline = Instant::now() + SURVEY_SECS_MAX;
    let pods: BTreeMap<_, _> = futures_util::stream::iter(listed)
        .map(|(uid, pod)| async move {
            let found = find(hands, &uid, pod, deadline).await;
            (uid, found)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    leftovers.retain(|uid| !pods.contains_key(uid));
    Ok(Surveyed { pods, leftovers })
}

/// Looks at one listed pod until `deadline`. What does not answer is tried again; in the end it may be missing from the view.
pub(super) async fn find(hands: &Hands, uid: &PodUid, listed: ListedPod, deadline: Instant) -> FoundPod {
    let mut found = FoundPod { listed, view: View::default() };
    found.view.take(look(hands, uid, Ask::Cgroup).await);
    for attempt in 0..TRIES {
        let asks = found.view.differences(&found.listed.rows);
        if asks.is_empty() {
            break;
        }
        if attempt > 0 {
            tokio::time::sleep(PAUSE * attempt).await;
        }
        let looks = futures_util::stream::iter(asks).map(|ask| look(hands, uid, ask)).buffer_unordered(4);
        let mut looks = std::pin::pin!(looks);
        while let Ok(Some(seen)) = tokio::time::timeout_at(deadline, looks.next()).await {
            found.view.take(seen);
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    found
}

/// UIDs that directories, logs and cgroups tell of.
fn on_disk(hands: &Hands) -> BTreeSet<PodUid> {
    let mut uids = BTreeSet::new();
    uids.extend(names_in(&hands.pods_dir()).iter().map(PodUid::new));
    // `<namespace>_<name>_<uid>`; none of the three has an underscore.
    let of_logs = |name: &String| Some(PodUid::new(name.rsplit_once('_')?.1));
    uids.extend(names_in(&hands.pod_logs_dir).iter().filter(|n| n.matches('_').count() == 2).filter_map(of_logs));
    uids.extend(hands.cgroups.iter().flat_map(rubelet_host::cgroup::Tree::list_pods).map(PodUid::from));
    uids.retain(is_uid);
    uids
}

/// Not everything that lies there is a pod's: `lost+found` is not.
fn is_uid(uid: &PodUid) -> bool {
    let text = uid.as_str();
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Names of the directories in `dir`.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}
