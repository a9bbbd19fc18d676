//! The node as the cluster sees it: registered, alive, and what it says of itself.
//!
//! Four tasks: `watching` follows the Node object, `reporting` registers and writes the status, `lease` gives signs of life, `storage`
//! makes the CSINode. None of them holds up pods.

mod lease;
mod reporting;
mod sight;
mod storage;
mod watching;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rubelet_apiserver::Client;
use rubelet_core::evict::Pressures;
use rubelet_core::node::NodeFacts;
use rubelet_core::node::object::Presence;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::hands::Hands;
use crate::life::Life;

/// How the node registers itself and gives signs of life.
#[derive(Clone)]
pub struct NodeSettings {
    pub client: Client,
    pub presence: Presence,
    /// `registerNode`.
    pub registers: bool,
    /// Gate `KubeletRegistrationGetOnExistsOnly`: a node that may not create its object does not look for it.
    pub gets_on_exists_only: bool,
    /// `nodeStatusUpdateFrequency`.
    pub update_every: Duration,
    /// `nodeStatusReportFrequency`.
    pub report_every: Duration,
    /// `nodeLeaseDurationSeconds`.
    pub lease_secs: i32,
    /// What waits are spread by; another number on each node.
    pub seed: u64,
}

/// What the tasks stand on.
pub(crate) struct Standing {
    pub(crate) hands: Arc<Hands>,
    pub(crate) facts: watch::Sender<Arc<NodeFacts>>,
    pub(crate) pressures: watch::Receiver<Pressures>,
    pub(crate) is_shutting_down: watch::Receiver<bool>,
    /// Attachable volumes that pods need.
    pub(crate) attachable: Option<watch::Receiver<BTreeSet<String>>>,
    pub(crate) clock: Clock,
}

/// How long a pod may wait for another look at the Node object.
const GLANCE: Duration = Duration::from_secs(1);

/// Has the Node object read once more, for who suspects that it changed.
#[derive(Clone, Debug, Default)]
pub struct Glance(Option<mpsc::Sender<oneshot::Sender<()>>>);

impl Glance {
    /// Returns when deciders know what the API server has now, or when it does not say so in time.
    pub(crate) async fn again(&self) {
        let Some(asked) = &self.0 else { return };
        let look = async {
            let (asker, answer) = oneshot::channel();
            // An error: the agent ends.
            if asked.send(asker).await.is_ok() {
                drop(answer.await);
            }
        };
        if timeout(GLANCE, look).await.is_err() {
            tracing::debug!("the Node object could not be read once more in time");
        }
    }
}

/// The Node object, as far as it is known.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Whether the API server has said whether there is one.
    is_seen: bool,
    node: Option<Arc<rubelet_api::v1::Node>>,
}

impl Known {
    /// UID of the Node, if it is there to stay.
    fn uid(&self) -> Option<&str> {
        let metadata = &self.node.as_ref()?.metadata;
        metadata.uid.as_deref().filter(|_| metadata.deletion_timestamp.is_none())
    }
}

/// UID of the Node, as soon as there is one to stay; `None`: the agent ends.
async fn owner(known: &mut watch::Receiver<Known>) -> Option<String> {
    let known = known.wait_for(|known| known.uid().is_some()).await.ok()?;
    known.uid().map(str::to_owned)
}

/// Starts the tasks.
pub(crate) fn begin(settings: NodeSettings, on: Standing, life: &Life) -> Glance {
    let Standing { hands, facts, pressures, is_shutting_down, attachable, clock } = on;
    let (known, seen) = watch::channel(Known::default());
    let (storage, storage_problem) = watch::channel(Some(storage::UNKNOWN.to_owned()));
    // kubelet 1.36: signs of life wait for no rate, and not longer than the next is due.
    let patience = settings.update_every.min(Duration::from_secs(settings.lease_secs.unsigned_abs().into()));
    let urgent = settings.client.with_limit(None).with_timeout(patience.max(Duration::from_secs(1)));
    let name = settings.presence.name.clone();
    let (glance, asked) = mpsc::channel(1);
    let watching = watching::Watching {
        client: settings.client.clone(),
        presence: settings.presence.clone(),
        known: known.clone(),
        facts: facts.clone(),
    };
    life.spawn(watching.run(asked));
    life.spawn(storage::run(settings.client.clone(), name.clone(), seen.clone(), storage));
    let lease = lease::Renewing {
        client: urgent.clone(),
        node: name,
        duration_secs: settings.lease_secs,
        seed: settings.seed ^ 0x1ea5,
        known: seen,
    };
    life.spawn(lease.run());
    let facts = facts.subscribe();
    let inputs = reporting::Inputs { facts, pressures, is_shutting_down, storage_problem, attachable };
    life.spawn(reporting::Reporter::new(settings, urgent, hands, inputs, known, clock).run());
    Glance(Some(glance))
}

/// Whether `new` is at least as new as `old`. Resource versions of one kind count up.
fn is_newer(new: Option<&str>, old: Option<&str>) -> bool {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    match (number(new), number(old)) {
        (Some(new), Some(old)) => new >= old,
        (Some(_) | None, None) | (None, Some(_)) => true,
    }
}

/// Takes over a Node object unless a newer one is known.
fn take(known: &watch::Sender<Known>, node: rubelet_api::v1::Node) {
    known.send_if_modified(|known| {
        let before = known.node.as_ref().and_then(|n| n.metadata.resource_version.as_deref());
        let is_same = known.node.is_some() && before == node.metadata.resource_version.as_deref();
        if is_same || !is_newer(node.metadata.resource_version.as_deref(), before) {
            return false;
        }
        *known = Known { is_seen: true, node: Some(Arc::new(node)) };
        true
    });
}
