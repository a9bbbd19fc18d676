//! Who must be on this node: one task that turns desired sets into workers, adopts what runs, and retires the rest.

mod adopt;
mod entry;
pub mod survey;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::pod::{Fact, Order, PodRecord, Source};
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::observer::View;
use crate::observer::relist::ListedPod;
use crate::sources::{DesiredPod, DesiredSet};
use crate::worker::{self, Note, Surroundings};
use entry::Entry;
use survey::{FoundPod, Surveyed};

/// What the roster hears.
#[derive(Debug)]
pub enum RosterNote {
    /// A source's whole wish.
    Desired(DesiredSet),
    /// A complete relist.
    Relisted(BTreeMap<PodUid, ListedPod>),
    /// An event about one container or sandbox of a pod.
    Changed(PodUid, Option<rubelet_api::ids::ContainerId>),
}

/// The task's state. Made from a survey only: nothing is cleaned up before having looked.
pub struct Roster {
    pods: BTreeMap<PodUid, Entry>,
    /// Order of arrival by name; the first one runs, the others wait for it.
    names: BTreeMap<PodKey, VecDeque<PodUid>>,
    /// Pods in the runtime that no source has claimed so far.
    found: BTreeMap<PodUid, FoundPod>,
    /// Sources that are configured, and whether each has spoken.
    has_spoken: BTreeMap<Source, bool>,
    ledger: Ledger,
    around: Surroundings,
    gone: mpsc::UnboundedReceiver<PodUid>,
    is_swept: bool,
}

impl Roster {
    /// A roster over what the first complete look showed.
    pub fn new(
        surveyed: Surveyed,
        sources: impl IntoIterator<Item = Source>,
        ledger: Ledger,
        around: Surroundings,
        gone: mpsc::UnboundedReceiver<PodUid>,
    ) -> Self {
        Self {
            pods: BTreeMap::new(),
            names: BTreeMap::new(),
            found: surveyed.pods,
            has_spoken: sources.into_iter().map(|s| (s, false)).collect(),
            ledger,
            around,
            gone,
            is_swept: false,
        }
    }

    /// Runs until the notes end.
    pub async fn run(mut self, mut notes: mpsc::Receiver<RosterNote>) {
        self.retire_found().await;
        loop {
            tokio::select! {
                note = notes.recv() => match note {
                    Some(RosterNote::Desired(set)) => self.desired(set).await,
                    Some(RosterNote::Relisted(pods)) => self.relisted(pods).await,
                    Some(RosterNote::Changed(uid, container)) => self.changed(&uid, container).await,
                    None => return,
                },
                uid = self.gone.recv() => match uid {
                    Some(uid) => self.pod_gone(&uid).await,
                    None => return,
                },
            }
        }
    }

