//! Identity outlives versions: a running pod that is what a manifest asks for goes on under the UID it has.

use std::sync::Arc;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::Source;

use super::survey::FoundPod;
use crate::compare::Unlike;
use crate::hands::Hands;
use crate::sources::DesiredPod;

const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// The UID of the running pod that a desired pod is, and the desired pod under it.
pub(super) fn adopted(desired: DesiredPod, uid: &PodUid) -> (PodUid, DesiredPod) {
    tracing::info!(pod = %desired.key(), %uid, "adopted a running pod under the UID it has");
    (uid.clone(), under_uid(desired, uid))
}

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

/// Whether the containers that run are, in their whole rendered configuration, those that the manifest asks for. `None`: the runtime
/// did not answer.
pub(super) async fn runs_as_wanted(
    hands: &Hands,
    found: &FoundPod,
    wanted: &v1::Pod,
    uid: &PodUid,
    node: &NodeFacts,
) -> Option<bool> {
    match crate::compare::runs_as_rendered(hands, &found.view.observed(), &renamed(wanted, uid), node).await {
        Ok(()) => Some(true),
        Err(Unlike::Unanswered(err)) => {
            tracing::warn!(%uid, err, "a pod of this name runs, and the runtime does not tell what it is; asking again");
            None
        }
        Err(Unlike::Different(difference)) => {
            tracing::info!(%uid, %difference, "a pod of this name runs and is not what the manifest asks for; it is replaced");
            Some(false)
        }
    }
}

/// How a wanted pod differs from the one of the same UID that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Nothing,
    /// Only images, ephemeral containers or sizes: what changes is done in the pod.
    InPlace,
    /// Anything else: the pod is replaced.
    Other,
}

/// Whether the two ask for the same sizes.
pub(super) fn has_same_sizes(a: &v1::Pod, b: &v1::Pod) -> bool {
    fn sizes(pod: &v1::Pod) -> impl Iterator<Item = Option<&v1::ResourceRequirements>> {
        let spec = pod.spec.iter();
        spec.flat_map(|s| std::iter::once(s.resources.as_ref()).chain(containers(s).map(|c| c.resources.as_ref())))
    }
    sizes(a).eq(sizes(b))
}

fn containers(spec: &v1::PodSpec) -> impl Iterator<Item = &v1::Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Compares two versions of a pod of that source. A static pod of another size is another pod (kubelet 1.36). Reading a manifest again renews `config.seen`, and that alone is no change.
pub(super) fn change(source: Source, old: &v1::Pod, new: &v1::Pod) -> Change {
    if old == new {
        return Change::Nothing;
    }
    if source == Source::Api {
        // The API server lets nothing change for which the pod would have to be replaced.
        return Change::InPlace;
    }
    let bare = |pod: &v1::Pod| {
        let mut pod = pod.clone();
        if let Some(annotations) = &mut pod.metadata.annotations {
            annotations.remove("kubernetes.io/config.seen");
        }
        pod
    };
    let rest = |mut pod: v1::Pod| {
        if let Some(spec) = &mut pod.spec {
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                container.image = None;
                container.resources.take_if(|_| !source.is_static());
            }
            spec.resources.take_if(|_| !source.is_static());
            spec.ephemeral_containers = None;
        }
        pod
    };
    let (old, new) = (bare(old), bare(new));
    if old == new {
        Change::Nothing
    } else if rest(old) == rest(new) {
        Change::InPlace
    } else {
        Change::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: &str, word: &str, seen: &str) -> v1::Pod {
        let manifest = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "annotations": {"kubernetes.io/config.seen": seen}},
            "spec": {"containers": [{"name": "app", "image": image, "args": [word]}]},
        });
        serde_json::from_value(manifest).expect("a pod")
    }

    #[test]
    fn images_change_in_place_and_the_time_of_reading_is_no_change() {
        let old = pod("a:1", "x", "then");
        assert_eq!(change(Source::File, &old, &pod("a:1", "x", "now")), Change::Nothing);
        assert_eq!(change(Source::File, &old, &pod("a:2", "x", "now")), Change::InPlace);
        assert_eq!(change(Source::File, &old, &pod("a:2", "y", "then")), Change::Other);
        let mut big = old.clone();
        big.spec.get_or_insert_default().containers[0].resources = Some(v1::ResourceRequirements {
            limits: Some([("cpu".to_owned(), rubelet_api::Quantity("1".to_owned()))].into()),
            ..Default::default()
        });
        assert!(has_same_sizes(&old, &old) && !has_same_sizes(&old, &big));
        assert_eq!(change(Source::File, &old, &big), Change::Other);
        assert_eq!(change(Source::Api, &old, &big), Change::InPlace);
        let mut debugged = old.clone();
        let guest = v1::EphemeralContainer { name: "dbg".to_owned(), ..Default::default() };
        debugged.spec.get_or_insert_default().ephemeral_containers = Some(vec![guest]);
        assert_eq!(change(Source::File, &old, &debugged), Change::InPlace);
    }
}
