//! Registering the node and writing its status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::backoff::{Backoff, Chance, Growth};
use rubelet_apiserver::{Client, Error, nodes};
use rubelet_core::evict::Pressures;
use rubelet_core::node::NodeFacts;
use rubelet_core::node::conditions::is_ready;
use rubelet_core::node::object::{
    ImageSight, NodeEvent, Refreshed, Sight, SystemFacts, initial, is_unschedulable, refreshed, schedulable_event,
};
use rubelet_core::node::patch::status_patch;
use rubelet_core::node::reconcile::reconciled;
use rubelet_core::node::report::{REGISTER_FIRST, REGISTER_MOST, Reporting, TRIES, has_changed};
use rubelet_proto::cri;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::sight::{self, Addresses};
use super::{Known, NodeSettings, take};
use crate::clock::Clock;
use crate::hands::Hands;
use crate::metrics::NodeStarting;

/// kubelet 1.36: how old the list of images may be.
const IMAGES_PERIOD: Duration = Duration::from_secs(30);
const REGISTER_GROWTH: Growth = Growth { first: REGISTER_FIRST, most: REGISTER_MOST, jitter: 0.0 };
/// How long the first report waits for the CSINode.
const STORAGE_PATIENCE: Duration = Duration::from_secs(2);

/// What the status is made of, and changes.
pub(super) struct Inputs {
    pub(super) facts: watch::Receiver<Arc<NodeFacts>>,
    pub(super) pressures: watch::Receiver<Pressures>,
    pub(super) is_shutting_down: watch::Receiver<bool>,
    pub(super) storage_problem: watch::Receiver<Option<String>>,
    pub(super) attachable: Option<watch::Receiver<BTreeSet<String>>>,
}

impl Inputs {
    /// Waits until one of them changes; `false`: the agent ends.
    async fn changed(&mut self) -> bool {
        let Self { facts, pressures, is_shutting_down, storage_problem, attachable } = self;
        let volumes = async {
            match attachable {
                Some(attachable) => attachable.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = facts.changed() => changed.is_ok(),
            changed = pressures.changed() => changed.is_ok(),
            changed = is_shutting_down.changed() => changed.is_ok(),
            is_living = volumes => is_living,
            // The sender ends when it has nothing more to say.
            Ok(()) = storage_problem.changed() => true,
        }
    }
}

/// Says what the node is.
pub(super) struct Reporter {
    settings: NodeSettings,
    /// For signs of life.
    client: Client,
    hands: Arc<Hands>,
    inputs: Inputs,
    known: watch::Sender<Known>,
    clock: Clock,
    reporting: Reporting,
    chance: Chance,
    system: SystemFacts,
    addresses: Addresses,
    images: Vec<ImageSight>,
    images_at: Option<Instant>,
    /// What was told already of a status that could not be written yet.
    told: Vec<NodeEvent>,
    /// Told last about what the node can't say.
    problem: Option<String>,
    is_unschedulable: bool,
    pod_cidr: String,
    starting: NodeStarting,
}

impl Reporter {
    pub(super) fn new(
        settings: NodeSettings,
        client: Client,
        hands: Arc<Hands>,
        inputs: Inputs,
        known: watch::Sender<Known>,
        clock: Clock,
    ) -> Self {
        let reporting = Reporting::new(settings.update_every, settings.report_every);
        let chance = Chance::new(settings.seed ^ 0x4e0d);
        Self {
            settings,
            client,
            hands,
            inputs,
            known,
            clock,
            reporting,
            chance,
            system: SystemFacts::default(),
            addresses: Addresses::default(),
            images: Vec::new(),
            images_at: None,
            told: Vec::new(),
            problem: None,
            is_unschedulable: false,
            pod_cidr: String::new(),
            starting: NodeStarting::default(),
        }
    }

