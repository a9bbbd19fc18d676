//! The agent in this program: its settings from the configuration, the runtime it stands on, the servers beside it.

mod allocation;
mod amounts;
mod api;
mod care;
mod node;
mod pages;
mod program;
mod servers;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rubelet_agent::devices::DEVICE_PLUGINS_DIR;
use rubelet_agent::housing::Housing;
use rubelet_agent::life::{Life, LifeEnd};
use rubelet_agent::metrics::Metrics;
use rubelet_agent::pulse::Pulse;
use rubelet_agent::sources::{FileSource, HttpSource};
use rubelet_agent::{CredentialPlugins, PullSettings, Settings};
use rubelet_api::config::KubeletConfiguration;
use rubelet_api::gates::{Gate, Gates};
use rubelet_core::node::CgroupDriver;
use rubelet_core::pulled::Policy;
use rubelet_cri::{Bounded, Remote, Runtime, check_version};
use rubelet_host::cgroup::{Driver, Tree};
use rubelet_host::chain;
use rubelet_runtime::Embedded;
use rubelet_server::Servers;
use rubelet_server::metrics::HttpCounts;
use tokio::net::UnixListener;
use tracing::{info, warn};

use crate::assemble::{Assembled, EMBEDDED};
use crate::{control, embedded, klog};

/// How often a runtime that does not answer is asked again.
const RUNTIME_AGAIN: Duration = Duration::from_secs(1);
/// Links to logs, by pod and container; from kubelet 1.36.
const CONTAINER_LOGS_DIR: &str = "/var/log/containers";

/// The agent at work.
pub(crate) struct Running {
    pulse: Pulse,
    _servers: Servers,
    _end: LifeEnd,
}

impl Running {
    /// Whether pods are looked after.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Ends the agent's tasks; pods go on.
    pub(crate) async fn stop(self) {
        drop(self);
        // Every task gets its turn to see the end.
        tokio::task::yield_now().await;
    }
}

fn housing(config: &KubeletConfiguration) -> Housing {
    let resources = &config.resources;
    Housing { own: resources.kubelet_cgroups.clone(), others: resources.system_cgroups.clone() }
}

