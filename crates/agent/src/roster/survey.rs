//! The first complete look: every pod in the runtime, with all its containers.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::meta::ObjectMeta;
use rubelet_api::v1;
use rubelet_core::pod::Source;
use rubelet_cri::RuntimeError;

use crate::hands::Hands;
use crate::observer::relist::{ListedPod, relist};
use crate::observer::{Ask, Sighting, View, look};

/// Status calls under way at once.
const AT_ONCE: usize = 16;

/// A pod that was found in the runtime.
#[derive(Clone, Debug)]
pub struct FoundPod {
    /// From the labels; `None` when they are missing.
    pub key: Option<PodKey>,
    /// `kubernetes.io/config.source` of its sandbox.
    pub source: Option<String>,
    pub view: View,
}

impl FoundPod {
    pub(super) fn is_of(&self, source: Source) -> bool {
        self.source.as_deref() == Some(source.as_str())
    }

    /// A pod object with nothing but what the labels say, for a pod without manifest.
    pub(super) fn skeleton(&self, uid: &PodUid) -> v1::Pod {
        let metadata = ObjectMeta {
            uid: Some(uid.to_string()),
            name: self.key.as_ref().map(|k| k.name.to_string()),
            namespace: self.key.as_ref().map(|k| k.namespace.to_string()),
            ..Default::default()
        };
        v1::Pod { metadata, spec: Some(v1::PodSpec::default()), status: None }
    }
}

/// Proof that the whole runtime was looked at.
#[derive(Debug)]
pub struct Surveyed {
    pub(super) pods: BTreeMap<PodUid, FoundPod>,
}

impl Surveyed {
    /// The UIDs found.
    pub fn uids(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys()
    }
}

/// Looks at everything once.
///
/// # Errors
/// When one of the two lists fails.
pub async fn survey(hands: &Hands) -> Result<Surveyed, RuntimeError> {
    let listed = relist(hands).await?;
    let found: Vec<_> = futures_util::stream::iter(listed)
        .map(|(uid, pod)| async move { find(hands, &uid, pod).await.map(|found| (uid, found)) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    Ok(Surveyed { pods: found.into_iter().flatten().collect() })
}

/// Looks at one listed pod; `None` when nothing of it is there any more.
pub(super) async fn find(hands: &Hands, uid: &PodUid, listed: ListedPod) -> Option<FoundPod> {
    let asks = View::default().differences(&listed.rows).into_iter().chain([Ask::Cgroup]);
    let looks = futures_util::stream::iter(asks).map(|ask| look(hands, uid, ask)).buffered(4);
    let seen: Vec<Sighting> = looks.collect::<Vec<_>>().await.into_iter().flatten().collect();
    let mut view = View::default();
    view.take(seen);
    let is_there = view.sandbox_ids().next().is_some() || view.container_ids().next().is_some();
    is_there.then(|| FoundPod { key: listed.key, source: listed.source, view })
}
