//! A node in a temporary folder: the runtime and the disk outlive agents.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::allocation::AllocationSettings;
use rubelet_agent::care::Care;
use rubelet_agent::clock::Clock;
use rubelet_agent::cluster::{Cluster, PodSettings};
use rubelet_agent::events::EventSettings;
use rubelet_agent::housing::Housing;
use rubelet_agent::life::{Life, LifeEnd};
use rubelet_agent::node::NodeSettings;
use rubelet_agent::references::{ReferenceSettings, Strategy};
use rubelet_agent::reserve::Reservation;
use rubelet_agent::roster::RosterNote;
use rubelet_agent::sources::{DesiredPod, DesiredSet};
use rubelet_agent::start::{Ground, lay};
use rubelet_agent::{PullSettings, Settings, StartError};
use rubelet_api::pod::{Gates, Origin, static_pod};
use rubelet_api::v1;
use rubelet_apiserver::Client;
use rubelet_core::node::object::Presence;
use rubelet_core::node::{
    self as core_node, CgroupDriver, CgroupFacts, CgroupVersion, DnsFacts, Machine, NodeFacts, NodeLimits, PodGates,
    Registered, RuntimeFacts,
};
use rubelet_core::now::Wall;
use rubelet_core::pod::Source;
use rubelet_core::pulled::Policy;
use rubelet_cri::Runtime;
use rubelet_host::cgroup::{Driver, Tree};
use rubelet_testkit::{FakeRuntime, Temper};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long the runtime may take for an answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) runtime: FakeRuntime,
    dir: tempfile::TempDir,
    start: Instant,
    /// Real cgroups below a root of this world's own.
    pub(crate) cgroups: Option<Tree>,
    /// Path of that root.
    pub(crate) root: String,
    /// What all pods are held to.
    pub(crate) pods_limits: NodeLimits,
    pub(crate) reservations: Vec<Reservation>,
    /// What is done for the node.
    pub(crate) care: Care,
}

impl Drop for World {
    fn drop(&mut self) {
        if self.cgroups.is_some() {
            let top = Tree::detect(Driver::Cgroupfs, "/").expect("as before");
            top.remove(&self.root).expect("nothing runs in it");
        }
    }
}

/// A living agent; dropping it is a SIGKILL.
pub(crate) struct Agent {
    pub(crate) ground: Ground,
    _end: LifeEnd,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Temper::default())
    }

    pub(crate) fn with(temper: Temper) -> Self {
        // In memory where there is such a place: the ledger is synced to the disk again and again.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a temporary folder");
        Self {
            runtime: FakeRuntime::new(temper),
            dir,
            start: Instant::now(),
            cgroups: None,
            root: String::new(),
            pods_limits: NodeLimits::default(),
            reservations: Vec::new(),
            care: Care::off(),
        }
    }

    /// With real cgroups; `None` where the host gives none.
    pub(crate) fn with_cgroups(name: &str) -> Option<Self> {
        let root = format!("rubelet-agent-{}-{name}", std::process::id());
        let tree = Tree::detect(Driver::Cgroupfs, &root).ok()?;
        if tree.ensure("probe", &rubelet_host::cgroup::Values::default()).is_err() {
            eprintln!("not run: no writable cgroup hierarchy");
            return None;
        }
        let mut world = Self::new();
        (world.cgroups, world.root) = (Some(tree), root);
        Some(world)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.agent_of(vec![Source::File]).await
    }

    /// An agent that waits for these sources.
    pub(crate) async fn agent_of(&self, sources: Vec<Source>) -> Agent {
        self.try_agent(sources).await.expect("the agent starts")
    }

    /// The same, or why it does not start.
    pub(crate) async fn try_agent(&self, sources: Vec<Source>) -> Result<Agent, StartError> {
        let epoch = Wall::from_nanosecond(i128::from(rubelet_testkit::runtime::EPOCH_NANOS)).expect("in range");
        let now = epoch.saturating_add(self.start.elapsed()).expect("in range");
        let mut node = node(self.path());
        node.machine.pods_limits.clone_from(&self.pods_limits);
        if self.cgroups.is_some() {
            (node.cgroup.per_qos, node.cgroup.root) = (true, format!("/{}", self.root));
        }
        let care = Some(self.care.clone());
        let tree = self.cgroups.clone();
        let cgroups = Cgroups { cluster: None, tree, reservations: self.reservations.clone(), care };
        born(node, cgroups, Arc::new(self.runtime.clone()), Clock::virtual_from(now), sources).await
    }

    /// The node of that name, whose pods come from an API server, beside static ones of the test.
    pub(crate) async fn joined(&self, name: &str, client: &Client) -> Agent {
        self.joining(name, client, None).await
    }

    /// As [`Self::joined`]; it also follows its Node object, which is there already.
    pub(crate) async fn registered(&self, name: &str, client: &Client) -> Agent {
        let settings = NodeSettings {
            client: client.clone(),
            presence: Presence { name: name.into(), ..Presence::default() },
            registers: false,
            gets_on_exists_only: true,
            update_every: REQUEST_TIMEOUT,
            report_every: REQUEST_TIMEOUT,
            lease_secs: 40,
            seed: 1,
        };
        self.joining(name, client, Some(settings)).await
    }

    async fn joining(&self, name: &str, client: &Client, presence: Option<NodeSettings>) -> Agent {
        let dns = DnsFacts { cluster_servers: vec!["10.96.0.10".into()], ..DnsFacts::default() };
        let node = NodeFacts { name: name.into(), dns, ..node(self.path()) };
        let settings = PodSettings { client: client.clone(), seed: 1 };
        let strategy = Strategy::Watch;
        let references = ReferenceSettings { client: client.clone(), strategy, period: REQUEST_TIMEOUT, seed: 1 };
        let events = EventSettings { client: client.clone(), seed: 1 };
        self.attached_to(
            node,
            Cluster { references, events, node: presence, pods: Some(settings) },
            vec![Source::File, Source::Api],
        )
        .await
    }

    /// An agent with an API server, in real time.
    pub(crate) async fn attached(&self, references: ReferenceSettings) -> Agent {
        let events = EventSettings { client: references.client.clone(), seed: 1 };
        let cluster = Cluster { references, events, node: None, pods: None };
        self.attached_to(node(self.path()), cluster, vec![Source::Api]).await
    }

    async fn attached_to(&self, mut node: NodeFacts, cluster: Cluster, sources: Vec<Source>) -> Agent {
        node.settings.has_api_server = true;
        let cgroups = Cgroups { cluster: Some(cluster), ..Cgroups::default() };
        let agent = born(node, cgroups, Arc::new(self.runtime.clone()), Clock::start(), sources).await;
        agent.expect("the agent starts")
    }

    /// Waits in virtual time until `condition` holds.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(1800);
        while !condition() {
            assert!(Instant::now() < deadline, "waited half an hour for: {what}\n{:#?}", self.runtime.calls());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until nothing is done in the runtime for longer than any back-off takes.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(7200);
        loop {
            let before = self.runtime.calls().len();
            tokio::time::sleep(Duration::from_secs(330)).await;
            let calls = self.runtime.calls();
            if calls.len() == before {
                return;
            }
            assert!(Instant::now() < deadline, "it never comes to rest\n{calls:#?}");
        }
    }

    /// UIDs that have a directory.
    pub(crate) fn pod_dirs(&self) -> BTreeSet<String> {
        names_in(&self.path().join("root/pods"))
    }

    /// UIDs that have logs.
    pub(crate) fn pod_logs(&self) -> BTreeSet<String> {
        let names = names_in(&self.path().join("logs"));
        names.iter().map(|n| n.rsplit('_').next().unwrap_or_default().to_owned()).collect()
    }
}

