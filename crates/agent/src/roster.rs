//! Who must be on this node: one task that turns desired sets into workers, adopts what runs, and retires the rest.

mod admission;
mod adopt;
mod entry;
mod inquiry;
mod orders;
mod questions;
mod remember;
mod sizes;
pub mod survey;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rubelet_api::gather::Gather;
use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::pod::{Fact, Order, PodEvent, PodRecord, Source, granted};
use rubelet_core::resources;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::observer::relist::{ListedPod, Relist};
use crate::observer::{Ask, View};
use crate::pulse;
use crate::sources::{DesiredPod, DesiredSet};
use crate::worker::{self, End, Note, Surroundings, WorkerHandle};
use admission::Admission;
use adopt::Change;
use entry::{Again, Answer, Entry, Waiting};
use inquiry::{Finding, Inquiry};
use questions::Questions;
use survey::{FoundPod, Surveyed};

/// What the roster hears.
#[derive(Debug)]
pub enum RosterNote {
    /// A source's whole wish.
    Desired(DesiredSet),
    /// A complete relist.
    Relisted(Relist),
    /// An event about a pod: where to look.
    Changed(PodUid, Ask),
    /// The node goes down: all pods are stopped, none is started any more.
    ShutDown,
    /// The node begins to go down and takes no new pods, or it stays up after all.
    GoesDown(bool),
    /// The node's level demands something of a pod.
    Order(PodUid, Order),
    /// The devices of a pod are well, or not, from now on.
    Devices(PodUid),
    /// Who asks is told which pods there are.
    Known(oneshot::Sender<Known>),
}

/// The pods that there are.
#[derive(Debug, Default)]
pub struct Known {
    pub uids: BTreeSet<PodUid>,
    /// Every source has spoken and nothing is asked of the runtime: other pods there are none.
    pub is_all: bool,
}

/// The task's state. Made from a survey only: nothing is cleaned up before having looked.
pub struct Roster {
    pods: BTreeMap<PodUid, Entry>,
    /// By name, in order of arrival; the first one runs, the others wait for it. Those of the API server wait for nobody, nobody for them.
    names: BTreeMap<PodKey, VecDeque<PodUid>>,
    /// Pods that others end for, and those of them that have not ended.
    room: BTreeMap<PodUid, BTreeSet<PodUid>>,
    /// Pods in the runtime that no source has claimed so far.
    found: BTreeMap<PodUid, FoundPod>,
    /// Pods in the runtime that nobody knew, and at which somebody is looking.
    looked_at: BTreeMap<PodUid, ListedPod>,
    /// Wanted pods of which it is not known yet whether they run already.
    questions: Questions,
    inquiry: Inquiry,
    findings: mpsc::UnboundedReceiver<Finding>,
    /// Pods of which only files or a cgroup are left, until all sources have spoken.
    leftovers: BTreeSet<PodUid>,
    /// Sources that are configured, and whether each has spoken.
    has_spoken: BTreeMap<Source, bool>,
    /// Pods of the API server that are gone from here and that it still has.
    done: BTreeSet<PodUid>,
    ledger: Ledger,
    around: Surroundings,
    ended: mpsc::UnboundedReceiver<End>,
    /// What the burstable level was given last.
    burstable_shares: Option<u64>,
}

impl Roster {
    /// A roster over what the first complete look showed.
    pub fn new(
        surveyed: Surveyed,
        sources: impl IntoIterator<Item = Source>,
        ledger: Ledger,
        around: Surroundings,
        ended: mpsc::UnboundedReceiver<End>,
    ) -> Self {
        let (inquiry, findings) = Inquiry::new(around.life.clone(), around.hands.clone());
        Self {
            pods: BTreeMap::new(),
            names: BTreeMap::new(),
            room: BTreeMap::new(),
            found: surveyed.pods,
            looked_at: BTreeMap::new(),
            questions: Questions::default(),
            inquiry,
            findings,
            leftovers: surveyed.leftovers,
            has_spoken: sources.into_iter().map(|s| (s, false)).into_map(),
            done: BTreeSet::new(),
            ledger,
            around,
            ended,
            burstable_shares: None,
        }
    }

