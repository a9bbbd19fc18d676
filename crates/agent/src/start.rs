//! The composition root: values flow down, no setter, no late binding.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rubelet_core::evict::Pressures;
use rubelet_core::node::{CgroupVersion, NodeFacts};
use rubelet_core::pod::Source;
use rubelet_core::pulled::Policy;
use rubelet_core::render::dns;
use rubelet_cri::{Bounded, Runtime};
use rubelet_volumes::csi::Drivers;
use tokio::sync::{mpsc, watch};

use crate::allocation::{self, Allocation, AllocationSettings};
use crate::care::{self, Care, Standing};
use crate::clock::Clock;
use crate::cluster::{Cluster, PodSettings};
use crate::credentials::Credentials;
use crate::credentials::plugins::Plugins;
use crate::devices::{self, Devices};
use crate::dra::{self, ResourceClaims};
use crate::events::Events;
use crate::hands::Hands;
use crate::housing::{self, Housing};
use crate::ledger::Ledger;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::picture::Picture;
use crate::pulled::{PullRecords, Room};
use crate::pulls::Pulls;
use crate::pulse::Pulse;
use crate::references::{Around, References};
use crate::reporter::Reporter;
use crate::reserve::{self, Reservation};
use crate::roster::{Roster, RosterNote, survey};
use crate::sources::cluster::ClusterSource;
use crate::sources::{FileSource, HttpSource};
use crate::stats::{Stats, StatsSettings};
use crate::users::Users;
use crate::worker::Surroundings;
use crate::{csi, facts, foreign, node, watcher};

/// Everything that the agent is told; nothing else is read from flags, files or the environment.
pub struct Settings {
    /// Properties of the node that do not depend on the runtime; `facts::` completes them.
    pub node: NodeFacts,
    /// Watched directory or file.
    pub manifests: Option<FileSource>,
    /// Polled URL.
    pub url: Option<HttpSource>,
    pub pulls: PullSettings,
    /// The API server; `None` on a node of its own.
    pub cluster: Option<Cluster>,
    /// Users and groups of a pod that has its own (`userNamespaces.idsPerPod`).
    pub ids_per_pod: u32,
    /// `runtimeRequestTimeout`: how long the runtime may take for an answer.
    pub request_timeout: Duration,
    /// `syncFrequency`: twice this is the longest that a loop of the agent may be late, if it is more than 5 min.
    pub sync_frequency: Duration,
    /// What is done for the node as a whole.
    pub care: Care,
    /// Cgroup tree of the node; `None` with `cgroupsPerQOS: false`.
    pub cgroups: Option<rubelet_host::cgroup::Tree>,
    /// Cgroups of others that are held to what is kept for them.
    pub reservations: Vec<Reservation>,
    /// Cgroups of their own for this program and for the rest of the system.
    pub housing: Housing,
    /// Directory of the process, where credentials are looked for too.
    pub working_dir: PathBuf,
    pub home: Option<PathBuf>,
    /// Programs that have credentials of images.
    pub credential_plugins: Arc<Plugins>,
    /// `/var/log/containers` but in tests.
    pub container_logs_dir: PathBuf,
    /// [`DEVICE_PLUGINS_DIR`](crate::devices::DEVICE_PLUGINS_DIR) but in tests.
    pub device_plugins_dir: PathBuf,
    pub stats: StatsSettings,
    /// Who may have CPUs and memory for himself.
    pub allocation: AllocationSettings,
    /// `cpuManagerReconcilePeriod`: when a container that could not be moved to its CPUs is tried again.
    pub cpus_again: Duration,
    /// Where it is counted what the agent does.
    pub metrics: Arc<Metrics>,
}

/// Limits on image pulls, see [`Pulls::new`].
#[derive(Clone, Debug)]
pub struct PullSettings {
    pub at_once: Option<usize>,
    pub per_sec: u32,
    pub burst: u32,
    /// Of which images pods must show that they may have them; `None`: nobody asks.
    pub policy: Option<Policy>,
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("make the agent's directories: {0}")]
    Directories(String),
    #[error("{0}")]
    Runtime(String),
    #[error(
        "pods of another runtime are running on this node ({pods}): their processes are in this node's pod cgroups and \
         {endpoint} does not know them; configure the runtime that runs them, or stop them first"
    )]
    ForeignPods { pods: String, endpoint: String },
    #[error("make the pods' cgroups: {0}")]
    Cgroups(String),
    #[error("{0}")]
    Reserved(String),
    #[error("{0}")]
    Allocation(String),
}

