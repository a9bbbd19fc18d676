//! Resource claims (DRA): drivers that have registered, what they have prepared for which pods, and the file in which that outlives
//! the agent.
//!
//! Rules are in `rubelet_core::resources::claims`; here is who is asked, and in which order.

mod checkpoint;
mod drivers;
mod plugin;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_apiserver::Client;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::needs::ObjectName;
use rubelet_core::resources::claims::{self as rules, Batches, Claims, Device, Health, Wish};
use rubelet_host::{chain, paths};
use rubelet_proto::dra;
use rubelet_proto::podresources::DynamicResource;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, mpsc, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::devices::tell_pods;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::roster::RosterNote;
use drivers::Drivers;
use plugin::{Plugin, words};

/// In the root directory.
const CHECKPOINT: &str = "dra_manager_state";
/// kubelet 1.36: how often claims of pods that nobody knows are tried to be given back.
const ABANDONED_AGAIN: Duration = Duration::from_secs(60);

/// All resource claims that pods of the node use, and the drivers that have prepared them. Shared.
pub struct ResourceClaims {
    settings: Settings,
    client: Option<Client>,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Held while one claim is prepared or taken back.
    turns: Mutex<BTreeMap<ObjectName, Arc<Turn<()>>>>,
    /// Held while the file is written.
    file: Turn<()>,
    /// Pods that are to be told something: how their devices are, or that a driver came.
    changed: watch::Sender<BTreeSet<PodUid>>,
}

/// Where the node is, and what its gates say.
struct Settings {
    root_dir: PathBuf,
    /// Its name.
    node: String,
    /// Extended resources may be had by claims.
    extended: bool,
    watches_health: bool,
    tells_messages: bool,
}

impl Settings {
    fn of(node: &NodeFacts) -> Self {
        let gates = &node.settings.gates;
        Self {
            root_dir: node.root_dir.clone(),
            node: node.name.clone(),
            extended: gates.dra_extended_resource,
            watches_health: gates.resource_health_status,
            tells_messages: gates.resource_health_status_message,
        }
    }
}

#[derive(Default)]
struct State {
    claims: Claims,
    health: Health,
    drivers: Drivers,
    /// Pods that something failed for: they hear of it when a driver comes.
    waiting: BTreeSet<PodUid>,
    /// Pods that nobody knows any more; somebody gives back what they used.
    abandoned: BTreeSet<PodUid>,
}