    /// Runs until the notes end.
    pub async fn run(mut self, mut notes: mpsc::Receiver<RosterNote>) {
        let beat = self.around.pulse.roster();
        self.retire_unclaimed();
        let mut shown = self.around.picture.version();
        loop {
            beat.waits(Some(Instant::now() + pulse::ROUND));
            tokio::select! {
                note = notes.recv() => match note {
                    Some(RosterNote::Desired(set)) => self.desired(set).await,
                    Some(RosterNote::Relisted(relist)) => self.relisted(relist).await,
                    Some(RosterNote::Changed(uid, ask)) => self.changed(&uid, ask).await,
                    Some(RosterNote::ShutDown) => self.shut_down().await,
                    Some(RosterNote::GoesDown(does)) => drop(self.around.is_shutting_down.send_replace(does)),
                    Some(RosterNote::Order(uid, order)) => self.order(&uid, order).await,
                    Some(RosterNote::Devices(uid)) => self.tell_devices(&uid).await,
                    Some(RosterNote::Known(asker)) => drop(asker.send(self.known())),
                    None => return,
                },
                end = self.ended.recv() => match end {
                    Some(End::Gone(uid)) => self.pod_gone(&uid).await,
                    Some(End::Broken(uid)) => self.worker_broke(&uid),
                    None => return,
                },
                finding = self.findings.recv() => match finding {
                    Some(Finding::Found(uid, found)) => self.found_out(uid, *found).await,
                    Some(Finding::Reexamined(uid, found)) => self.replace_worker(&uid, *found),
                    Some(Finding::Compared { number, source, key, is_it }) => self.compared(number, source, &key, is_it).await,
                    None => return,
                },
                // The picture lives as long as the roster: there is always another change.
                _ = shown.changed(), if !self.room.is_empty() => self.room_made().await,
                () = tokio::time::sleep(pulse::ROUND) => self.decide_resizes("periodic_retry").await,
            }
            self.weigh_burstable().await;
        }
    }

    /// Takes a source's whole wish: retires what it wants no more, starts what is new.
    async fn desired(&mut self, set: DesiredSet) {
        let source = set.source;
        for double in set.problems.iter().filter_map(|problem| problem.double.as_ref()) {
            self.around.hands.events.tell(double, &PodEvent::of_double(double, source));
        }
        let mut wanted = Vec::new();
        self.questions.drop_all_of(source);
        for desired in set.pods {
            wanted.extend(self.identify(source, desired));
        }
        if set.complete {
            let uids: BTreeSet<&PodUid> = wanted.iter().map(|(uid, _)| uid).collect();
            if source == Source::Api {
                self.done.retain(|uid| uids.contains(uid));
            }
            self.withdraw_all_but(source, &uids).await;
        }
        self.remember(source, &wanted).await;
        // What runs already holds its resources before anything new is admitted.
        wanted.sort_by_key(|(uid, _)| !self.found.contains_key(uid));
        for (uid, desired) in wanted {
            self.want(source, uid, desired).await;
        }
        self.decide_resizes("pod_updated").await;
        self.spoke(source);
    }

    /// A source has spoken when it is known of each of its pods which it is.
    fn spoke(&mut self, source: Source) {
        self.has_spoken.insert(source, !self.questions.has_any_of(source));
        self.retire_unclaimed();
    }

    /// The UID under which a desired pod runs: its own, or that of the running pod it is. `None`: the runtime is asked.
    fn identify(&mut self, source: Source, desired: DesiredPod) -> Option<(PodUid, DesiredPod)> {
        let uid = PodUid::new(desired.pod.metadata.uid.as_deref().unwrap_or_default());
        if self.pods.contains_key(&uid) || self.found.contains_key(&uid) || !source.is_static() {
            return Some((uid, desired));
        }
        let key = desired.key();
        // Already running in this life: the same manifest goes on under the UID it has, wherever it lies now.
        let is_it = |e: &Entry| e.source == source && e.key == key && e.digest == desired.digest && !e.is_withdrawn;
        if let Some((adopted, _)) = self.pods.iter().find(|(_, e)| is_it(e)) {
            return Some((adopted.clone(), adopt::under_uid(desired, adopted)));
        }
        let mut candidates = Vec::new();
        for (found_uid, found) in self.found.iter().filter(|(_, f)| f.key() == Some(&key) && f.is_of(source)) {
            match self.ledger.find(source, &key) {
                Some(known) if known.uid == *found_uid => {
                    if known.digest == desired.digest {
                        return Some(adopt::adopted(desired, found_uid));
                    }
                }
                Some(_) | None => candidates.push((found_uid.clone(), found.clone())),
            }
        }
        if candidates.is_empty() {
            return Some((uid, desired));
        }
        let node = self.around.node.borrow().clone();
        let wanted = desired.clone();
        let ask = |number| self.inquiry.compare(number, source, wanted, candidates, node);
        self.questions.open(source, desired, ask);
        None
    }