    /// Registers, and reports for ever.
    pub(super) async fn run(mut self) {
        // A panic there leaves the machine without a name, which is said.
        self.system = rubelet_host::task::blocking(sight::system).await.unwrap_or_default();
        self.look().await;
        if self.settings.registers {
            self.register().await;
        }
        self.wait_for_storage().await;
        let mut seen = self.known.subscribe();
        loop {
            self.report().await;
            let next = Instant::now() + self.reporting.next_look(self.chance.share());
            tokio::select! {
                () = sleep_until(next) => self.look().await,
                is_living = self.inputs.changed() => if !is_living { return },
                changed = seen.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The first report waits a little for the CSINode: a node that is back is not told unready because that answer is under way.
    async fn wait_for_storage(&mut self) {
        let is_there = self.inputs.storage_problem.wait_for(Option::is_none);
        // Without it by then the report says so.
        drop(tokio::time::timeout(STORAGE_PATIENCE, is_there).await);
    }

    /// Looks at what nobody tells of.
    async fn look(&mut self) {
        let presence = &self.settings.presence;
        self.addresses.look(&presence.addresses, &presence.name).await;
        if self.images_at.is_some_and(|at| at.elapsed() < IMAGES_PERIOD) {
            return;
        }
        match sight::images(self.hands.runtime.as_ref()).await {
            Ok(images) => (self.images, self.images_at) = (images, Some(Instant::now())),
            Err(e) => tracing::debug!(err = %e, "listing images for the node's status failed"),
        }
    }

    /// The object as it should be: `known` brought up to date, or the first.
    fn wanted(&mut self, known: Option<&v1::Node>) -> Refreshed {
        let facts = self.inputs.facts.borrow_and_update().clone();
        let pressures = *self.inputs.pressures.borrow_and_update();
        let is_shutting_down = *self.inputs.is_shutting_down.borrow_and_update();
        let storage = self.inputs.storage_problem.borrow_and_update().clone();
        let volumes = self.volumes_in_use();
        let sight = Sight {
            facts: &facts,
            system: &self.system,
            addresses: self.addresses.seen(),
            images: &self.images,
            pressures,
            is_shutting_down,
            storage_problem: storage.as_deref(),
            volumes_in_use: volumes.as_deref(),
        };
        let (presence, now) = (&self.settings.presence, self.clock.now().wall);
        let made = match known {
            Some(known) => refreshed(presence, &sight, known, now),
            None => initial(presence, &sight, now),
        };
        self.tell(&made);
        made
    }

    /// Attachable volumes that pods need, and those that are still mounted. kubelet 1.36: none that is in use is taken away from
    /// the node.
    fn volumes_in_use(&mut self) -> Option<Vec<String>> {
        let mut all = self.inputs.attachable.as_mut()?.borrow_and_update().clone();
        all.extend(self.hands.drivers.held().borrow().iter().cloned());
        Some(all.into_iter().collect())
    }

    /// Tells of each thing once, also if it takes several attempts to write it.
    fn tell(&mut self, made: &Refreshed) {
        let name = &self.settings.presence.name;
        for event in made.events.iter().filter(|event| !self.told.contains(event)) {
            self.hands.events.tell_of_node(name, event.type_, event.reason, &event.message);
        }
        self.told.clone_from(&made.events);
        if self.problem != made.problem {
            if let Some(problem) = &made.problem {
                tracing::error!(node = name, err = problem, "Failed to set some node status fields");
            }
            self.problem.clone_from(&made.problem);
        }
    }

    async fn register(&mut self) {
        let mut backoff = Backoff::new(REGISTER_GROWTH, self.settings.seed);
        let mut said = String::new();
        let name = self.settings.presence.name.clone();
        tracing::info!(node = name, "Attempting to register node");
        loop {
            self.starting.attempts();
            let error = match self.try_to_register().await {
                Ok(node) => {
                    take(&self.known, node);
                    tracing::info!(node = name, "Successfully registered node");
                    return;
                }
                Err(error) => rubelet_host::chain(&error),
            };
            if said != error {
                tracing::error!(node = name, err = error, "Unable to register node with API server, trying again");
                said = error;
            }
            sleep(backoff.fail()).await;
            self.look().await;
        }
    }

    async fn try_to_register(&mut self) -> Result<v1::Node, Error> {
        let wanted = self.wanted(None).node;
        let client = self.settings.client.clone();
        let known = self.known.borrow().node.clone();
        if let Some(known) = known {
            return self.reconcile(&wanted, (*known).clone()).await;
        }
        match nodes::create(&client, &wanted).await {
            Ok(node) => {
                self.starting.is_made(&self.hands.metrics.node);
                self.reporting.wrote(self.clock.now().mono, true, self.chance.share());
                Ok(node)
            }
            // kubelet 1.36: a node that may not create may still be there.
            Err(error) if error.is_already_exists() || error.is_forbidden() && !self.settings.gets_on_exists_only => {
                let name = &self.settings.presence.name;
                let known = match nodes::get(&client, name).await {
                    Ok(known) => known,
                    Err(e) if e.is_not_found() => return Err(error),
                    Err(e) => return Err(e),
                };
                self.reconcile(&wanted, known).await
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the Node object of an earlier life up to date.
    async fn reconcile(&self, wanted: &v1::Node, known: v1::Node) -> Result<v1::Node, Error> {
        let name = &self.settings.presence.name;
        tracing::info!(node = name, "Node was previously registered");
        // Without that nobody knows of resources that others count.
        let remembers = self.hands.devices.remembers();
        match status_patch(&known, &reconciled(wanted, &known, !remembers)) {
            None => Ok(known),
            Some(patch) => nodes::patch_status(&self.settings.client, name, patch).await,
        }
    }

    /// Writes the status if it says something else, or if it is due.
    async fn report(&mut self) {
        let known = self.known.borrow().node.clone();
        let Some(known) = known else { return };
        self.notice(&known).await;
        let mut known: v1::Node = (*known).clone();
        let mut said = String::new();
        for attempt in 0..TRIES {
            let error = match self.try_to_report(&known).await {
                Ok(Some(node)) => return take(&self.known, node),
                Ok(None) => return,
                Err(error) => error,
            };
            let text = rubelet_host::chain(&error);
            if said != text {
                tracing::error!(err = text, "Error updating node status, will retry");
                said = text;
            }
            if attempt > 0 && error.is_unreachable() {
                // The connection may be the one that is dead.
                self.client.redial().await;
            }
            match nodes::get(&self.client, &self.settings.presence.name).await {
                Ok(fresh) => known = fresh,
                Err(error) if error.is_not_found() => return,
                Err(error) => tracing::debug!(err = %error, "reading the Node object anew failed"),
            }
        }
        tracing::error!("Unable to update node status: update node status exceeds retry count");
    }

    /// `None`: there is nothing to write.
    async fn try_to_report(&mut self, known: &v1::Node) -> Result<Option<v1::Node>, Error> {
        let wanted = self.wanted(Some(known)).node;
        let now = self.clock.now().mono;
        let has_changed = has_changed(known, &wanted);
        if !has_changed && !self.reporting.is_due(now) {
            return Ok(None);
        }
        let Some(patch) = status_patch(known, &wanted) else { return Ok(None) };
        let node = nodes::patch_status(&self.client, &self.settings.presence.name, patch).await?;
        self.told.clear();
        self.reporting.wrote(now, has_changed, self.chance.share());
        let ready = is_ready(&node);
        if ready {
            self.starting.is_ready(&self.hands.metrics.node);
        }
        if is_ready(known) != ready {
            tracing::info!(node = self.settings.presence.name, ready, "the node's readiness was written");
        }
        Ok(Some(node))
    }

    /// What the cluster decides about the node.
    async fn notice(&mut self, known: &v1::Node) {
        let is_unschedulable = is_unschedulable(known);
        if self.is_unschedulable != is_unschedulable {
            self.is_unschedulable = is_unschedulable;
            let name = &self.settings.presence.name;
            let event = schedulable_event(name, is_unschedulable);
            self.hands.events.tell_of_node(name, event.type_, event.reason, &event.message);
        }
        let spec = known.spec.as_ref();
        let pod_cidr = spec.and_then(|s| s.pod_cidrs.as_ref()).map(|all| all.join(",")).unwrap_or_default();
        if pod_cidr.is_empty() || pod_cidr == self.pod_cidr {
            return;
        }
        tracing::info!(before = self.pod_cidr, now = pod_cidr, "Updating Pod CIDR");
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.clone() });
        match self.hands.runtime.update_runtime_config(cri::RuntimeConfig { network_config }).await {
            Ok(()) => self.pod_cidr = pod_cidr,
            Err(e) if e.is_unimplemented() => self.pod_cidr = pod_cidr,
            Err(e) => tracing::warn!(err = %e, "telling the runtime the node's pod CIDR failed, trying again"),
        }
    }
}