    /// Takes a source's whole wish: retires what it wants no more, starts what is new.
    async fn desired(&mut self, set: DesiredSet) {
        let source = set.source;
        let mut wanted = BTreeMap::new();
        for desired in set.pods {
            let (uid, desired) = self.identify(source, desired).await;
            wanted.insert(uid, desired);
        }
        let withdrawn: Vec<PodUid> = self
            .pods
            .iter()
            .filter(|(uid, entry)| entry.source == source && !entry.is_withdrawn && !wanted.contains_key(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in withdrawn {
            self.withdraw(&uid).await;
        }
        self.remember(source, &wanted);
        for (uid, desired) in wanted {
            self.want(source, uid, desired).await;
        }
        self.has_spoken.insert(source, true);
        self.retire_found().await;
    }

    /// The UID under which a desired pod runs: its own, or that of the running pod it is.
    async fn identify(&self, source: Source, desired: DesiredPod) -> (PodUid, DesiredPod) {
        let uid = PodUid::new(desired.pod.metadata.uid.as_deref().unwrap_or_default());
        if self.pods.contains_key(&uid) || self.found.contains_key(&uid) || !source.is_static() {
            return (uid, desired);
        }
        let key = key_of(&desired.pod);
        // Already adopted in this life: the same manifest goes on under the adopted UID.
        if let Some((adopted, _)) = self
            .pods
            .iter()
            .find(|(_, e)| e.source == source && e.key == key && e.digest == desired.digest && !e.is_withdrawn)
        {
            return (adopted.clone(), adopt::under_uid(desired, adopted));
        }
        let node = self.around.node.borrow().clone();
        for (found_uid, found) in &self.found {
            if found.key.as_ref() != Some(&key) || found.source.as_deref() != Some(source.as_str()) {
                continue;
            }
            let known = self.ledger.find(source, &key);
            let is_same = match known {
                Some(known) if known.uid == *found_uid => known.digest == desired.digest,
                _ => adopt::runs_as_wanted(&self.around.hands, found, &desired.pod, found_uid, &node).await,
            };
            if is_same {
                tracing::info!(pod = %key, uid = %found_uid, "adopted a running pod under the UID it has");
                return (found_uid.clone(), adopt::under_uid(desired, found_uid));
            }
        }
        (uid, desired)
    }

    async fn want(&mut self, source: Source, uid: PodUid, desired: DesiredPod) {
        if let Some(entry) = self.pods.get_mut(&uid) {
            if entry.is_withdrawn {
                entry.again = Some(desired);
            } else if *entry.pod != *desired.pod && !same_but_for_annotations(&entry.pod, &desired.pod) {
                entry.pod = desired.pod.clone();
                entry.worker.send(Note::Fact(Fact::Desired(desired.pod))).await;
            }
            return;
        }
        self.start(source, uid, desired).await;
    }

    async fn start(&mut self, source: Source, uid: PodUid, desired: DesiredPod) {
        let key = key_of(&desired.pod);
        let view = self.found.remove(&uid).map(|f| f.view);
        if let Some((old, _)) = self.found.iter().find(|(_, f)| f.key.as_ref() == Some(&key) && f.is_of(source)) {
            let old = old.clone();
            self.retire(&old).await;
        }
        let order = self.admit(&desired.pod, view.is_some());
        let (record, view) = (PodRecord::new(source, desired.pod.clone()), view.unwrap_or_default());
        let handle = worker::start(record, desired.pod.clone(), view, self.around.clone());
        if let Some(order) = order {
            handle.send(Note::Fact(Fact::Order(order))).await;
        }
        self.enter(uid, Entry::new(key, source, desired, handle)).await;
    }

    /// Puts an entry at the end of its name's queue; it waits if it is not the first.
    async fn enter(&mut self, uid: PodUid, entry: Entry) {
        let queue = self.names.entry(entry.key.clone()).or_default();
        let must_wait = !queue.is_empty() || self.found.values().any(|f| f.key.as_ref() == Some(&entry.key));
        queue.push_back(uid.clone());
        if must_wait {
            entry.worker.send(Note::Fact(Fact::Behind(true))).await;
        }
        self.pods.insert(uid, entry);
    }

    /// Admission: `None` lets the pod in. A pod that already runs was admitted once.
    fn admit(&self, pod: &v1::Pod, runs_already: bool) -> Option<Order> {
        if runs_already {
            return None;
        }
        let node = self.around.node.borrow().clone();
        let active: Vec<Arc<v1::Pod>> = self.pods.values().filter(|e| e.holds_resources()).map(|e| e.pod.clone()).collect();
        let active: Vec<&v1::Pod> = active.iter().map(AsRef::as_ref).collect();
        match rubelet_core::admit::decide(pod, &active, &node) {
            rubelet_core::admit::Verdict::Admit => None,
            rubelet_core::admit::Verdict::Reject { reason, message } => Some(Order::Reject { reason, message }),
        }
    }

    async fn withdraw(&mut self, uid: &PodUid) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.is_withdrawn = true;
            entry.worker.send(Note::Fact(Fact::Withdrawn)).await;
        }
    }