    /// It is known whether a wanted pod runs already.
    async fn compared(&mut self, number: u64, source: Source, key: &PodKey, is_it: Option<PodUid>) {
        let Some(desired) = self.questions.close(number, source, key) else { return };
        let (uid, desired) = match is_it.filter(|uid| self.found.contains_key(uid)) {
            Some(found) => adopt::adopted(desired, &found),
            None => (PodUid::new(desired.pod.metadata.uid.as_deref().unwrap_or_default()), desired),
        };
        let digest = self.digest_of(source, &uid, &desired);
        self.ledger.put(source, key, &digest, &uid);
        self.save_ledger().await;
        self.want(source, uid, desired).await;
        self.spoke(source);
    }

    async fn withdraw_all_but(&mut self, source: Source, wanted: &BTreeSet<&PodUid>) {
        for (_, entry) in self.pods.iter_mut().filter(|(uid, _)| !wanted.contains(uid)) {
            if entry.again.as_ref().is_some_and(|again| again.source == source) {
                entry.again = None;
            }
            if entry.source == source && !entry.is_withdrawn {
                entry.is_withdrawn = true;
                entry.worker.send(Note::Fact(Fact::Withdrawn)).await;
            }
        }
    }

    async fn want(&mut self, source: Source, uid: PodUid, desired: DesiredPod) {
        if self.done.contains(&uid) {
            return;
        }
        if self.was_other(source, &uid, &desired) {
            self.retire(&uid);
        }
        let Some(entry) = self.pods.get_mut(&uid) else {
            self.start(source, &uid, desired, None).await;
            return;
        };
        let before = self.around.picture.status(&uid);
        if entry.is_withdrawn {
            entry.again = Some(Again { source, desired, before });
            return;
        }
        if entry.source != source {
            tracing::error!(pod = %entry.key, %uid, origin = %desired.origin, "another source wants a pod of the same UID; the first one stays");
            return;
        }
        let was_away = desired.removals > std::mem::replace(&mut entry.removals, desired.removals);
        if Arc::ptr_eq(&entry.pod, &desired.pod) && !was_away {
            return;
        }
        match adopt::change(source, &entry.pod, &desired.pod) {
            Change::Nothing if !was_away => entry.digest = desired.digest,
            Change::InPlace => {
                let granted = entry.granted().clone();
                self.around.hands.metrics.sizes_wanted(&entry.pod, &desired.pod);
                entry.digest = desired.digest;
                entry.pod = desired.pod.clone();
                entry.worker.send(Note::Fact(Fact::Desired(desired.pod))).await;
                let is_same = adopt::has_same_sizes(&granted, &entry.pod);
                let since = entry.waiting.as_ref().map_or_else(Instant::now, |waiting| waiting.since);
                entry.waiting = (!is_same).then_some(Waiting { granted, since, answer: Answer::Open });
            }
            Change::Other | Change::Nothing => {
                entry.is_withdrawn = true;
                entry.again = Some(Again { source, desired, before });
                entry.worker.send(Note::Fact(Fact::Withdrawn)).await;
            }
        }
    }

    /// Whether the pod that was found under this UID was started from another manifest: a UID may be a user's own.
    fn was_other(&self, source: Source, uid: &PodUid, desired: &DesiredPod) -> bool {
        let known = self.ledger.find(source, &desired.key()).filter(|known| known.uid == *uid);
        self.found.contains_key(uid) && known.is_some_and(|known| known.digest != desired.digest)
    }