/// What an agent has to do with the node, and with others.
#[derive(Default)]
struct Cgroups {
    cluster: Option<Cluster>,
    tree: Option<Tree>,
    reservations: Vec<Reservation>,
    care: Option<Care>,
}

/// An agent whose folders are below `dir`.
pub(crate) async fn born_on(dir: &Path, runtime: Arc<dyn Runtime>, clock: Clock, sources: Vec<Source>) -> Agent {
    born(node(dir), Cgroups::default(), runtime, clock, sources).await.expect("the agent starts")
}

async fn born(
    node: NodeFacts,
    cgroups: Cgroups,
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    sources: Vec<Source>,
) -> Result<Agent, StartError> {
    let (life, end) = Life::new();
    // In real time: what drivers say is asked for anew each time.
    let volumes_age_max = cgroups.cluster.is_some().then_some(Duration::ZERO);
    let dir = node.root_dir.parent().expect("it has one").to_owned();
    let settings = Settings {
        node,
        manifests: None,
        url: None,
        pulls: PullSettings { at_once: None, per_sec: 0, burst: 0, policy: Some(Policy::NeverVerifyPreloaded) },
        cluster: cgroups.cluster,
        ids_per_pod: 65_536,
        request_timeout: REQUEST_TIMEOUT,
        sync_frequency: Duration::from_secs(60),
        care: cgroups.care.unwrap_or_else(Care::off),
        cgroups: cgroups.tree,
        reservations: cgroups.reservations,
        housing: Housing::default(),
        working_dir: dir.clone(),
        home: None,
        credential_plugins: Arc::default(),
        container_logs_dir: dir.join("container-logs"),
        device_plugins_dir: dir.join("device-plugins"),
        allocation: AllocationSettings { topology_policy: "none".to_owned(), ..AllocationSettings::default() },
        cpus_again: Duration::from_secs(10),
        stats: rubelet_agent::stats::StatsSettings { volumes_age_max, ..Default::default() },
        metrics: Arc::default(),
    };
    let ground = lay(settings, runtime, "test", sources, &life, clock).await?;
    Ok(Agent { ground, _end: end })
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).expect("the agent made it");
    entries.map(|e| e.expect("readable").file_name().into_string().expect("text")).collect()
}

