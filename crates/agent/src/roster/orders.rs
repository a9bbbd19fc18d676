//! What the node's level asks of the roster.

use rubelet_api::ids::PodUid;
use rubelet_core::pod::{Fact, Order};

use super::{Known, Roster};
use crate::worker::Note;

impl Roster {
    /// Every pod stops within its own grace; what it has on the disk stays for the next start.
    pub(super) async fn shut_down(&mut self) {
        self.around.is_shutting_down.send_replace(true);
        for entry in self.pods.values() {
            entry.worker.send(Note::Fact(Fact::Order(Order::ShutDown { grace_secs: None }))).await;
        }
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        *self.around.is_shutting_down.borrow()
    }

    /// Hands an order to the pod's worker; a pod that is gone needs none.
    pub(super) async fn order(&self, uid: &PodUid, order: Order) {
        if let Some(entry) = self.pods.get(uid) {
            entry.worker.send(Note::Fact(Fact::Order(order))).await;
        }
    }

    /// The pods that there are, as far as it is known.
    pub(super) fn known(&self) -> Known {
        let is_all =
            self.has_spoken.values().all(|spoken| *spoken) && self.looked_at.is_empty() && self.leftovers.is_empty();
        let uids = self.pods.keys().chain(self.found.keys()).chain(self.looked_at.keys()).cloned().collect();
        Known { uids, is_all }
    }
}