    /// Starts a pod, or goes on with it where it was found. `before`: what was shown of the one that it follows.
    async fn start(&mut self, source: Source, uid: &PodUid, desired: DesiredPod, before: Option<&v1::PodStatus>) {
        let key = desired.key();
        self.leftovers.remove(uid);
        // Somebody is still looking at it: what is listed must be seen before anything is decided.
        let listed = |listed| FoundPod { listed, view: View::default() };
        let found = self.found.remove(uid).or_else(|| self.looked_at.remove(uid).map(listed));
        let is_other = |f: &FoundPod| f.key() == Some(&key) && f.is_of(source);
        let others: Vec<PodUid> = self.found.iter().filter(|(_, f)| is_other(f)).map(|(uid, _)| uid.clone()).collect();
        for other in others {
            self.retire(&other);
        }
        // A pod that already runs was admitted once; one that ended, or shall end, starts nothing.
        let is_over = desired.pod.metadata.deletion_timestamp.is_some() || is_ended(&desired.pod);
        let admission = if found.is_some() || is_over { Admission::In } else { self.admit(source, &desired.pod).await };
        if found.is_some() && !is_over {
            self.around.hands.allocation.adopt(&desired.pod).await;
        }
        let rejected = match admission {
            Admission::In => None,
            Admission::After { victims, lacks } => {
                self.preempt(&victims, &lacks).await;
                self.room.insert(uid.clone(), victims);
                None
            }
            Admission::Refused(order) => Some(order),
        };
        self.count_admission(&desired.pod, rejected.as_ref());
        let granted =
            found.as_ref().filter(|_| source == Source::Api).and_then(|_| granted(&desired.pod)).map(Arc::new);
        let mut record = PodRecord::new(source, granted.as_ref().unwrap_or(&desired.pod).clone());
        if let Some(before) = before {
            record.follow(before);
        }
        if granted.is_some() {
            record.absorb(Fact::Desired(desired.pod.clone()), self.around.clock.now());
        }
        let devices = self.health(uid, &desired.pod);
        if !devices.is_empty() {
            record.absorb(Fact::Devices(devices), self.around.clock.now());
        }
        let worker = self.employ(record, found, rejected.clone());
        let DesiredPod { pod, digest, removals, .. } = desired;
        let entry = Entry {
            key,
            source,
            pod,
            digest,
            removals,
            worker,
            is_withdrawn: false,
            rejected,
            waiting: granted.map(|granted| Waiting { granted, since: Instant::now(), answer: Answer::Open }),
            again: None,
            is_preempted: false,
        };
        self.pods.insert(uid.clone(), entry);
    }

    /// Stops a pod that nobody wants: one that was found in the runtime, or of which something is left on the disk.
    fn retire(&mut self, uid: &PodUid) {
        let found =
            self.found.remove(uid).unwrap_or_else(|| FoundPod { listed: ListedPod::default(), view: View::default() });
        if !found.is_there() {
            tracing::info!(%uid, "removing what is left of a pod that is gone");
        } else {
            tracing::info!(pod = ?found.key(), %uid, "stopping a pod that no source wants");
            self.around.hands.metrics.pods.orphaned.add_one();
        }
        let pod = Arc::new(found.skeleton(uid));
        let key = found.key().cloned().unwrap_or_else(|| PodKey::new("", uid.as_str()));
        let record = PodRecord::orphan(pod.clone(), &found.view.observed());
        let worker = self.employ(record, Some(found), None);
        let (source, digest) = (Source::Runtime, String::new());
        let entry = Entry {
            key,
            source,
            pod,
            digest,
            removals: 0,
            worker,
            is_withdrawn: true,
            rejected: None,
            waiting: None,
            again: None,
            is_preempted: false,
        };
        self.pods.insert(uid.clone(), entry);
    }

