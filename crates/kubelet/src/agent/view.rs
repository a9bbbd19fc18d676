//! What the servers show: the agent's picture and the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rubelet_agent::allocation::Allocation;
use rubelet_agent::devices::Devices;
use rubelet_agent::dra::ResourceClaims;
use rubelet_agent::picture::{Picture, Shown};
use rubelet_agent::pulse::Pulse;
use rubelet_agent::stats::Stats;
use rubelet_api::gates::Gate;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_cri::Runtime;
use rubelet_proto::podresources::{AllocatableResourcesResponse, ContainerResources, DynamicResource};
use rubelet_server::metrics::HttpCounts;
use rubelet_server::{Premises, Switches, View};

use super::program::Program;
use crate::assemble::Assembled;
use crate::{klog, version};

/// Kubelet 1.36: not configurable.
const LOG_DIR: &str = "/var/log";

/// The node as it is shown.
pub(super) struct NodeView {
    pub(super) picture: Picture,
    pub(super) pulse: Pulse,
    pub(super) configz: serde_json::Value,
    pub(super) stats: Stats,
    pub(super) devices: Arc<Devices>,
    pub(super) allocation: Arc<Allocation>,
    pub(super) claims: Arc<ResourceClaims>,
    pub(super) http: Arc<HttpCounts>,
    /// What `/metrics` tells of the program.
    pub(super) program: Arc<Program>,
    /// Held to deadlines.
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) premises: Premises,
    pub(super) log: klog::Control,
}

/// What the configuration lets be shown.
pub(super) fn premises(assembled: &Assembled) -> Premises {
    let (server, gates) = (&assembled.config.server, &assembled.gates);
    let version = version::GIT_VERSION.trim_start_matches('v');
    Premises {
        switches: Switches {
            has_system_logs: server.enable_system_log_handler,
            has_system_log_query: server.enable_system_log_query && gates.is_on(Gate::NodeLogQuery),
            has_profiling: server.enable_profiling_handler,
            has_debug_flags: server.enable_debug_flags_handler,
            splits_log_streams: gates.is_on(Gate::PodLogsQuerySplitStreams),
            translates_web_sockets: gates.is_on(Gate::ExtendWebSocketsToKubelet),
            has_checkpoints: gates.is_on(Gate::ContainerCheckpoint),
            has_flagz: gates.is_on(Gate::ComponentFlagz),
            has_statusz: gates.is_on(Gate::ComponentStatusz),
        },
        log_dir: PathBuf::from(LOG_DIR),
        checkpoints_dir: assembled.flags.root_dir.join("checkpoints"),
        flags: assembled.shown_flags.clone(),
        version: version.to_owned(),
        emulated_version: format!("{}.{}", version::MAJOR, version::MINOR),
        started_at: SystemTime::now(),
    }
}

fn with_status(shown: &Shown) -> Arc<v1::Pod> {
    let mut pod = (*shown.pod).clone();
    pod.status = Some((*shown.status).clone());
    Arc::new(pod)
}

impl View for NodeView {
    fn pods(&self) -> Vec<Arc<v1::Pod>> {
        let listed = self.picture.listed();
        listed.iter().map(with_status).collect()
    }

    fn configz(&self) -> serde_json::Value {
        self.configz.clone()
    }

    fn sync_loop(&self) -> Result<(), String> {
        self.pulse.check()
    }

    fn allocated(&self, pod: &str, container: &str) -> ContainerResources {
        self.allocation.shown(&PodUid::new(pod), container)
    }

    fn dynamic_resources(&self, pod: &v1::Pod, container: &v1::Container) -> Vec<DynamicResource> {
        self.claims.shown(pod, container)
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        self.allocation.shown_allocatable()
    }

    fn device_plugins(&self) -> Result<(), String> {
        self.devices.problem().map_or(Ok(()), Err)
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn set_verbosity(&self, level: u32) {
        self.log.set_verbosity(level);
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<v1::Pod>> {
        self.picture.find(namespace, name).map(|shown| with_status(&shown))
    }
}
