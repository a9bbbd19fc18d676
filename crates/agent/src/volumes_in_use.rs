//! Volumes that the cluster must not detach from the node: `status.volumesInUse` of the Node.

use std::collections::BTreeSet;

use rubelet_volumes::csi::Drivers;
use tokio::sync::watch;

use crate::references::References;

/// A volume is in use from the moment that a pod of this node wants it until it is taken down. Clones hear the same.
#[derive(Clone, Debug)]
pub struct VolumesInUse {
    /// What pods want.
    wanted: watch::Receiver<BTreeSet<String>>,
    /// What is up, or on its way.
    held: watch::Receiver<BTreeSet<String>>,
}

impl VolumesInUse {
    pub(crate) fn new(references: &References, drivers: &Drivers) -> Self {
        Self { wanted: references.wanted_volumes(), held: drivers.held() }
    }

    /// As the Node's status has them: by the cluster's names (`kubernetes.io/csi/<driver>^<handle>`), sorted.
    pub fn now(&mut self) -> Vec<String> {
        let mut all = self.wanted.borrow_and_update().clone();
        all.extend(self.held.borrow_and_update().iter().cloned());
        all.into_iter().collect()
    }

    /// Waits until it may be another list than the last one. For ever when the agent has ended.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = changed(&mut self.wanted) => {}
            () = changed(&mut self.held) => {}
        }
    }
}

async fn changed(side: &mut watch::Receiver<BTreeSet<String>>) {
    if side.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_pods_want_and_what_is_up_is_in_use() {
        let (wanted_tx, wanted) = watch::channel(BTreeSet::from(["b".to_owned()]));
        let (held_tx, held) = watch::channel(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let mut in_use = VolumesInUse { wanted, held };
        assert_eq!(in_use.now(), ["a", "b"]);
        assert!(tokio::time::timeout(Duration::from_secs(1), in_use.changed()).await.is_err(), "nothing changed");
        wanted_tx.send_replace(BTreeSet::from(["c".to_owned()]));
        in_use.changed().await;
        assert_eq!(in_use.now(), ["a", "b", "c"]);
        held_tx.send_replace(BTreeSet::new());
        in_use.changed().await;
        assert_eq!(in_use.now(), ["c"]);
        drop(held_tx);
        assert!(tokio::time::timeout(Duration::from_secs(1), in_use.changed()).await.is_err(), "no end is no change");
    }
}