/// A running agent: what the servers need of it.
#[derive(Clone)]
pub struct Agent {
    pub picture: Picture,
    /// Whether pods are looked after.
    pub pulse: Pulse,
    pub node: watch::Receiver<Arc<NodeFacts>>,
    pub stats: Stats,
    pub devices: Arc<Devices>,
    pub allocation: Arc<Allocation>,
    pub claims: Arc<ResourceClaims>,
    /// What the node has too little of.
    pub pressures: watch::Receiver<Pressures>,
    /// Whether the node goes down: it is not ready then.
    pub is_shutting_down: watch::Receiver<bool>,
    roster: mpsc::Sender<RosterNote>,
}

impl Agent {
    /// Stops all pods as a node that goes down does: hooks, graces, sidecars last. Returns when nothing runs in any of
    /// them; from then on none is started. What they have on the disk stays.
    pub async fn shut_down(&self) {
        let mut version = self.picture.version();
        // Without a roster nothing is started either.
        let _ = self.roster.send(RosterNote::ShutDown).await;
        while !self.picture.is_over() && version.changed().await.is_ok() {}
    }
}

/// How often the lists of the runtime are read, events or not.
pub const RELIST_PERIOD: Duration = Duration::from_secs(10);
const ROSTER_NOTES: usize = 64;
/// A sandbox that a predecessor had begun when it was killed has processes, and the runtime tells of it only once it is made: how long
/// that is waited for.
const HALF_MADE: Duration = Duration::from_secs(10);
/// kubelet 1.36: what is told of a node whose host mounts cgroups of the old kind.
const CGROUP_V1: &str = "cgroup v1 detected. cgroup v1 support is deprecated and will be removed in a future release. Please migrate to \
                         cgroup v2. More information at https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1";

/// A roster at work and what it stands on, before any source is connected.
pub struct Ground {
    pub agent: Agent,
    /// Where desired sets and observations go.
    pub roster: mpsc::Sender<RosterNote>,
    /// Where what the node has too little of is said.
    pub pressures: watch::Sender<Pressures>,
}

/// Starts the agent on a runtime that answers.
///
/// # Errors
/// [`StartError`]: nothing was changed that a later start does not expect.
pub async fn start(
    mut settings: Settings,
    runtime: Arc<dyn Runtime>,
    endpoint: &str,
    life: &Life,
) -> Result<Agent, StartError> {
    let (manifests, url) = (settings.manifests.take(), settings.url.take());
    share_mounts(&settings.node.root_dir)?;
    let has_pods = settings.cluster.as_ref().is_some_and(|cluster| cluster.pods.is_some());
    let sources =
        [manifests.as_ref().map(|_| Source::File), url.as_ref().map(|_| Source::Http), has_pods.then_some(Source::Api)];
    let sources: Vec<Source> = sources.into_iter().flatten().collect();
    let ground = lay(settings, runtime, endpoint, sources, life, Clock::start()).await?;
    if let Some(manifests) = manifests {
        life.spawn(manifests.run(into_roster(life, ground.roster.clone())));
    }
    if let Some(url) = url {
        life.spawn(url.run(into_roster(life, ground.roster.clone())));
    }
    Ok(ground.agent)
}