    /// Gives a pod its worker and its place in the queue of its name: it waits if it is not the first. kubelet 1.36: only
    /// static pods wait, and only for static ones, so that who was deleted by force and hangs holds up no other.
    fn employ(&mut self, mut record: PodRecord, found: Option<FoundPod>, order: Option<Order>) -> WorkerHandle {
        let (uid, key) = (record.uid().clone(), record.key().clone());
        let is_there = found.as_ref().is_some_and(FoundPod::is_there);
        let is_of_api = match record.source() {
            Source::File | Source::Http => false,
            Source::Api => true,
            Source::Runtime => found.as_ref().is_some_and(|f| f.is_of(Source::Api)),
        };
        let mut is_behind = !is_there && self.room.contains_key(&uid);
        if !is_of_api {
            is_behind |= !is_there && self.is_found(&key);
            let queue = self.names.entry(key).or_default();
            if is_there {
                queue.push_front(uid);
            } else {
                is_behind |= !queue.is_empty();
                queue.push_back(uid);
            }
        }
        if is_behind {
            record.absorb(Fact::Behind(true), self.around.clock.now());
        }
        let (view, rows) = found.map(|f| (f.view, f.listed.rows)).unwrap_or_default();
        if let Some(order) = order {
            record.absorb(Fact::Order(order), self.around.clock.now());
        }
        worker::start(record, view, rows, self.around.clone())
    }

    /// The pods that use something of the node.
    fn active(&self) -> Vec<Arc<v1::Pod>> {
        self.active_but(None)
    }

    /// The same without one of them.
    fn active_but(&self, but: Option<&PodUid>) -> Vec<Arc<v1::Pod>> {
        let has_ended = |uid: &PodUid, e: &Entry| is_ended(&e.pod) || self.around.picture.has_ended(uid);
        let holds = |uid: &PodUid, e: &Entry| e.holds_resources() && !has_ended(uid, e);
        let holding = self.pods.iter().filter(|(uid, e)| Some(*uid) != but && holds(uid, e));
        holding.map(|(_, e)| e.granted().clone()).collect()
    }

    /// Once all sources have spoken, what nobody claimed is stopped, and what is left of dead pods removed.
    fn retire_unclaimed(&mut self) {
        if self.has_spoken.values().any(|spoken| !spoken) {
            return;
        }
        for uid in self.found.keys().cloned().collect::<Vec<_>>() {
            self.retire(&uid);
        }
        for uid in std::mem::take(&mut self.leftovers) {
            if !self.pods.contains_key(&uid) {
                self.retire(&uid);
            }
        }
        for uid in self.around.hands.claims.pods() {
            if !self.pods.contains_key(&uid) && !self.looked_at.contains_key(&uid) {
                self.around.hands.claims.abandon(&uid, &self.around.life);
            }
        }
    }

    /// A worker ended: whoever waits for its name goes on.
    async fn pod_gone(&mut self, uid: &PodUid) {
        let Some(entry) = self.pods.remove(uid) else { return };
        self.room.remove(uid);
        self.leave_queue(&entry.key, uid);
        self.around.hands.allocation.give_back(uid).await;
        self.around.hands.claims.abandon(uid, &self.around.life);
        self.ledger.remove(uid);
        if let Some(Again { source, desired, .. }) = &entry.again {
            self.ledger.put(*source, &desired.key(), &desired.digest, uid);
        }
        self.save_ledger().await;
        if let Some(Again { source, desired, before }) = entry.again {
            let is_static = if source.is_static() { "true" } else { "" };
            self.around.hands.metrics.pods.restarted.of(&[is_static]).add_one();
            self.start(source, uid, desired, before.as_deref()).await;
        } else if entry.source == Source::Api && !entry.is_withdrawn {
            self.done.insert(uid.clone());
        }
        self.call_first(&entry.key).await;
        self.decide_resizes("pods_removed").await;
    }

    fn leave_queue(&mut self, key: &PodKey, uid: &PodUid) {
        if let Some(queue) = self.names.get_mut(key) {
            queue.retain(|u| u != uid);
            if queue.is_empty() {
                self.names.remove(key);
            }
        }
    }

    /// Lets the first in the queue of a name go on, unless a pod of that name was found that nobody has claimed yet.
    async fn call_first(&self, key: &PodKey) {
        let first = self.names.get(key).and_then(|q| q.front()).filter(|uid| !self.room.contains_key(*uid));
        let first = first.and_then(|u| self.pods.get(u));
        if let Some(first) = first
            && !self.is_found(key)
        {
            first.worker.send(Note::Fact(Fact::Behind(false))).await;
        }
    }

