//! What touches the world, in one place for all workers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rubelet_api::ids::PodUid;
use rubelet_apiserver::Client;
use rubelet_core::pod::step::{PodCgroup, QosClass};
use rubelet_core::resources::cgroup::level;
use rubelet_cri::Runtime;
use rubelet_host::cgroup::{self, LEVELS, Tree};
use rubelet_host::chain;
use rubelet_volumes::csi::Drivers;

use crate::allocation::Allocation;
use crate::credentials::Credentials;
use crate::devices::Devices;
use crate::dra::ResourceClaims;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::pulled::PullRecords;
use crate::pulls::Pulls;
use crate::users::Users;

/// Kubelet 1.36: not configurable.
pub const CONTAINER_LOGS_DIR: &str = "/var/log/containers";

/// The hands of the agent. Shared by all workers, changed by none.
pub struct Hands {
    pub runtime: Arc<dyn Runtime>,
    /// `None` with `cgroupsPerQOS: false`: pods have no cgroup of their own.
    pub cgroups: Option<Tree>,
    pub pulls: Pulls,
    /// How images came; `None`: whoever asks for one that is here gets it.
    pub pulled: Option<Arc<PullRecords>>,
    pub credentials: Credentials,
    /// Who of the host's users stands for whose.
    pub users: Users,
    /// The API server; `None` on a node of its own.
    pub client: Option<Client>,
    /// CSI drivers that have registered.
    pub drivers: Drivers,
    /// Devices that plugins bring.
    pub devices: Arc<Devices>,
    /// What containers have for themselves alone.
    pub allocation: Arc<Allocation>,
    /// What drivers prepared for resource claims.
    pub claims: Arc<ResourceClaims>,
    /// Where it is told what happens.
    pub events: Events,
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub container_logs_dir: PathBuf,
    pub metrics: Arc<Metrics>,
}

impl Hands {
    /// `<root-dir>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &PodUid) -> PathBuf {
        self.root_dir.join("pods").join(uid.as_str())
    }

    /// `<root-dir>/pods`.
    pub fn pods_dir(&self) -> PathBuf {
        self.root_dir.join("pods")
    }

    /// Whether a pod has its cgroup, at any QoS level; `None` where pods have none of their own.
    pub fn has_pod_cgroup(&self, uid: &PodUid) -> Option<bool> {
        let tree = self.cgroups.as_ref()?;
        Some(LEVELS.iter().any(|level| tree.exists(format!("{level}/pod{uid}"))))
    }

    /// The pods that have their cgroup; `None` where pods have none of their own, or where it cannot be known.
    pub fn pods_with_cgroup(&self) -> Option<BTreeSet<PodUid>> {
        match self.cgroups.as_ref()?.list_whole_pods() {
            Ok(uids) => Some(uids.into_iter().map(PodUid::from).collect()),
            Err(e) => {
                let err = chain(&e);
                tracing::debug!(err, "listing the pods' cgroups failed, the next relist tries again");
                None
            }
        }
    }

    /// Makes a pod's cgroup with its values.
    ///
    /// # Errors
    /// The operation and the file it failed on.
    pub fn ensure_cgroup(&self, wanted: &PodCgroup) -> Result<(), String> {
        let Some(tree) = &self.cgroups else { return Ok(()) };
        let values = cgroup::Values {
            cpu_shares: Some(wanted.cpu_shares),
            cpu_quota_us: if self.allocation.is_quota_lifted(&wanted.uid) { Some(-1) } else { wanted.cpu_quota_us },
            cpu_period_us: Some(wanted.cpu_period_us),
            memory_limit_bytes: wanted.memory_limit_bytes,
            pids_max: wanted.pids_max,
            hugetlb: wanted.hugetlb.clone(),
            ..cgroup::Values::default()
        };
        tree.ensure(&wanted.path, &values).map_err(|e| {
            format!(
                "failed to ensure that the pod: {} cgroups exist and are correctly applied: {}",
                wanted.uid,
                chain(&e)
            )
        })
    }

    /// Removes a pod's cgroup, at whatever level it is.
    ///
    /// # Errors
    /// The operation and the file it failed on.
    pub fn remove_pod_cgroup(&self, uid: &PodUid) -> Result<(), String> {
        let Some(tree) = &self.cgroups else { return Ok(()) };
        for level in LEVELS {
            let path = format!("{level}/pod{uid}");
            if !tree.has_traces(&path) {
                continue;
            }
            tree.remove(&path).map_err(|e| chain(&e))?;
            if tree.has_traces(&path) {
                return Err(format!("remove cgroup {path}: it came back"));
            }
        }
        Ok(())
    }

    /// Gives the burstable level its CPU shares.
    ///
    /// # Errors
    /// The operation and the file it failed on.
    pub fn set_burstable_shares(&self, cpu_shares: u64) -> Result<(), String> {
        let Some(tree) = &self.cgroups else { return Ok(()) };
        let values = cgroup::Values { cpu_shares: Some(cpu_shares), ..cgroup::Values::default() };
        tree.ensure(level(QosClass::Burstable), &values).map_err(|e| chain(&e))
    }
}