/// Looks at the whole runtime and starts a roster over it; sources are the caller's.
///
/// # Errors
/// As [`start`].
pub async fn lay(
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    endpoint: &str,
    sources: Vec<Source>,
    life: &Life,
    clock: Clock,
) -> Result<Ground, StartError> {
    let mut node = settings.node.clone();
    let events = begin_telling(settings.cluster.as_ref(), &node, clock, life);
    let runtime: Arc<dyn Runtime> =
        Arc::new(Bounded::new(runtime, settings.request_timeout, settings.metrics.runtime.clone()));
    make_dirs(&node, &settings.container_logs_dir)?;
    facts::learn_runtime(&mut node, runtime.as_ref()).await.map_err(StartError::Runtime)?;
    let hands = Arc::new(equip(&settings, &node, runtime, events, clock).await?);
    let surveyed = first_look(&hands, endpoint).await?;
    settle(&hands, &node, &settings.reservations, settings.housing, life)?;
    let full = csi::spawn(life, hands.clone(), node.name.clone());
    let ledger = Ledger::load(&node.root_dir);
    let (node_tx, node) = watch::channel(Arc::new(node));
    let pods = settings.cluster.as_ref().and_then(|cluster| cluster.pods.clone());
    let picture = if pods.is_some() { Picture::reported_on() } else { Picture::default() };
    let pulse = Pulse::new(settings.sync_frequency);
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let (pressures_tx, pressures) = watch::channel(Pressures::default());
    let (shutting_down_tx, is_shutting_down) = watch::channel(false);
    let node_settings = settings.cluster.as_ref().and_then(|cluster| cluster.node.clone());
    let around =
        Around { full, node: node.borrow().name.clone(), events: hands.events.clone(), metrics: hands.metrics.clone() };
    let references = settings
        .cluster
        .map_or_else(References::standalone, |cluster| References::start(cluster.references, around, life));
    let on = node::Standing {
        hands: hands.clone(),
        facts: node_tx.clone(),
        pressures: pressures.clone(),
        is_shutting_down: is_shutting_down.clone(),
        attachable: references.attachable(),
        clock,
    };
    let glance = node_settings.map(|settings| node::begin(settings, on, life)).unwrap_or_default();
    let around = Surroundings {
        hands: hands.clone(),
        node: node.clone(),
        picture: picture.clone(),
        clock,
        ended: ended_tx,
        life: life.clone(),
        pulse: pulse.clone(),
        pressures: pressures.clone(),
        is_shutting_down: shutting_down_tx,
        glance,
        references,
    };
    let (roster, notes) = mpsc::channel(ROSTER_NOTES);
    life.spawn(Roster::new(surveyed, sources, ledger, around, ended).run(notes));
    let standing = Standing {
        node_name: node.borrow().name.clone(),
        hands: hands.clone(),
        picture: picture.clone(),
        clock,
        roster: roster.clone(),
    };
    if let Some(pods) = pods {
        attend(pods, &standing.node_name, picture.clone(), &roster, hands.metrics.clone(), life);
    }
    care::begin(settings.care, standing, pressures_tx.clone(), life);
    let stats = Stats::new(hands.clone(), node.clone(), picture.clone(), settings.stats);
    let (devices, claims, allocation) = (hands.devices.clone(), hands.claims.clone(), hands.allocation.clone());
    allocation::spawn(life, hands.clone(), picture.clone(), settings.cpus_again);
    listen(hands, node_tx, &roster, life);
    let agent = Agent {
        picture,
        pulse,
        node,
        stats,
        devices,
        allocation,
        claims,
        pressures,
        is_shutting_down,
        roster: roster.clone(),
    };
    Ok(Ground { agent, roster, pressures: pressures_tx })
}

/// What the agent acts with.
async fn equip(
    settings: &Settings,
    node: &NodeFacts,
    runtime: Arc<dyn Runtime>,
    events: Events,
    clock: Clock,
) -> Result<Hands, StartError> {
    let client = settings.cluster.as_ref().map(|cluster| cluster.references.client.clone());
    let devices = Arc::new(Devices::open(&settings.device_plugins_dir, clock, settings.metrics.clone()));
    let allocation = Allocation::open(&settings.allocation, &node.root_dir, devices.clone(), settings.metrics.clone());
    Ok(Hands {
        pulled: open_records(&settings.pulls, node, &settings.metrics, runtime.as_ref()).await?,
        runtime,
        cgroups: settings.cgroups.clone(),
        pulls: Pulls::new(settings.pulls.at_once, settings.pulls.per_sec, settings.pulls.burst),
        credentials: Credentials::new(&node.root_dir, &settings.working_dir, settings.home.as_deref())
            .with_plugins(settings.credential_plugins.clone()),
        users: Users::open(node.root_dir.join("pods"), settings.ids_per_pod),
        client: client.clone(),
        drivers: Drivers::default(),
        devices,
        allocation: Arc::new(allocation.map_err(StartError::Allocation)?),
        claims: dra::open(node, client, clock, &settings.metrics),
        events,
        root_dir: node.root_dir.clone(),
        pod_logs_dir: node.pod_logs_dir.clone(),
        container_logs_dir: settings.container_logs_dir.clone(),
        metrics: settings.metrics.clone(),
    })
}

/// Lets those speak that change what node and pods are told: drivers, device plugins, the machine.
fn listen(hands: Arc<Hands>, node: watch::Sender<Arc<NodeFacts>>, roster: &mpsc::Sender<RosterNote>, life: &Life) {
    dra::spawn(life, &hands.claims, roster.clone());
    devices::spawn(life, hands.devices.clone(), node.clone(), roster.clone());
    watcher::spawn(life, hands, node, roster.clone());
}

/// All that the runtime has, if it is this node's runtime.
async fn first_look(hands: &Arc<Hands>, endpoint: &str) -> Result<survey::Surveyed, StartError> {
    let since = tokio::time::Instant::now();
    loop {
        let surveyed =
            survey::survey(hands).await.map_err(|e| StartError::Runtime(format!("first look at the runtime: {e}")))?;
        match foreign::refuse_foreign_pods(hands, &surveyed) {
            Ok(()) => return Ok(surveyed),
            Err(pods) if since.elapsed() < HALF_MADE => {
                tracing::debug!(pods, "the runtime does not know these pods, or not yet; it is asked again");
                tokio::time::sleep(HALF_MADE / 20).await;
            }
            Err(pods) => return Err(StartError::ForeignPods { pods, endpoint: endpoint.to_owned() }),
        }
    }
}

