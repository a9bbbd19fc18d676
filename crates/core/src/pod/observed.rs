//! What the runtime showed of one pod. `rubelet-cri` values become these in one place, in the agent's observer.

use std::net::IpAddr;

use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;

use crate::now::Wall;

/// A complete look at one pod in the runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Newest first (by attempt, then by creation).
    pub sandboxes: Vec<ObservedSandbox>,
    /// Newest first per name (by creation).
    pub containers: Vec<ObservedContainer>,
    /// Whether the pod's own cgroup exists; `None` when pods have none of their own.
    pub has_cgroup: Option<bool>,
}

/// One pod sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedSandbox {
    pub id: SandboxId,
    pub attempt: u32,
    /// `SANDBOX_READY`.
    pub is_ready: bool,
    pub created_at: Wall,
    /// Primary address first; empty in the host's network.
    pub ips: Vec<IpAddr>,
    /// Network namespace mode is NODE.
    pub is_host_network: bool,
}

/// One container instance, living or dead.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    pub id: ContainerId,
    pub name: ContainerName,
    pub sandbox: SandboxId,
    /// From the annotation `io.kubernetes.container.restartCount` (else CRI metadata's attempt).
    pub restart_count: u32,
    /// From the annotation `io.kubernetes.container.hash`.
    pub hash: Option<u32>,
    pub created_at: Wall,
    pub state: ContainerState,
    /// `status.image.image`, e.g. `docker.io/library/nginx:latest`.
    pub image: String,
    /// `status.image_ref`: what the API shows as `imageID`.
    pub image_ref: String,
    /// User as the runtime reports it.
    pub user: Option<v1::ContainerUser>,
    /// Resources as the runtime reports them (linux).
    pub resources: Option<ObservedResources>,
    /// `stop_signal` as CRI's enum name (`SIGTERM`), when reported.
    pub stop_signal: Option<String>,
    /// Mounts with their recursive-read-only answer: (container path, recursive read-only).
    pub recursive_read_only: Vec<(String, bool)>,
}

/// The part of CRI's linux container resources that status shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedResources {
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    pub memory_limit_bytes: i64,
}

/// A container's state with the data that only exist in that state.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    Created,
    Running {
        started_at: Wall,
    },
    Exited {
        /// `None` when the container never started.
        started_at: Option<Wall>,
        finished_at: Wall,
        code: i32,
        /// The runtime's reason, verbatim (`Completed`, `Error`, `OOMKilled`, `StartError` …).
        reason: String,
        /// Termination message (file, or log tail by policy), already cut to 4096 bytes; else the runtime's message.
        message: String,
    },
    /// The runtime does not know.
    Unknown,
}

impl ContainerState {
    /// Whether the container's process lives, as far as is known.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}