/// Waits for the runtime, looks at everything, and starts to look after pods.
///
/// # Errors
/// What keeps the node from working at all, in words.
pub(crate) async fn start(assembled: Assembled, log: klog::Control) -> Result<Running, String> {
    let failed = |what: String| format!("failed to run Kubelet: {what}");
    let config = &assembled.config;
    let (runtime, own) = runtime(&assembled).await.map_err(failed)?;
    let driver = driver(runtime.as_ref(), &config.resources.cgroup_driver).await;
    let root = cgroup_root(config);
    let cgroups = config
        .resources
        .cgroups_per_qos
        .then(|| Tree::detect(host_driver(driver), &root).map_err(|e| failed(chain(&e))))
        .transpose()?;
    let node = node::facts(&assembled, driver, root).map_err(failed)?;
    let reservations = amounts::reservations(config, &node.machine.huge_page_sizes);
    let metrics = Arc::new(Metrics::default());
    let (plugins, programs) =
        (&assembled.flags.credential_provider_config, &assembled.flags.credential_provider_bin_dir);
    let credential_plugins =
        CredentialPlugins::open(plugins.as_deref(), programs.as_deref(), &metrics)
            .map(Arc::new)
            .map_err(|error| failed(format!("Failed to register CRI auth plugins: {}", chain(&error))))?;
    let joined = api::join(&assembled, &metrics).map_err(failed)?;
    let allocation = allocation::settings(&assembled, node.machine.memory_bytes).map_err(failed)?;
    let (life, end) = Life::new();
    let settings = Settings {
        node,
        manifests: manifests(&assembled),
        url: url(&assembled),
        pulls: pulls(config),
        cluster: joined.as_ref().map(|joined| api::cluster(&assembled, joined)).transpose().map_err(failed)?,
        ids_per_pod: ids_per_pod(config),
        request_timeout: config.runtime.request_timeout.to_std(),
        sync_frequency: config.pods.sync_frequency.to_std(),
        care: care::care(&assembled).map_err(failed)?,
        cgroups,
        reservations,
        housing: housing(config),
        working_dir: assembled.around.working_dir.clone(),
        home: assembled.around.variable("HOME").map(PathBuf::from),
        credential_plugins,
        container_logs_dir: PathBuf::from(CONTAINER_LOGS_DIR),
        device_plugins_dir: PathBuf::from(DEVICE_PLUGINS_DIR),
        stats: pages::settings(&assembled),
        allocation,
        cpus_again: config.resources.cpu_manager_reconcile_period.to_std(),
        metrics: metrics.clone(),
    };
    let asked = Arc::new(Bounded::new(runtime.clone(), settings.request_timeout, metrics.runtime.clone()));
    let agent = rubelet_agent::start(settings, runtime, &assembled.runtime_endpoint, &life)
        .await
        .map_err(|error| failed(chain(&error)))?;
    if let Some(joined) = &joined {
        api::keep_certificates(&assembled, joined, &agent, &life).map_err(failed)?;
    }
    if let Some((embedded, listener)) = own {
        control::serve(listener, embedded, control::Pods::OfAgent(agent.clone()));
    }
    let pulse = agent.pulse.clone();
    let http: Arc<HttpCounts> = Arc::default();
    let view = Arc::new(view::NodeView {
        picture: agent.picture,
        pulse: agent.pulse,
        configz: config.to_value(),
        stats: agent.stats,
        devices: agent.devices,
        allocation: agent.allocation,
        claims: agent.claims,
        http: http.clone(),
        program: Arc::new(program::Program::new(assembled.gates.clone())),
        runtime: asked,
        premises: view::premises(&assembled),
        log,
    });
    let servers = servers::config(&assembled).map_err(failed)?;
    let reviews = joined.map(|joined| rubelet_server::by_api_server(joined.client, http));
    let servers = rubelet_server::serve(servers, view, reviews).await.map_err(|error| failed(chain(&error)))?;
    info!(node = assembled.node_name.as_str(), "Started kubelet");
    Ok(Running { pulse, _servers: servers, _end: end })
}

/// The embedded runtime, and where others ask for it.
type Own = (Embedded, UnixListener);

/// The runtime that is configured, or the one in this program.
async fn runtime(assembled: &Assembled) -> Result<(Arc<dyn Runtime>, Option<Own>), String> {
    if assembled.runtime_endpoint != EMBEDDED {
        return Ok((connect(&assembled.runtime_endpoint, &assembled.config).await?, None));
    }
    let driver = match assembled.config.resources.cgroup_driver.as_str() {
        "systemd" => Driver::Systemd,
        _ => Driver::Cgroupfs,
    };
    let embedded = embedded::start(&assembled.flags.embedded, driver, &assembled.around).await?;
    let asked = control::listen(&assembled.flags.embedded.run_dir)?;
    Ok((Arc::new(embedded.clone()), Some((embedded, asked))))
}

/// A runtime that is configured is waited for. What keeps it away is told when it changes.
async fn connect(endpoint: &str, config: &KubeletConfiguration) -> Result<Arc<dyn Runtime>, String> {
    let timeout = config.runtime.request_timeout.to_std();
    let remote = Remote::connect(endpoint, &config.runtime.image_endpoint, timeout)
        .map_err(|error| format!("container runtime endpoint {endpoint:?}: {}", chain(&error)))?;
    let mut said = String::new();
    loop {
        match check_version(&remote).await {
            Ok(version) => {
                let (name, version) = (version.runtime_name.as_str(), version.runtime_version.as_str());
                info!(containerRuntime = name, version, endpoint, "Container runtime initialized");
                return Ok(Arc::new(remote));
            }
            Err(error) => {
                let now = chain(&error);
                if now != said {
                    warn!(err = %now, endpoint, "The container runtime does not answer; asking again every second");
                }
                said = now;
            }
        }
        tokio::time::sleep(RUNTIME_AGAIN).await;
    }
}