/// How images came, as it was written down.
async fn open_records(
    pulls: &PullSettings,
    node: &NodeFacts,
    metrics: &Arc<Metrics>,
    runtime: &dyn Runtime,
) -> Result<Option<Arc<PullRecords>>, StartError> {
    let Some(policy) = pulls.policy.clone() else { return Ok(None) };
    let room = Room::of(node.settings.max_pods, pulls.at_once);
    let records = PullRecords::open(&node.root_dir, policy, room, metrics.clone()).map_err(StartError::Directories)?;
    if records.has_intents() {
        match runtime.list_images(None).await {
            Ok(images) => records.settle(&images),
            Err(err) => {
                tracing::error!(%err, "listing images failed; those whose pulls had begun must be pulled again")
            }
        }
    }
    Ok(Some(Arc::new(records)))
}

/// Cgroups for pods and for those that something is kept for, and what an earlier life left in use.
fn settle(
    hands: &Arc<Hands>,
    node: &NodeFacts,
    reservations: &[Reservation],
    housing: Housing,
    life: &Life,
) -> Result<(), StartError> {
    reserve::make_levels(hands, node).map_err(StartError::Cgroups)?;
    reserve::hold_pods(hands, node, life);
    reserve::hold_others(hands, node, reservations).map_err(StartError::Reserved)?;
    housing::begin(housing, life).map_err(StartError::Reserved)?;
    if let Err(e) = rubelet_volumes::csi::hold_found(&hands.root_dir, &hands.drivers) {
        let err = rubelet_host::chain(&e);
        tracing::warn!(err, "volumes that were staged before are not all told of as in use");
    }
    Ok(())
}

/// Where it is told what happens, from the start on.
fn begin_telling(cluster: Option<&Cluster>, node: &NodeFacts, clock: Clock, life: &Life) -> Events {
    let events = match cluster {
        Some(cluster) => Events::start(cluster.events.clone(), &node.name, clock, life),
        None => Events::standalone(clock),
    };
    events.tell_of_node(&node.name, "Normal", "Starting", "Starting kubelet.");
    if node.cgroup.version == CgroupVersion::V1 {
        events.tell_of_node(&node.name, "Warning", "CgroupV1", CGROUP_V1);
    }
    if let Some(problem) = dns::host_problem(&node.dns) {
        tracing::warn!(problem.message, "resolvConf is not all that it should be");
        events.tell_of_node(&node.name, "Warning", problem.reason, &problem.message);
    }
    events
}

/// Takes pods from the API server and tells it of them.
fn attend(
    pods: PodSettings,
    node_name: &str,
    picture: Picture,
    roster: &mpsc::Sender<RosterNote>,
    metrics: Arc<Metrics>,
    life: &Life,
) {
    let (objects, seen) = watch::channel(None);
    let source = ClusterSource { client: pods.client.clone(), node_name: node_name.to_owned(), objects };
    life.spawn(source.run(into_roster(life, roster.clone())));
    life.spawn(Reporter::new(pods, node_name, picture, seen, roster.clone(), metrics).run());
}

/// A channel whose sets go on to the roster.
fn into_roster(life: &Life, roster: mpsc::Sender<RosterNote>) -> mpsc::Sender<crate::sources::DesiredSet> {
    let (tx, mut sets) = mpsc::channel(4);
    life.spawn(async move {
        while let Some(set) = sets.recv().await {
            if roster.send(RosterNote::Desired(set)).await.is_err() {
                return;
            }
        }
    });
    tx
}

/// Mounts below the root directory reach the host and its other containers.
fn share_mounts(root_dir: &Path) -> Result<(), StartError> {
    make_dir(root_dir, 0o750)?;
    if let Err(e) = rubelet_host::mount::make_rshared(root_dir) {
        let (path, err) = (root_dir.display(), rubelet_host::chain(&e));
        tracing::warn!(%path, err, "the root directory is not a shared mount; mounts of pods do not spread");
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StartError> {
    rubelet_host::paths::ensure_dir(path, mode).map_err(|e| StartError::Directories(rubelet_host::chain(&e)))
}

/// Kubelet 1.36: directories at start and their modes.
fn make_dirs(node: &NodeFacts, container_logs_dir: &Path) -> Result<(), StartError> {
    make_dir(&node.root_dir, 0o750)?;
    for name in ["pods", "plugins", "plugins_registry", "pod-resources"] {
        make_dir(&node.root_dir.join(name), 0o750)?;
    }
    make_dir(&node.root_dir.join("checkpoints"), 0o700)?;
    make_dir(&node.pod_logs_dir, 0o750)?;
    make_dir(container_logs_dir, 0o755)
}
