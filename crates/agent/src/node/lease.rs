//! Signs of life: the node's lease.

use std::time::Duration;

use rubelet_api::groups::coordination_v1::Lease;
use rubelet_apiserver::backoff::{Backoff, Chance, Growth};
use rubelet_apiserver::{Client, Error, lease};
use rubelet_core::node::lease::{TRIES, renew_after, renewed};
use rubelet_core::now::Wall;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Known, owner};

/// kubelet 1.36: waits until the lease exists.
const GROWTH: Growth = Growth { first: Duration::from_millis(200), most: Duration::from_secs(7), jitter: 0.0 };

/// Renews the lease for ever.
pub(super) struct Renewing {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) duration_secs: i32,
    pub(super) seed: u64,
    pub(super) known: watch::Receiver<Known>,
}

impl Renewing {
    /// Begins as soon as there is a Node that the lease can belong to.
    pub(super) async fn run(mut self) {
        let mut chance = Chance::new(self.seed);
        let mut latest: Option<Lease> = None;
        loop {
            let Some(owner) = owner(&mut self.known).await else { return };
            if latest.as_ref().is_some_and(|lease| !belongs_to(lease, &owner)) {
                latest = None;
            }
            latest = self.renew(latest.take(), &owner).await;
            sleep(renew_after(self.duration_secs, chance.share())).await;
        }
    }

    /// kubelet 1.36: renews what was written last; what became of that is looked at only if it fails.
    async fn renew(&self, latest: Option<Lease>, owner: &str) -> Option<Lease> {
        let mut latest = match latest {
            Some(lease) => lease,
            None => match self.ensure(owner).await {
                Ensured::Made(lease) => return Some(lease),
                Ensured::Found(lease) => lease,
            },
        };
        let mut said = String::new();
        for attempt in 0..TRIES {
            let next = renewed(Some(&latest), &self.node, owner, self.duration_secs, Wall::now());
            let error = match lease::update(&self.client, &self.node, &next).await {
                Ok(written) => return Some(written),
                Err(error) => error,
            };
            self.say(&error, &mut said);
            if error.is_conflict() || error.is_not_found() {
                match self.ensure(owner).await {
                    Ensured::Made(lease) => return Some(lease),
                    Ensured::Found(lease) => latest = lease,
                }
            } else if error.is_unreachable() && attempt > 0 {
                // The connection may be the one that is dead.
                self.client.redial().await;
            }
        }
        // It is looked at anew next time.
        None
    }

    /// Reads the lease, or makes it; tries until it works or the Node is gone.
    async fn ensure(&self, owner: &str) -> Ensured {
        let mut backoff = Backoff::new(GROWTH, self.seed);
        let mut said = String::new();
        loop {
            let error = match lease::get(&self.client, &self.node).await {
                Ok(Some(lease)) => return Ensured::Found(lease),
                Ok(None) => {
                    let new = renewed(None, &self.node, owner, self.duration_secs, Wall::now());
                    match lease::create(&self.client, &new).await {
                        Ok(lease) => return Ensured::Made(lease),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.say(&error, &mut said);
            sleep(backoff.fail()).await;
        }
    }

    fn say(&self, error: &Error, said: &mut String) {
        let text = rubelet_host::chain(error);
        if *said != text {
            tracing::warn!(node = self.node, err = text, "renewing the node's lease failed, trying again");
            *said = text;
        }
    }
}

enum Ensured {
    Made(Lease),
    Found(Lease),
}

/// A Node that was made anew has a lease of its own.
fn belongs_to(lease: &Lease, owner: &str) -> bool {
    let owners = lease.metadata.owner_references.as_deref().unwrap_or_default();
    owners.is_empty() || owners.iter().any(|one| one.uid == owner)
}
