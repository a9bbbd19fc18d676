//! Writing down who runs under which UID.

use rubelet_api::ids::PodUid;
use rubelet_core::pod::Source;

use rubelet_host::paths::PathError;

use super::Roster;
use super::adopt::{self, Change};
use crate::sources::DesiredPod;

impl Roster {
    /// Writes down who runs under which UID, before anything is started.
    pub(super) async fn remember(&mut self, source: Source, wanted: &[(PodUid, DesiredPod)]) {
        if !source.is_static() {
            return;
        }
        let rows = wanted.iter().map(|(uid, desired)| (desired.key(), self.digest_of(source, uid, desired), uid));
        let rows: Vec<_> = rows.collect();
        let rows = rows.iter().map(|(key, digest, uid)| (key.clone(), digest.as_str(), *uid));
        self.ledger.replace(source, rows, |uid| self.pods.contains_key(uid) || self.found.contains_key(uid));
        self.save_ledger().await;
    }

    /// The digest of the manifest that runs under this UID: not yet the new one's while the old pod must go first.
    pub(super) fn digest_of(&self, source: Source, uid: &PodUid, desired: &DesiredPod) -> String {
        let old = match self.pods.get(uid) {
            Some(e) if e.is_withdrawn || adopt::change(source, &e.pod, &desired.pod) == Change::Other => {
                Some(e.digest.clone())
            }
            Some(_) => None,
            None if self.was_other(source, uid, desired) => Some(String::new()),
            None => None,
        };
        old.unwrap_or_else(|| desired.digest.clone())
    }

    /// Writes the ledger. The disk has it later, and nobody waits for that.
    pub(super) async fn save_ledger(&mut self) {
        if !self.ledger.is_changed() {
            return;
        }
        let mut ledger = self.ledger.clone();
        let saved = rubelet_host::task::blocking(move || {
            let saved = ledger.save();
            (ledger, saved)
        });
        match saved.await {
            Ok((ledger, saved)) => {
                self.ledger = ledger;
                match saved {
                    Ok(None) => {}
                    // When the agent ends before it is done, the kernel writes it out all the same.
                    Ok(Some(written)) => {
                        drop(rubelet_host::task::blocking(move || written.sync().unwrap_or_else(complain)))
                    }
                    Err(e) => complain(e),
                }
            }
            Err(e) => tracing::error!(err = %e, "writing the ledger broke"),
        }
    }
}

fn complain(e: PathError) {
    let err = rubelet_host::chain(&e);
    tracing::warn!(err, "writing the ledger failed; after a restart pods are compared with the runtime instead");
}
