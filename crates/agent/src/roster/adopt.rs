//! Identity outlives versions: a running pod that is what a manifest asks for goes on under the UID it has.

use std::sync::Arc;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_core::node::NodeFacts;

use super::survey::FoundPod;
use crate::hands::Hands;
use crate::sources::DesiredPod;

const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// The desired pod under another UID.
pub(super) fn under_uid(desired: DesiredPod, uid: &PodUid) -> DesiredPod {
    let pod = Arc::new(renamed(&desired.pod, uid));
    DesiredPod { pod, ..desired }
}

fn renamed(pod: &v1::Pod, uid: &PodUid) -> v1::Pod {
    let mut pod = pod.clone();
    pod.metadata.uid = Some(uid.to_string());
    pod.metadata.annotations.get_or_insert_default().insert(CONFIG_HASH.to_owned(), uid.to_string());
    pod
}

/// Whether the containers that run are, in their whole rendered configuration, those that the manifest asks for.
pub(super) async fn runs_as_wanted(
    hands: &Hands,
    found: &FoundPod,
    wanted: &v1::Pod,
    uid: &PodUid,
    node: &NodeFacts,
) -> bool {
    match crate::compare::runs_as_rendered(hands, &found.view.observed(), &renamed(wanted, uid), node).await {
        Ok(()) => true,
        Err(difference) => {
            tracing::info!(%uid, %difference, "a pod of this name runs and is not what the manifest asks for; it is replaced");
            false
        }
    }
}

/// Whether two versions of a pod are one: reading a manifest again renews `config.seen`, and that alone is no change.
pub(super) fn is_same(a: &v1::Pod, b: &v1::Pod) -> bool {
    let bare = |pod: &v1::Pod| {
        let mut pod = pod.clone();
        if let Some(annotations) = &mut pod.metadata.annotations {
            annotations.remove("kubernetes.io/config.seen");
        }
        pod
    };
    a == b || bare(a) == bare(b)
}