/// kubelet 1.36: the runtime says how it names cgroups; where it cannot, the configuration does.
async fn driver(runtime: &dyn Runtime, configured: &str) -> CgroupDriver {
    let configured = if configured == "systemd" { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
    match runtime.runtime_config().await {
        Ok(answer) => match answer.linux.map(|linux| linux.cgroup_driver()) {
            Some(rubelet_proto::cri::CgroupDriver::Systemd) => CgroupDriver::Systemd,
            Some(rubelet_proto::cri::CgroupDriver::Cgroupfs) => CgroupDriver::Cgroupfs,
            None => configured,
        },
        Err(error) => {
            let err = chain(&error);
            info!(err, "The runtime does not say which cgroup driver it uses; the configuration's holds");
            configured
        }
    }
}

fn host_driver(driver: CgroupDriver) -> Driver {
    match driver {
        CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        CgroupDriver::Systemd => Driver::Systemd,
    }
}

fn cgroup_root(config: &KubeletConfiguration) -> String {
    let root = config.resources.cgroup_root.trim_matches('/');
    format!("/{root}")
}

fn pod_gates(gates: &Gates) -> rubelet_api::pod::Gates {
    rubelet_api::pod::Gates {
        prevent_static_pod_api_references: gates.is_on(Gate::PreventStaticPodAPIReferences),
        container_restart_rules: gates.is_on(Gate::ContainerRestartRules),
        container_stop_signals: gates.is_on(Gate::ContainerStopSignals),
        pod_level_resources: gates.is_on(Gate::PodLevelResources),
        env_files: gates.is_on(Gate::EnvFiles),
        hostname_override: gates.is_on(Gate::HostnameOverride),
        user_namespaces_host_network: gates.is_on(Gate::UserNamespacesHostNetworkSupport),
    }
}

fn manifests(assembled: &Assembled) -> Option<FileSource> {
    let pods = &assembled.config.pods;
    (!pods.static_pod_path.is_empty()).then(|| FileSource {
        path: PathBuf::from(&pods.static_pod_path),
        check_every: pods.file_check_frequency.to_std(),
        node_name: assembled.node_name.clone(),
        gates: pod_gates(&assembled.gates),
    })
}

fn url(assembled: &Assembled) -> Option<HttpSource> {
    let pods = &assembled.config.pods;
    let headers = pods.static_pod_url_header.iter();
    (!pods.static_pod_url.is_empty()).then(|| HttpSource {
        url: pods.static_pod_url.clone(),
        headers: headers.flat_map(|(name, all)| all.iter().map(|one| (name.clone(), one.clone()))).collect(),
        check_every: pods.http_check_frequency.to_std(),
        node_name: assembled.node_name.clone(),
        gates: pod_gates(&assembled.gates),
    })
}

/// kubelet 1.36: 65536 unless it is said; checked to be a multiple of that below 2^32.
fn ids_per_pod(config: &KubeletConfiguration) -> u32 {
    let said = config.resources.user_namespaces.as_ref().and_then(|one| one.ids_per_pod);
    said.and_then(|ids| u32::try_from(ids).ok()).unwrap_or(65_536)
}

fn pulls(config: &KubeletConfiguration) -> PullSettings {
    let images = &config.images;
    let most = images.max_parallel_pulls.and_then(|n| usize::try_from(n).ok());
    PullSettings {
        at_once: if images.serialize_pulls { Some(1) } else { most },
        // Not negative: checked.
        per_sec: u32::try_from(images.registry_pull_qps).unwrap_or(0),
        burst: u32::try_from(images.registry_burst).unwrap_or(0),
        // Empty with its gate off.
        policy: Policy::named(&images.pull_credentials_verification_policy, &images.preloaded_verification_allowlist),
    }
}
