//! Following the node's own Node object: what it says decides about pods.

use std::sync::Arc;

use rubelet_api::v1;
use rubelet_apiserver::{Change, Client, Path, Selector};
use rubelet_core::node::addresses::host_ips;
use rubelet_core::node::object::{Presence, seen};
use rubelet_core::node::{NodeFacts, Registered};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{GLANCE, Known, take};

/// What the task stands on.
pub(super) struct Watching {
    pub(super) client: Client,
    pub(super) presence: Presence,
    pub(super) known: watch::Sender<Known>,
    pub(super) facts: watch::Sender<Arc<NodeFacts>>,
}

impl Watching {
    /// Follows it for ever, and reads it for those who ask.
    pub(super) async fn run(self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let selector = Selector::name(&self.presence.name);
        let mut changes = self.client.list_watch::<v1::Node>(Path::all::<v1::Node>(), selector);
        let mut current = self.known.subscribe();
        loop {
            tokio::select! {
                change = changes.next() => {
                    let Some(change) = change else { return };
                    follow(change, &self.known);
                }
                changed = current.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tell(&current.borrow_and_update(), &self.presence, &self.facts);
                }
                Some(asker) = asked.recv() => {
                    self.read().await;
                    tell(&current.borrow_and_update(), &self.presence, &self.facts);
                    if asker.send(()).is_err() {
                        tracing::debug!("who asked for the Node object has lost patience");
                    }
                }
            }
        }
    }

    async fn read(&self) {
        let path = Path::to_cluster::<v1::Node>(&self.presence.name);
        match timeout(GLANCE, self.client.get::<v1::Node>(&path)).await {
            Ok(Ok(node)) => take(&self.known, node),
            Ok(Err(error)) => tracing::debug!(err = %error, "reading the Node object once more failed"),
            Err(_) => tracing::debug!("the API server does not show the Node object in time"),
        }
    }
}

fn follow(change: Change<v1::Node>, known: &watch::Sender<Known>) {
    match change {
        // Whatever its version: a database that was put back counts from where it was.
        Change::Replaced(mut all, _) => {
            known.send_replace(Known { is_seen: true, node: all.pop().map(Arc::new) });
        }
        Change::Upserted(node) => take(known, node),
        Change::Removed(_) => {
            tracing::warn!("the Node object was deleted; it is made anew when the agent starts again");
            known.send_replace(Known { is_seen: true, node: None });
        }
        Change::Interrupted(error) => tracing::debug!(err = %error, "watching the Node object is interrupted"),
    }
}

/// Tells deciders, if it is news to them.
fn tell(known: &Known, presence: &Presence, facts: &watch::Sender<Arc<NodeFacts>>) {
    if !known.is_seen {
        return;
    }
    let registered: Registered = seen(known.node.as_deref(), presence);
    let ips = known.node.as_deref().map(host_ips).filter(|ips| !ips.is_empty());
    facts.send_if_modified(|facts| {
        let ips = ips.unwrap_or_else(|| facts.ips.clone());
        if facts.registered == registered && facts.ips == ips {
            return false;
        }
        *facts = Arc::new(NodeFacts { registered, ips, ..(**facts).clone() });
        true
    });
}
