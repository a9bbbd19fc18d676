//! Following the node's own Node object: what it says decides about pods.

use std::sync::Arc;

use rubelet_api::v1;
use rubelet_apiserver::{Change, Client, Path, Selector};
use rubelet_core::node::addresses::host_ips;
use rubelet_core::node::object::{Presence, seen};
use rubelet_core::node::{NodeFacts, Registered};
use tokio::sync::watch;

use super::{Known, take};

/// Follows it for ever.
pub(super) async fn run(
    client: Client,
    presence: Presence,
    known: watch::Sender<Known>,
    facts: watch::Sender<Arc<NodeFacts>>,
) {
    let mut changes = client.list_watch::<v1::Node>(Path::all::<v1::Node>(), Selector::name(&presence.name));
    let mut current = known.subscribe();
    loop {
        tokio::select! {
            change = changes.next() => {
                let Some(change) = change else { return };
                follow(change, &known);
            }
            changed = current.changed() => {
                if changed.is_err() {
                    return;
                }
                tell(&current.borrow_and_update(), &presence, &facts);
            }
        }
    }
}

fn follow(change: Change<v1::Node>, known: &watch::Sender<Known>) {
    match change {
        Change::Replaced(mut all, _) => match all.pop() {
            Some(node) => take(known, node),
            None => drop(known.send_replace(Known { is_seen: true, node: None })),
        },
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
