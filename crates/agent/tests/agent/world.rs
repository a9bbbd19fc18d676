//! A node in a temporary folder: the runtime and the disk outlive agents.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::clock::Clock;
use rubelet_agent::life::{Life, LifeEnd};
use rubelet_agent::roster::RosterNote;
use rubelet_agent::sources::{DesiredPod, DesiredSet};
use rubelet_agent::start::{Ground, lay};
use rubelet_agent::{PullSettings, Settings};
use rubelet_api::pod::{Gates, Origin, static_pod};
use rubelet_api::v1;
use rubelet_core::node::{
    CgroupDriver, CgroupFacts, CgroupVersion, DnsFacts, Machine, NodeFacts, PodGates, PodSettings, RuntimeFacts,
};
use rubelet_core::now::Wall;
use rubelet_core::pod::Source;
use rubelet_testkit::{FakeRuntime, Temper};

/// One container of a test's pod: name and command.
pub type Containers = Vec<(&'static str, Vec<String>)>;

pub struct World {
    pub runtime: FakeRuntime,
    dir: tempfile::TempDir,
    start: tokio::time::Instant,
}

/// A living agent; dropping it is a SIGKILL.
pub struct Agent {
    pub ground: Ground,
    _end: LifeEnd,
}

impl World {
    pub fn new() -> Self {
        Self {
            runtime: FakeRuntime::new(Temper::default()),
            dir: tempfile::tempdir().expect("a temporary folder"),
            start: tokio::time::Instant::now(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn agent(&self) -> Agent {
        let (life, end) = Life::new();
        let settings = Settings {
            node: node(self.path()),
            manifests: None,
            url: None,
            pulls: PullSettings { at_once: None, per_sec: 0, burst: 0 },
            cgroups: None,
            working_dir: self.path().to_owned(),
            home: None,
            container_logs_dir: self.path().join("container-logs"),
        };
        let epoch = Wall::from_nanosecond(i128::from(rubelet_testkit::runtime::EPOCH_NANOS)).expect("in range");
        let now = epoch.saturating_add(self.start.elapsed()).expect("in range");
        let runtime = Arc::new(self.runtime.clone());
        let ground = lay(settings, runtime, "fake", vec![Source::File], &life, Clock::virtual_from(now));
        Agent { ground: ground.await.expect("the agent starts"), _end: end }
    }

    /// Waits in virtual time until `condition` holds.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1800);
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "waited half an hour for: {what}\n{:#?}", self.runtime.calls());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Agent {
    pub async fn wants(&self, pods: Vec<DesiredPod>) {
        let set = DesiredSet { source: Source::File, complete: true, pods, problems: Vec::new() };
        self.ground.roster.send(RosterNote::Desired(set)).await.expect("the roster lives");
    }

    /// Phase and readiness by pod name.
    pub fn shown(&self, name: &str) -> Option<v1::PodStatus> {
        let shown = self.ground.agent.picture.listed();
        let pods: Vec<_> = shown.iter().filter(|s| &*s.key.name == name).collect();
        pods.last().map(|s| (*s.status).clone())
    }
}

/// A static pod as a source would give it: the UID follows from the content.
pub fn pod(name: &str, containers: &Containers) -> DesiredPod {
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": containers.iter().map(|(name, command)| serde_json::json!({
                "name": name, "image": "app", "imagePullPolicy": "IfNotPresent", "command": command,
            })).collect::<Vec<_>>(),
        },
    });
    let path_or_url = format!("/manifests/{name}.yaml");
    let origin = Origin { source: rubelet_api::pod::Source::File, path_or_url, node_name: "node-a".into() };
    let now = Wall::from_second(1_700_000_000).expect("in range");
    let decoded = static_pod(manifest.to_string().as_bytes(), &origin, now, Gates::default()).expect("a good pod");
    DesiredPod { pod: Arc::new(decoded.pod), digest: decoded.digest.to_string(), origin: origin.path_or_url }
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
        cgroup: CgroupFacts { version: CgroupVersion::V2, driver: CgroupDriver::Cgroupfs, root: "/".into(), per_qos: false },
        runtime: RuntimeFacts::default(),
        dns: DnsFacts::default(),
        host_etc_hosts: String::new(),
        settings: PodSettings {
            cpu_cfs_quota: true,
            cpu_cfs_period_us: 100_000,
            pod_pids_limit: -1,
            seccomp_default: false,
            single_process_oom_kill: None,
            allowed_unsafe_sysctls: Vec::new(),
            crash_loop_secs_max: 300,
            limited_swap: false,
            max_pods: 110,
            has_api_server: false,
            local_storage_isolation: true,
            gates: PodGates {
                container_restart_rules: true,
                restart_all_containers_on_container_exits: true,
                reduce_default_crash_loop_back_off_decay: false,
                container_stop_signals: false,
                env_files: true,
                pod_level_resources: true,
                hostname_override: true,
                memory_qos: false,
                change_container_status_on_kubelet_restart: false,
            },
        },
        started_at: Wall::from_second(1_700_000_000).expect("in range"),
    }
}
