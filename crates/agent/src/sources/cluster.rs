//! Pods that the API server has bound to this node: listed once, then watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use rubelet_api::ids::PodKey;
use rubelet_api::pod::{CONFIG_SEEN, CONFIG_SOURCE};
use rubelet_api::v1;
use rubelet_apiserver::{Change, Client, Path, Selector};
use rubelet_core::pod::{Source, mirror};
use tokio::sync::{mpsc, watch};

use super::{DesiredPod, DesiredSet};

/// What the API server has under each name on this node, mirrors of static pods included.
pub type Objects = BTreeMap<PodKey, Arc<v1::Pod>>;

/// The API server's pods as a source.
pub struct ClusterSource {
    pub client: Client,
    /// `spec.nodeName` of the pods.
    pub node_name: String,
    /// Where all objects are shown; `None` until the first list.
    pub objects: watch::Sender<Option<Arc<Objects>>>,
}

impl ClusterSource {
    /// Sends the whole wish after the first list and after each change, until the receiver is gone.
    pub async fn run(self, out: mpsc::Sender<DesiredSet>) {
        let selector = Selector::fields(format!("spec.nodeName={}", self.node_name));
        let mut changes = self.client.list_watch::<v1::Pod>(Path::all::<v1::Pod>(), selector);
        let mut known = Known::default();
        while let Some(change) = changes.next().await {
            let mut is_news = known.take(change);
            // What came together is told together.
            while let Some(Some(change)) = changes.next().now_or_never() {
                is_news |= known.take(change);
            }
            if !is_news || !known.is_listed {
                continue;
            }
            self.objects.send_replace(Some(Arc::new(known.objects.clone())));
            if out.send(known.wish()).await.is_err() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Known {
    objects: Objects,
    is_listed: bool,
    /// The trouble that was told.
    trouble: Option<String>,
}

impl Known {
    /// Takes in a change; false if it changes nothing.
    fn take(&mut self, change: Change<v1::Pod>) -> bool {
        match change {
            Change::Replaced(pods, _) => {
                let mut before = std::mem::take(&mut self.objects);
                for pod in pods {
                    self.put(pod, &mut before);
                }
                self.is_listed = true;
                self.trouble = None;
                true
            }
            Change::Upserted(pod) => {
                let mut before = Objects::new();
                let key = key(&pod);
                before.extend(self.objects.remove(&key).map(|old| (key, old)));
                self.put(pod, &mut before);
                self.trouble = None;
                true
            }
            Change::Removed(pod) => {
                let key = key(&pod);
                let is_it = self.objects.get(&key).is_some_and(|old| old.metadata.uid == pod.metadata.uid);
                is_it && self.objects.remove(&key).is_some()
            }
            Change::Interrupted(error) => {
                let err = error.to_string();
                if self.trouble.as_ref() != Some(&err) {
                    tracing::warn!(err, "watching the node's pods at the API server failed, trying again; pods go on");
                    self.trouble = Some(err);
                }
                false
            }
        }
    }

    fn put(&mut self, mut pod: v1::Pod, before: &mut Objects) {
        let key = key(&pod);
        let old = before.remove(&key).filter(|old| old.metadata.uid == pod.metadata.uid);
        let object = match old {
            Some(old) if old.metadata.resource_version == pod.metadata.resource_version => old,
            old => {
                let is_mirror = mirror::shows(&pod).is_some();
                if !is_mirror {
                    annotate(&mut pod, old.as_deref());
                }
                Arc::new(pod)
            }
        };
        self.objects.insert(key, object);
    }

    /// All pods that shall run, in the order in which they were made; mirrors only show what runs.
    fn wish(&self) -> DesiredSet {
        let mut pods: Vec<&Arc<v1::Pod>> = self.objects.values().filter(|p| mirror::shows(p).is_none()).collect();
        pods.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let desired = |pod: &Arc<v1::Pod>| DesiredPod {
            pod: pod.clone(),
            digest: String::new(),
            origin: String::new(),
            removals: 0,
        };
        DesiredSet {
            source: Source::Api,
            complete: true,
            pods: pods.into_iter().map(desired).collect(),
            problems: Vec::new(),
        }
    }
}

fn key(pod: &v1::Pod) -> PodKey {
    let meta = &pod.metadata;
    PodKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// kubelet 1.36: on the node each pod says where it came from and when it was seen first.
fn annotate(pod: &mut v1::Pod, old: Option<&v1::Pod>) {
    let seen = old.and_then(|old| old.metadata.annotations.as_ref()?.get(CONFIG_SEEN).cloned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SEEN.to_owned(), seen.unwrap_or_else(|| format!("{:.9}", Timestamp::now())));
    annotations.insert(CONFIG_SOURCE.to_owned(), Source::Api.as_str().to_owned());
}

#[cfg(test)]
mod tests {
    use rubelet_api::pod::CONFIG_MIRROR;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, version: &str) -> v1::Pod {
        let meta = json!({"name": name, "namespace": "default", "uid": uid, "resourceVersion": version,
            "creationTimestamp": format!("2026-01-01T00:00:0{}Z", uid.len())});
        serde_json::from_value(json!({"metadata": meta})).expect("a pod")
    }

    fn names(set: &DesiredSet) -> Vec<String> {
        set.pods.iter().map(|p| p.key().name.to_string()).collect()
    }

    #[test]
    fn pods_are_wanted_in_the_order_in_which_they_were_made_and_mirrors_are_not() {
        let mut mirror = pod("fix-node", "m", "3");
        mirror.metadata.annotations = Some([(CONFIG_MIRROR.to_owned(), "hash".to_owned())].into());
        let mut known = Known::default();
        assert!(known.take(Change::Replaced(vec![pod("a", "younger", "2"), pod("b", "old", "1"), mirror], "3".into())));
        let set = known.wish();
        assert!(set.complete && set.source == Source::Api);
        assert_eq!(names(&set), ["b", "a"]);
        assert_eq!(known.objects.len(), 3);
        let annotations = set.pods[0].pod.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations.get(CONFIG_SOURCE).map(String::as_str), Some("api"));
    }

    #[test]
    fn what_did_not_change_stays_the_same_object() {
        let mut known = Known::default();
        known.take(Change::Replaced(vec![pod("a", "u", "1"), pod("b", "v", "1")], "1".into()));
        let (a, b) = (known.wish().pods[0].pod.clone(), known.wish().pods[1].pod.clone());
        known.take(Change::Replaced(vec![pod("a", "u", "1"), pod("b", "v", "2")], "2".into()));
        let set = known.wish();
        assert!(Arc::ptr_eq(&set.pods[0].pod, &a) && !Arc::ptr_eq(&set.pods[1].pod, &b));
        let seen = |pod: &v1::Pod| pod.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_SEEN).cloned());
        assert_eq!(seen(&set.pods[1].pod), seen(&b), "it was seen then");
    }

    #[test]
    fn another_pod_of_a_name_is_another_pod() {
        let mut known = Known::default();
        known.take(Change::Replaced(vec![pod("a", "u", "1")], "1".into()));
        assert!(known.take(Change::Upserted(pod("a", "w", "3"))));
        assert!(!known.take(Change::Removed(pod("a", "u", "2"))), "that one is gone already");
        assert_eq!(names(&known.wish()), ["a"]);
        assert!(known.take(Change::Removed(pod("a", "w", "4"))));
        assert!(known.wish().pods.is_empty());
    }
}
