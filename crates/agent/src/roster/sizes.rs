//! Pods that want other sizes than they have: asked again whenever something may have become free.

use std::cmp::Reverse;
use std::sync::Arc;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_core::admit;
use rubelet_core::pod::step::QosClass;
use rubelet_core::pod::{Fact, ResizeVerdict};
use rubelet_core::resources::qos::qos_class;
use rubelet_core::resources::sum::{Sum, get};

use super::Roster;
use super::entry::{Answer, Waiting};
use crate::worker::Note;

impl Roster {
    /// Decides about every resize that waits. kubelet 1.36: who asks for less goes first, then priority, guaranteed pods, and who waits
    /// longest.
    /// `trigger`: the metrics' word for what may have become free by.
    pub(super) async fn decide_resizes(&mut self, trigger: &str) {
        let mut waiting: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, e)| !e.is_withdrawn)
            .filter_map(|(uid, e)| {
                let Waiting { granted, since, .. } = e.waiting.as_ref()?;
                let priority = e.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
                let is_guaranteed = qos_class(&e.pod) == QosClass::Guaranteed;
                Some((asks_for_more(granted, &e.pod), Reverse(priority), !is_guaranteed, *since, uid.clone()))
            })
            .collect();
        waiting.sort();
        for (.., uid) in waiting {
            self.decide_resize(&uid, trigger).await;
        }
    }

    async fn decide_resize(&mut self, uid: &PodUid, trigger: &str) {
        let node = self.around.node.borrow().clone();
        let others: Vec<Arc<v1::Pod>> = self.active_but(Some(uid));
        let others: Vec<&v1::Pod> = others.iter().map(AsRef::as_ref).collect();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let Some(waiting) = &mut entry.waiting else { return };
        let verdict = admit::resize(&entry.pod, &waiting.granted, &others, &node);
        let counts = &self.around.hands.metrics.pods;
        match &verdict {
            ResizeVerdict::Granted => {
                if waiting.answer == Answer::Deferred {
                    counts.resizes_accepted.of(&[trigger]).add_one();
                }
                entry.waiting = None;
            }
            ResizeVerdict::Deferred { .. } => waiting.answer = Answer::Deferred,
            ResizeVerdict::Infeasible { detail, .. } => {
                if waiting.answer != Answer::Infeasible {
                    counts.resizes_infeasible.of(&[detail]).add_one();
                }
                waiting.answer = Answer::Infeasible;
            }
        }
        entry.worker.send(Note::Fact(Fact::Resize(verdict))).await;
    }
}

fn asks_for_more(granted: &v1::Pod, wanted: &v1::Pod) -> bool {
    let (has, wants) = (Sum::requests(true).of(granted), Sum::requests(true).of(wanted));
    ["cpu", "memory"].into_iter().any(|name| get(&wants, name) > get(&has, name))
}