    /// Whether a static pod of that name is in the runtime that nobody has claimed yet.
    fn is_found(&self, key: &PodKey) -> bool {
        let mut all = self.found.values().map(|f| &f.listed).chain(self.looked_at.values());
        all.any(|listed| listed.key.as_ref() == Some(key) && !listed.is_of(Source::Api))
    }

    /// A worker panicked: another one begins with a look at what is there.
    fn worker_broke(&mut self, uid: &PodUid) {
        if let Some(entry) = self.pods.get(uid) {
            self.inquiry.reexamine(uid.clone(), entry.key.clone());
        }
    }

    /// What is there of the pod of a broken worker was looked at: another worker goes on from there.
    fn replace_worker(&mut self, uid: &PodUid, found: FoundPod) {
        let Some(mut entry) = self.pods.remove(uid) else { return };
        self.leave_queue(&entry.key, uid);
        let mut record = if entry.source == Source::Runtime {
            PodRecord::orphan(entry.pod.clone(), &found.view.observed())
        } else {
            PodRecord::new(entry.source, entry.pod.clone())
        };
        if entry.is_withdrawn {
            record.absorb(Fact::Withdrawn, self.around.clock.now());
        }
        if self.is_shutting_down() {
            record.absorb(Fact::Order(Order::ShutDown { grace_secs: None }), self.around.clock.now());
        }
        entry.worker = self.employ(record, Some(found), entry.rejected.clone());
        self.pods.insert(uid.clone(), entry);
    }

    /// Gives each worker its rows of a relist; pods that nobody knows are looked at.
    async fn relisted(&mut self, mut relist: Relist) {
        let listed = &relist.pods;
        let vanished: Vec<PodUid> = self.found.keys().filter(|uid| !listed.contains_key(*uid)).cloned().collect();
        let vanished: Vec<FoundPod> = vanished.iter().filter_map(|uid| self.found.remove(uid)).collect();
        for (uid, entry) in &self.pods {
            entry.worker.send(Note::Listed(relist.take(uid))).await;
        }
        for (uid, pod) in relist.pods {
            if !self.found.contains_key(&uid) && !self.looked_at.contains_key(&uid) {
                self.looked_at.insert(uid.clone(), pod.clone());
                self.inquiry.look(uid, pod);
            }
        }
        // A found pod that vanished may have been what a queue waited for.
        for key in vanished.iter().filter_map(FoundPod::key) {
            self.call_first(key).await;
        }
    }

    /// A pod that nobody knew was looked at. It may be somebody's by now.
    async fn found_out(&mut self, uid: PodUid, found: FoundPod) {
        if self.looked_at.remove(&uid).is_none() {
            return;
        }
        if found.is_complete() && found.is_there() {
            self.found.insert(uid, found);
            self.retire_unclaimed();
        } else if let Some(key) = found.key() {
            self.call_first(key).await;
        }
    }

    async fn changed(&mut self, uid: &PodUid, ask: Ask) {
        if let Some(entry) = self.pods.get(uid) {
            entry.worker.send(Note::Changed(ask)).await;
        }
    }

    /// Gives the burstable level the shares that its pods ask for.
    async fn weigh_burstable(&mut self) {
        if self.around.hands.cgroups.is_none() {
            return;
        }
        let node = self.around.node.borrow().clone();
        let active = self.active();
        let shares = resources::cgroup::burstable_shares(
            active.iter().map(AsRef::as_ref),
            node.settings.gates.pod_level_resources,
        );
        if self.burstable_shares == Some(shares) {
            return;
        }
        let hands = self.around.hands.clone();
        match rubelet_host::task::blocking(move || hands.set_burstable_shares(shares)).await {
            Ok(Ok(())) => self.burstable_shares = Some(shares),
            Ok(Err(e)) => tracing::warn!(err = %e, "giving the burstable pods their CPU shares failed, trying again"),
            Err(e) => tracing::warn!(err = %e, "giving the burstable pods their CPU shares broke"),
        }
    }
}

/// Whether the pod came with an end.
fn is_ended(pod: &v1::Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"))
}
