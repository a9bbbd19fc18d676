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
    let mut pod = (*desired.pod).clone();
    pod.metadata.uid = Some(uid.to_string());
    pod.metadata.annotations.get_or_insert_default().insert(CONFIG_HASH.to_owned(), uid.to_string());
    DesiredPod { pod: Arc::new(pod), ..desired }
}

/// Whether the containers that run are, in their whole rendered configuration, those that the manifest asks for.
pub(super) async fn runs_as_wanted(
    hands: &Hands,
    found: &FoundPod,
    wanted: &v1::Pod,
    uid: &PodUid,
    node: &NodeFacts,
) -> bool {
    let desired = DesiredPod { pod: Arc::new(wanted.clone()), digest: String::new(), origin: String::new() };
    let wanted = under_uid(desired, uid);
    match crate::compare::runs_as_rendered(hands, &found.view.observed(), &wanted.pod, node).await {
        Ok(()) => true,
        Err(difference) => {
            tracing::info!(%uid, %difference, "a pod of this name runs and is not what the manifest asks for; it is replaced");
            false
        }
    }
}