    /// Once all sources have spoken, what nobody claimed is stopped, and what is left of dead pods swept.
    async fn retire_found(&mut self) {
        if self.has_spoken.values().any(|spoken| !spoken) {
            return;
        }
        for uid in self.found.keys().cloned().collect::<Vec<_>>() {
            self.retire(&uid).await;
        }
        if !self.is_swept {
            self.is_swept = true;
            let known: BTreeSet<PodUid> = self.pods.keys().cloned().collect();
            crate::collector::sweep(self.around.hands.clone(), known);
        }
    }

    async fn retire(&mut self, uid: &PodUid) {
        let Some(found) = self.found.remove(uid) else { return };
        tracing::info!(pod = ?found.key, %uid, "stopping a pod that no source wants");
        let pod = Arc::new(found.skeleton(uid));
        let record = PodRecord::orphan(pod.clone(), &found.view.observed());
        let handle = worker::start(record, pod.clone(), found.view.clone(), self.around.clone());
        let key = found.key.clone().unwrap_or_else(|| PodKey::new("", uid.as_str()));
        let desired = DesiredPod { pod, digest: String::new(), origin: String::new() };
        let entry = Entry { is_withdrawn: true, ..Entry::new(key, Source::Runtime, desired, handle) };
        self.enter(uid.clone(), entry).await;
    }

    /// A worker ended: whoever waits for its name goes on.
    async fn pod_gone(&mut self, uid: &PodUid) {
        let Some(entry) = self.pods.remove(uid) else { return };
        self.forget_in_ledger(&entry, uid);
        if let Some(queue) = self.names.get_mut(&entry.key) {
            queue.retain(|u| u != uid);
            if queue.is_empty() {
                self.names.remove(&entry.key);
            }
        }
        if let Some(again) = entry.again {
            self.start(entry.source, uid.clone(), again).await;
        }
        let first = self.names.get(&entry.key).and_then(|q| q.front()).and_then(|u| self.pods.get(u));
        if let Some(first) = first {
            first.worker.send(Note::Fact(Fact::Behind(false))).await;
        }
    }

    /// Gives each worker its rows of a relist; pods that nobody knows are found pods.
    async fn relisted(&mut self, mut listed: BTreeMap<PodUid, ListedPod>) {
        for (uid, entry) in &self.pods {
            let rows = listed.remove(uid).unwrap_or_default().rows;
            entry.worker.send(Note::Listed(rows)).await;
        }
        for (uid, pod) in listed {
            if !self.found.contains_key(&uid)
                && let Some(found) = survey::find(&self.around.hands, &uid, pod).await
            {
                self.found.insert(uid, found);
            }
        }
        self.retire_found().await;
    }

    async fn changed(&mut self, uid: &PodUid, container: Option<rubelet_api::ids::ContainerId>) {
        if let (Some(entry), Some(id)) = (self.pods.get(uid), container) {
            entry.worker.send(Note::Changed(id)).await;
        }
    }

    /// Writes down who runs under which UID, before anything is started.
    fn remember(&mut self, source: Source, wanted: &BTreeMap<PodUid, DesiredPod>) {
        if !source.is_static() {
            return;
        }
        for (uid, desired) in wanted {
            self.ledger.put(source, &key_of(&desired.pod), &desired.digest, uid);
        }
        self.save_ledger();
    }

    fn forget_in_ledger(&mut self, entry: &Entry, uid: &PodUid) {
        if entry.source.is_static() && entry.again.is_none() && self.ledger.remove(entry.source, &entry.key, uid) {
            self.save_ledger();
        }
    }

    fn save_ledger(&mut self) {
        if let Err(e) = self.ledger.save() {
            tracing::warn!(err = %e, "writing the ledger failed; after a restart pods are compared with the runtime instead");
        }
    }
}

fn key_of(pod: &v1::Pod) -> PodKey {
    PodKey::new(
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Re-reading a file renews `config.seen`; that alone is no change.
fn same_but_for_annotations(a: &v1::Pod, b: &v1::Pod) -> bool {
    let bare = |pod: &v1::Pod| {
        let mut pod = pod.clone();
        if let Some(annotations) = &mut pod.metadata.annotations {
            annotations.remove("kubernetes.io/config.seen");
        }
        pod
    };
    bare(a) == bare(b)
}
