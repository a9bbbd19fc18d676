//! What the server asks of the rest of the agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rubelet_api::v1;
use rubelet_cri::Runtime;
use rubelet_proto::podresources::{AllocatableResourcesResponse, ContainerResources, DynamicResource};

use crate::logs::{Bells, Lanes};

use crate::metrics::Pages;

#[cfg(test)]
pub(crate) mod shown;

/// The node, as it is to be shown. Every method answers at once, from what is known.
pub trait View: Pages + Send + Sync + 'static {
    /// All known pods with their status, in any order.
    fn pods(&self) -> Vec<Arc<v1::Pod>>;

    /// The effective `KubeletConfiguration`, `kind` and `apiVersion` included, as `/configz` shows it.
    fn configz(&self) -> serde_json::Value;

    /// Whether pods are still being looked after.
    ///
    /// # Errors
    /// Why not, in words (kubelet 1.36: `sync Loop took longer than expected`).
    fn sync_loop(&self) -> Result<(), String>;

    /// What a container of the pod with this UID has for itself alone: devices of plugins, CPUs, memory. Without its name.
    fn allocated(&self, pod: &str, container: &str) -> ContainerResources;

    /// What a container of a pod has by resource claims.
    fn dynamic_resources(&self, pod: &v1::Pod, container: &v1::Container) -> Vec<DynamicResource>;

    /// Devices of plugins, CPUs and memory that containers may have for themselves.
    fn allocatable(&self) -> AllocatableResourcesResponse;

    /// Whether device plugins can register.
    ///
    /// # Errors
    /// Why not, in words.
    fn device_plugins(&self) -> Result<(), String>;

    /// The container runtime, for what clients want of it.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// What may be shown, and where it is.
    fn premises(&self) -> &Premises;

    /// Changes how much the program logs (`--v`).
    fn set_verbosity(&self, level: u32);

    /// The pod of this name, with its status.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<v1::Pod>> {
        let is_it = |pod: &Arc<v1::Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.pods().into_iter().find(is_it)
    }
}

/// What of the node may be shown, and where it is.
#[derive(Clone, Debug)]
pub struct Premises {
    pub switches: Switches,
    /// `/var/log`: what `/logs/` shows.
    pub log_dir: PathBuf,
    /// `<root-dir>/checkpoints`.
    pub checkpoints_dir: PathBuf,
    /// All flags and their values, as `/flagz` shows them.
    pub flags: BTreeMap<String, String>,
    /// Version of the program, without `v`.
    pub version: String,
    /// Of Kubernetes: major and minor.
    pub emulated_version: String,
    pub started_at: SystemTime,
}

impl Default for Premises {
    /// Nothing.
    fn default() -> Self {
        Self {
            switches: Switches::default(),
            log_dir: PathBuf::new(),
            checkpoints_dir: PathBuf::new(),
            flags: BTreeMap::new(),
            version: String::new(),
            emulated_version: String::new(),
            started_at: SystemTime::UNIX_EPOCH,
        }
    }
}

/// Which parts of the API are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `enableSystemLogHandler`.
    pub has_system_logs: bool,
    /// `enableSystemLogQuery`.
    pub has_system_log_query: bool,
    /// `enableProfilingHandler`.
    pub has_profiling: bool,
    /// `enableDebugFlagsHandler`.
    pub has_debug_flags: bool,
    /// Gate `PodLogsQuerySplitStreams`.
    pub splits_log_streams: bool,
    /// Gate `ExtendWebSocketsToKubelet`.
    pub translates_web_sockets: bool,
    /// Gate `ContainerCheckpoint`.
    pub has_checkpoints: bool,
    /// Gate `ComponentFlagz`.
    pub has_flagz: bool,
    /// Gate `ComponentStatusz`.
    pub has_statusz: bool,
}

/// Where requests are answered: what is shown, and what all requests share.
pub(crate) struct Desk {
    pub(crate) view: Arc<dyn View>,
    pub(crate) bells: Bells,
    pub(crate) lanes: Lanes,
}

impl Desk {
    pub(crate) fn new(view: Arc<dyn View>) -> Self {
        Self { view, bells: Bells::default(), lanes: Lanes::default() }
    }
}