impl ResourceClaims {
    /// Reads what an earlier life wrote down.
    fn open(settings: Settings, client: Option<Client>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let claims = match std::fs::read_to_string(settings.root_dir.join(CHECKPOINT)) {
            Ok(text) => checkpoint::parse(&text).unwrap_or_else(|err| {
                let file = CHECKPOINT;
                tracing::error!(err, file, "reading which resource claims pods use failed; what drivers prepared for them before is not taken back");
                Claims::default()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Claims::default(),
            Err(e) => {
                tracing::error!(err = %e, file = CHECKPOINT, "reading which resource claims pods use failed; what drivers prepared for them before is not taken back");
                Claims::default()
            }
        };
        Self {
            settings,
            client,
            clock,
            metrics,
            state: Mutex::new(State { claims, ..State::default() }),
            turns: Mutex::default(),
            file: Turn::default(),
            changed: watch::Sender::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the devices of a pod's claims are, by container.
    pub(crate) fn health(&self, pod: &v1::Pod) -> BTreeMap<String, Vec<v1::ResourceStatus>> {
        if !self.settings.watches_health {
            return BTreeMap::new();
        }
        let state = self.state();
        state.claims.health(pod, &state.health, self.settings.tells_messages)
    }

    /// What monitoring is told of a container.
    pub fn shown(&self, pod: &v1::Pod, container: &v1::Container) -> Vec<DynamicResource> {
        self.state().claims.shown(pod, container, self.settings.extended)
    }

    /// The CDI devices that a container gets.
    ///
    /// # Errors
    /// A claim was not prepared, in upstream's words.
    pub(crate) fn cdi_devices(&self, pod: &v1::Pod, container: &str) -> Result<Vec<String>, String> {
        let Some(container) = rubelet_core::render::containers(pod).find(|c| c.name == container) else {
            return Ok(Vec::new());
        };
        self.state().claims.cdi_devices(pod, container, self.settings.extended)
    }

    /// How many claims are prepared, by driver.
    pub(crate) fn in_use(&self) -> Vec<(String, usize)> {
        self.state().claims.in_use().into_iter().map(|(driver, count)| (driver.to_owned(), count)).collect()
    }

    /// Has drivers prepare what a pod wants, unless they have.
    ///
    /// # Errors
    /// Why it cannot be had, in upstream's words. It may be asked for again.
    pub(crate) async fn prepare(&self, pod: &PodUid, wishes: &[Wish]) -> Result<(), String> {
        let since = Instant::now();
        let done = self.try_prepare(pod, wishes).await;
        self.count("PrepareResources", since, done.is_ok());
        match &done {
            Ok(()) => self.tell([pod.clone()]),
            Err(_) => drop(self.state().waiting.insert(pod.clone())),
        }
        done
    }

    async fn try_prepare(&self, pod: &PodUid, wishes: &[Wish]) -> Result<(), String> {
        let _turns = self.turns(wishes.iter().map(|wish| &wish.claim)).await;
        // kubelet 1.36: nothing is written down of a pod whose driver is not there, so that it can go without it.
        for driver in wishes.iter().flat_map(|wish| &wish.drivers) {
            self.plugin(driver)?;
        }
        let begun = self.state().claims.begin(pod, wishes);
        self.write().await?;
        let batches = begun?;
        for (driver, asked) in &batches {
            let answer = self.plugin(driver)?.prepare(listed(asked), &self.metrics).await;
            let answer = answer.map_err(|status| format!("NodePrepareResources: {}", words(&status)))?;
            let errors = answer.claims.iter().map(|(uid, one)| (uid, one.error.as_str()));
            rules::check_answer("NodePrepareResources", asked, errors)?;
            for (uid, given) in answer.claims {
                if let Some(claim) = asked.get(&uid) {
                    let devices: Vec<Device> = given.devices.into_iter().map(device).collect();
                    tracing::info!(
                        claim = claim.name,
                        namespace = claim.namespace,
                        driver,
                        count = devices.len(),
                        "resource claim is prepared"
                    );
                    self.state().claims.give(claim, driver, devices);
                }
            }
        }
        self.state().claims.prepared(wishes);
        if batches.is_empty() { Ok(()) } else { self.write().await }
    }

    /// A pod is over: drivers take back what only it used.
    ///
    /// # Errors
    /// Why they have not, in upstream's words. It may be asked for again.
    pub(crate) async fn release(&self, pod: &PodUid) -> Result<(), String> {
        let since = Instant::now();
        let done = self.try_release(pod).await;
        self.count("UnprepareResources", since, done.is_ok());
        let mut state = self.state();
        match &done {
            Ok(()) => drop(state.waiting.remove(pod)),
            Err(err) => {
                state.waiting.insert(pod.clone());
                tracing::warn!(%pod, err, "resource claims of a pod that ended are not taken back, trying again");
            }
        }
        done
    }

    async fn try_release(&self, pod: &PodUid) -> Result<(), String> {
        let used = self.state().claims.of(pod);
        if used.is_empty() {
            return Ok(());
        }
        let _turns = self.turns(used.iter()).await;
        let batches: Batches = self.state().claims.leave(pod);
        for (driver, asked) in &batches {
            let answer = self.plugin(driver)?.unprepare(listed(asked), &self.metrics).await;
            let answer = answer.map_err(|status| format!("NodeUnprepareResources: {}", words(&status)))?;
            let errors = answer.claims.iter().map(|(uid, one)| (uid, one.error.as_str()));
            rules::check_answer("NodeUnprepareResources", asked, errors)?;
        }
        self.state().claims.left(pod);
        tracing::info!(%pod, claims = used.len(), "resource claims are given back");
        self.write().await
    }

    /// Pods that use claims.
    pub(crate) fn pods(&self) -> BTreeSet<PodUid> {
        self.state().claims.pods()
    }

    /// Nobody knows this pod any more: what it used is given back, however long that takes.
    pub(crate) fn abandon(self: &Arc<Self>, pod: &PodUid, life: &Life) {
        let is_new = {
            let mut state = self.state();
            !state.claims.of(pod).is_empty() && state.abandoned.insert(pod.clone())
        };
        if is_new {
            let (all, pod) = (self.clone(), pod.clone());
            life.spawn(async move {
                while all.try_release(&pod).await.map_err(|err| all.gave_up(&pod, &err)).is_err() {
                    tokio::time::sleep(ABANDONED_AGAIN).await;
                }
                all.state().abandoned.remove(&pod);
            });
        }
    }

    fn gave_up(&self, pod: &PodUid, err: &str) {
        tracing::warn!(%pod, err, "resource claims of a pod that is gone are not taken back, trying again in a minute");
    }

    fn plugin(&self, driver: &str) -> Result<Plugin, String> {
        if driver.is_empty() {
            return Err("DRA driver name is empty".to_owned());
        }
        self.state().drivers.get(driver).ok_or_else(|| format!("DRA driver {driver} is not registered"))
    }

    /// Waits until nobody else is at these claims.
    async fn turns(&self, claims: impl Iterator<Item = &ObjectName>) -> Vec<OwnedMutexGuard<()>> {
        let turns: BTreeMap<ObjectName, Arc<Turn<()>>> = {
            let mut known = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, turn| Arc::strong_count(turn) > 1);
            claims.map(|claim| (claim.clone(), known.entry(claim.clone()).or_default().clone())).into_map()
        };
        // All take them in the same order.
        let mut held = Vec::with_capacity(turns.len());
        for turn in turns.into_values() {
            held.push(turn.lock_owned().await);
        }
        held
    }

    fn tell(&self, pods: impl IntoIterator<Item = PodUid>) {
        self.changed.send_if_modified(|known| {
            let before = known.len();
            known.extend(pods);
            known.len() != before
        });
    }

    /// kubelet 1.36: pods without claims count as well, with next to no time.
    pub(crate) fn count_without(&self, what: &str, pod: &v1::Pod) {
        if !rules::wishes::has_any(pod) {
            self.metrics.node.claim_operations.of(&["false", what]).observe(0.0);
        }
    }

    fn count(&self, what: &str, since: Instant, is_done: bool) {
        let is_error = if is_done { "false" } else { "true" };
        let took = since.elapsed().as_secs_f64();
        self.metrics.node.claim_operations.of(&[is_error, what]).observe(took);
    }

    /// Writes down who uses what.
    async fn write(&self) -> Result<(), String> {
        let _turn = self.file.lock().await;
        let text = checkpoint::text(&self.state().claims);
        let path = self.settings.root_dir.join(CHECKPOINT);
        let write = move |text: String| paths::write_atomic(&path, text.as_bytes(), 0o600).map_err(|e| chain(&e));
        let written = match text {
            Ok(text) => rubelet_host::task::blocking(move || write(text)).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let Err(err) = written.and_then(|written| written) else { return Ok(()) };
        Err(format!("checkpoint ResourceClaim state: could not save checkpoint {CHECKPOINT}: {err}"))
    }
}

/// The claims of this node as an earlier life left them.
pub(crate) fn open(
    node: &NodeFacts,
    client: Option<Client>,
    clock: Clock,
    metrics: &Arc<Metrics>,
) -> Arc<ResourceClaims> {
    Arc::new(ResourceClaims::open(Settings::of(node), client, clock, metrics.clone()))
}

/// Starts telling pods, and takes slices away that an earlier life left: no driver is there yet.
pub(crate) fn spawn(life: &Life, claims: &Arc<ResourceClaims>, roster: mpsc::Sender<RosterNote>) {
    life.spawn(tell_pods(claims.changed.clone(), roster));
    if let Some(client) = claims.client.clone() {
        life.spawn(slices::wipe(client, claims.settings.node.clone(), None));
    }
}

fn listed(asked: &BTreeMap<String, ObjectName>) -> Vec<dra::Claim> {
    let one = |(uid, claim): (&String, &ObjectName)| {
        let ObjectName { namespace, name } = claim.clone();
        dra::Claim { namespace, uid: uid.clone(), name }
    };
    asked.iter().map(one).collect()
}

fn device(told: dra::Device) -> Device {
    let dra::Device { request_names, pool_name, device_name, cdi_device_ids, share_id } = told;
    Device { pool: pool_name, name: device_name, share: share_id, requests: request_names, cdi: cdi_device_ids }
}