impl Agent {
    pub(crate) async fn wants(&self, pods: Vec<DesiredPod>) {
        self.wants_of(Source::File, pods).await;
    }

    pub(crate) async fn wants_of(&self, source: Source, pods: Vec<DesiredPod>) {
        let set = DesiredSet { source, complete: true, pods, problems: Vec::new() };
        self.ground.roster.send(RosterNote::Desired(set)).await.expect("the roster lives");
    }

    /// The status that is shown of the pod of this name.
    pub(crate) fn shown(&self, name: &str) -> Option<v1::PodStatus> {
        let shown = self.ground.agent.picture.listed();
        let pods: Vec<_> = shown.iter().filter(|s| &*s.key.name == name).collect();
        pods.last().map(|s| (*s.status).clone())
    }
}

/// A container that runs `words`.
pub(crate) fn container(name: &str, words: &[&str]) -> Value {
    json!({"name": name, "image": "app", "imagePullPolicy": "IfNotPresent", "command": words})
}

/// A static pod of these containers as a source would give it.
pub(crate) fn pod(name: &str, containers: &[(&str, &[&str])]) -> DesiredPod {
    let containers: Vec<Value> = containers.iter().map(|(name, words)| container(name, words)).collect();
    pod_of(name, json!({"containers": containers}))
}

/// A static pod of this specification: the UID follows from the content.
pub(crate) fn pod_of(name: &str, spec: Value) -> DesiredPod {
    pod_at(&format!("/manifests/{name}.yaml"), name, spec)
}

/// The same from a file of another name.
pub(crate) fn pod_at(path: &str, name: &str, mut spec: Value) -> DesiredPod {
    if spec.get("terminationGracePeriodSeconds").is_none() {
        spec["terminationGracePeriodSeconds"] = json!(5);
    }
    // A specification that names a UID gives the pod that one.
    let uid = spec.as_object_mut().and_then(|s| s.remove("uid"));
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": uid}, "spec": spec});
    let origin =
        Origin { source: rubelet_api::pod::Source::File, path_or_url: path.into(), node_name: "node-a".into() };
    let now = Wall::from_second(1_700_000_000).expect("in range");
    let decoded = static_pod(manifest.to_string().as_bytes(), &origin, now, Gates::default()).expect("a good pod");
    DesiredPod {
        pod: Arc::new(decoded.pod),
        digest: decoded.digest.to_string(),
        origin: origin.path_or_url,
        removals: 0,
    }
}

fn node(dir: &Path) -> NodeFacts {
    NodeFacts {
        name: "node-a".into(),
        ips: vec!["10.0.0.9".parse().expect("an address")],
        root_dir: dir.join("root"),
        pod_logs_dir: dir.join("logs"),
        machine: Machine {
            cpu_milli: 4000,
            memory_bytes: 8 << 30,
            ephemeral_storage_bytes: 100 << 30,
            allocatable_cpu_milli: 4000,
            allocatable_memory_bytes: 8 << 30,
            allocatable_ephemeral_storage_bytes: 100 << 30,
            kernel: (6, 1),
            ..Machine::default()
        },
        cgroup: CgroupFacts {
            version: match rubelet_host::cgroup::detect_version().expect("a mount table") {
                rubelet_host::cgroup::Version::V1 => CgroupVersion::V1,
                rubelet_host::cgroup::Version::V2 => CgroupVersion::V2,
            },
            driver: CgroupDriver::Cgroupfs,
            root: "/".into(),
            per_qos: false,
        },
        runtime: RuntimeFacts::default(),
        devices: std::collections::BTreeMap::new(),
        registered: Registered {
            labels: rubelet_core::node::object::default_labels("node-a"),
            ..Registered::default()
        },
        dns: DnsFacts::default(),
        host_etc_hosts: String::new(),
        settings: settings(),
        started_at: Wall::from_second(1_700_000_000).expect("in range"),
    }
}

fn settings() -> core_node::PodSettings {
    core_node::PodSettings {
        cpu_cfs_quota: true,
        cpu_cfs_period_us: 100_000,
        pod_pids_limit: -1,
        seccomp_default: false,
        single_process_oom_kill: None,
        allowed_unsafe_sysctls: Vec::new(),
        crash_loop_secs_max: 300,
        limited_swap: false,
        static_cpus: false,
        static_memory: false,
        max_pods: 110,
        has_api_server: false,
        local_storage_isolation: true,
        gates: PodGates {
            resource_health_status: true,
            resource_health_status_message: true,
            dra_extended_resource: true,
            container_restart_rules: true,
            restart_all_containers_on_container_exits: true,
            reduce_default_crash_loop_back_off_decay: false,
            container_stop_signals: false,
            env_files: true,
            pod_level_resources: true,
            hostname_override: true,
            change_container_status_on_kubelet_restart: false,
            cluster_trust_bundle_projection: false,
            pod_certificate_request: false,
            node_declared_features: true,
            local_storage_capacity_isolation_fs_quota_monitoring: false,
        },
    }
}
