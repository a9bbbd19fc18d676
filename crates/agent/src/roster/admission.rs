//! Who is let in, and who has to end for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_core::admit::{self, Verdict, preempt};
use rubelet_core::evict;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::{EvictOrder, Fact, Order, Source};

use super::Roster;
use crate::worker::Note;

/// What admission says of a pod.
pub(super) enum Admission {
    In,
    /// Once these have ended, because the node lacks something.
    After {
        victims: BTreeSet<PodUid>,
        lacks: String,
    },
    Refused(Order),
}

impl Roster {
    /// kubelet 1.36: a label may be newer than what is known of the Node; it is read once more. Pods of the node itself do not wait
    /// for that.
    pub(super) async fn admit(&self, source: Source, pod: &v1::Pod) -> Admission {
        match self.consider(pod).await {
            Admission::Refused(Order::Reject { reason, .. })
                if source == Source::Api && reason == admit::affinity::REASON =>
            {
                self.around.glance.again().await;
                self.consider(pod).await
            }
            admission => admission,
        }
    }

    /// kubelet 1.36: pressure first, a node that goes down last.
    async fn consider(&self, pod: &v1::Pod) -> Admission {
        let node = self.around.node.borrow().clone();
        let refused = |reason, message| Admission::Refused(Order::Reject { reason, message });
        if let Some(Verdict::Rejected { reason, message }) = evict::admit(pod, *self.around.pressures.borrow()) {
            return refused(reason, message);
        }
        let devices = match admit::first_refusal(pod, &node) {
            Some(_) => false,
            None => match self.around.hands.allocation.admit(pod, |uid| self.keeps_devices(uid)).await {
                Ok(has_some) => has_some,
                Err(why) => return refused(why.reason.to_owned(), why.message),
            },
        };
        let node = if devices { Arc::new(with_devices(&node, self.around.hands.devices.used())) } else { node };
        let admission = self.judge(pod, &node);
        if let Admission::Refused(_) = &admission {
            let uid = rubelet_core::render::uid_of(pod);
            self.around.hands.allocation.give_back(&uid).await;
        }
        admission
    }

    fn judge(&self, pod: &v1::Pod, node: &NodeFacts) -> Admission {
        let refused = |reason, message| Admission::Refused(Order::Reject { reason, message });
        let active = self.active();
        let active: Vec<&v1::Pod> = active.iter().map(AsRef::as_ref).collect();
        match admit::decide(pod, &active, node) {
            Verdict::Rejected { reason, message } => refused(reason, message),
            Verdict::Admitted | Verdict::AdmittedAfter { .. } if self.is_shutting_down() => {
                let (reason, message) = ("NodeShutdown", "Pod was rejected as the node is shutting down.");
                refused(reason.to_owned(), message.to_owned())
            }
            Verdict::Admitted => Admission::In,
            Verdict::AdmittedAfter { victims, lacks } => {
                Admission::After { victims: victims.into_iter().collect(), lacks }
            }
        }
    }

    /// Whether something of a pod may still use its devices, as far as it is known.
    fn keeps_devices(&self, uid: &PodUid) -> bool {
        let Some(entry) = self.pods.get(uid) else {
            return self.has_spoken.values().any(|spoken| !spoken)
                || self.found.contains_key(uid)
                || self.looked_at.contains_key(uid);
        };
        entry.rejected.is_none() && !self.around.picture.has_ended(uid)
    }

    /// A worker is told how the devices of its pod are.
    pub(super) async fn tell_devices(&self, uid: &PodUid) {
        if let Some(entry) = self.pods.get(uid) {
            entry.worker.send(Note::Fact(Fact::Devices(self.health(uid, &entry.pod)))).await;
        }
    }

    /// How the devices of a pod are, by container: those of plugins, then those of claims.
    pub(super) fn health(&self, uid: &PodUid, pod: &v1::Pod) -> BTreeMap<String, Vec<v1::ResourceStatus>> {
        let hands = &self.around.hands;
        let mut all = hands.devices.health(uid);
        for (container, mut of) in hands.claims.health(pod) {
            all.entry(container).or_default().append(&mut of);
        }
        all
    }

    /// Ends the pods that another one waits for. They count no more: who comes next may have what is left of theirs.
    pub(super) async fn preempt(&mut self, victims: &BTreeSet<PodUid>, lacks: &str) {
        for uid in victims {
            let Some(entry) = self.pods.get_mut(uid) else { continue };
            tracing::info!(pod = %entry.key, %uid, "preempting a pod to free up resources");
            entry.is_preempted = true;
            self.around.hands.metrics.pods.preemptions.of(&[lacks]).add_one();
            let order = Order::Evict(EvictOrder {
                reason: preempt::REASON.to_owned(),
                message: preempt::MESSAGE.to_owned(),
                disruption: Some(preempt::CONDITION_MESSAGE.to_owned()),
                ..EvictOrder::default()
            });
            entry.worker.send(Note::Fact(Fact::Order(order))).await;
        }
    }

    /// Counts a pod that came, and why it was refused if it was.
    pub(super) fn count_admission(&self, pod: &v1::Pod, rejected: Option<&Order>) {
        let counts = &self.around.hands.metrics.pods;
        if let Some(Order::Reject { reason, .. }) = rejected {
            counts.rejections.of(&[rejection(reason)]).add_one();
        }
        counts.containers.observe(pod.spec.as_ref().map_or(0, |spec| spec.containers.len()) as f64);
    }

    /// Lets those go on whose victims have all ended.
    pub(super) async fn room_made(&mut self) {
        let (pods, picture) = (&self.pods, &self.around.picture);
        for victims in self.room.values_mut() {
            victims.retain(|victim| pods.contains_key(victim) && !picture.has_ended(victim));
        }
        let free: Vec<PodUid> = self.room.extract_if(.., |_, victims| victims.is_empty()).map(|(uid, _)| uid).collect();
        for uid in free {
            match self.pods.get(&uid) {
                Some(entry) if entry.source == Source::Api => entry.worker.send(Note::Fact(Fact::Behind(false))).await,
                Some(entry) => self.call_first(&entry.key.clone()).await,
                None => {}
            }
        }
    }
}

/// kubelet 1.36: what pods have of plugins is allocatable, whatever the Node says meanwhile.
fn with_devices(node: &NodeFacts, used: BTreeMap<String, i64>) -> NodeFacts {
    let mut node = node.clone();
    for (resource, used) in used {
        let known = node.registered.extended.entry(resource).or_insert(0);
        *known = used.max(*known);
    }
    node
}

/// kubelet 1.36: reasons that name a resource of a device are one.
fn rejection(reason: &str) -> &str {
    const NAMED: [&str; 4] = ["OutOfcpu", "OutOfmemory", "OutOfephemeral-storage", "OutOfpods"];
    let is_extended = reason.starts_with("OutOf") && !NAMED.contains(&reason);
    if is_extended { "OutOfExtendedResources" } else { reason }
}
