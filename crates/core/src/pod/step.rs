//! What the world can be asked to do for one pod, as data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, ContainerName, PodUid, SandboxId};
use rubelet_api::v1;
use rubelet_proto::cri;

use crate::resources::claims::Wish;

/// One effect. Carries all that the hand needs; a hand decides nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the pod's cgroup (and its QoS parents) with these values.
    EnsureCgroup(PodCgroup),
    /// Make the pod's directories.
    PrepareDirs,
    /// Mount one volume of the pod, or bring its files up to date (idempotent).
    Mount(Box<VolumePlan>),
    /// Have the driver of a mounted volume take its new size.
    Expand(Box<VolumePlan>),
    /// Have drivers prepare the pod's resource claims, before this attempt at a sandbox (idempotent).
    PrepareClaims {
        attempt: u32,
        wishes: Vec<Wish>,
    },
    /// Have drivers take back what only this pod uses of resource claims.
    ReleaseClaims,
    /// Make the log directory and run a sandbox.
    CreateSandbox {
        attempt: u32,
        runtime_handler: String,
        config: Box<cri::PodSandboxConfig>,
    },
    /// See that the image is there, by the container's pull policy.
    EnsureImage {
        container: ContainerName,
        wish: ImageWish,
    },
    /// Create a container; write its files first.
    CreateContainer(Box<CreateContainer>),
    /// Start a created container and link its log as `/var/log/containers/…`.
    StartContainer {
        container: ContainerName,
        id: ContainerId,
        log: LogLink,
    },
    /// Run a lifecycle hook to its end.
    RunHook {
        container: ContainerName,
        id: ContainerId,
        kind: HookKind,
        handler: v1::LifecycleHandler,
    },
    /// Probe once.
    Probe(Box<ProbeStep>),
    /// Ask the runtime to stop a container: its stop signal, then SIGKILL after `grace_secs`.
    StopContainer {
        container: ContainerName,
        id: ContainerId,
        grace_secs: i64,
    },
    /// Remove a dead container; its log file and link too unless `keep_logs`.
    RemoveContainer {
        container: ContainerName,
        id: ContainerId,
        keep_logs: bool,
    },
    StopSandbox {
        id: SandboxId,
    },
    RemoveSandbox {
        id: SandboxId,
    },
    /// Tell the runtime, then the pod's cgroup, of one part of the pod's new size.
    ResizePod(Box<ResizePod>),
    /// Tell a running container of one part of its new size.
    ResizeContainer(Box<ResizeContainer>),
    /// Unmount all volumes and subpaths and remove emptyDirs.
    Unmount,
    RemoveCgroup,
    /// Remove the pod's directory; its logs too.
    RemoveDirs,
    /// End a running step: its future is dropped.
    Cancel(StepKey),
}

/// Identity of a step within its pod. A step in flight is not issued twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StepKey {
    EnsureCgroup,
    PrepareDirs,
    /// By the volume's name in the pod.
    Mount(String),
    /// By the volume's name in the pod.
    Expand(String),
    /// By the attempt at a sandbox.
    PrepareClaims(u32),
    ReleaseClaims,
    CreateSandbox(u32),
    EnsureImage(ContainerName),
    CreateContainer(ContainerName, u32),
    StartContainer(ContainerId),
    RunHook(ContainerId, HookKind),
    Probe(ContainerId, ProbeKind),
    StopContainer(ContainerId),
    RemoveContainer(ContainerId),
    StopSandbox(SandboxId),
    RemoveSandbox(SandboxId),
    /// Which part, and to what.
    ResizePod(PodPart, i64),
    /// Which measure, and to which request and limit.
    ResizeContainer(ContainerId, Measure, i64, i64),
    Unmount,
    RemoveCgroup,
    RemoveDirs,
}

impl Step {
    /// The step's identity; a `Cancel` has none of its own, it names another's.
    pub fn key(&self) -> StepKey {
        match self {
            Self::EnsureCgroup(_) => StepKey::EnsureCgroup,
            Self::PrepareDirs => StepKey::PrepareDirs,
            Self::Mount(plan) => StepKey::Mount(plan.volume.clone()),
            Self::Expand(plan) => StepKey::Expand(plan.volume.clone()),
            Self::PrepareClaims { attempt, .. } => StepKey::PrepareClaims(*attempt),
            Self::ReleaseClaims => StepKey::ReleaseClaims,
            Self::CreateSandbox { attempt, .. } => StepKey::CreateSandbox(*attempt),
            Self::EnsureImage { container, .. } => StepKey::EnsureImage(container.clone()),
            Self::CreateContainer(c) => StepKey::CreateContainer(c.container.clone(), c.restart_count),
            Self::StartContainer { id, .. } => StepKey::StartContainer(id.clone()),
            Self::RunHook { id, kind, .. } => StepKey::RunHook(id.clone(), *kind),
            Self::Probe(p) => StepKey::Probe(p.id.clone(), p.kind),
            Self::StopContainer { id, .. } => StepKey::StopContainer(id.clone()),
            Self::RemoveContainer { id, .. } => StepKey::RemoveContainer(id.clone()),
            Self::StopSandbox { id } => StepKey::StopSandbox(id.clone()),
            Self::RemoveSandbox { id } => StepKey::RemoveSandbox(id.clone()),
            Self::ResizePod(r) => StepKey::ResizePod(r.part, r.to),
            Self::ResizeContainer(r) => StepKey::ResizeContainer(r.id.clone(), r.measure, r.request, r.limit),
            Self::Unmount => StepKey::Unmount,
            Self::RemoveCgroup => StepKey::RemoveCgroup,
            Self::RemoveDirs => StepKey::RemoveDirs,
            Self::Cancel(key) => key.clone(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HookKind {
    PostStart,
    PreStop,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

/// The three levels of `kubepods`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A pod's cgroup and its values, in cgroup v1 units; the hand converts for v2.
#[derive(Clone, Debug, PartialEq)]
pub struct PodCgroup {
    pub uid: PodUid,
    pub qos: QosClass,
    /// Path in cgroupfs form below the cgroup root, e.g. `kubepods/burstable/pod<uid>`; the hand knows systemd's names.
    pub path: String,
    pub cpu_shares: u64,
    /// `None`: no quota is written (−1).
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: u64,
    pub memory_limit_bytes: Option<i64>,
    /// −1 or absent: no limit.
    pub pids_max: Option<i64>,
    /// (page size in bytes, limit in bytes).
    pub hugetlb: Vec<(u64, i64)>,
}

/// What of a running container's size can change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Measure {
    Cpu,
    Memory,
}

/// What of a running pod's cgroup can change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PodPart {
    MemoryLimit,
    CpuLimit,
    CpuRequest,
}

impl PodPart {
    /// The resource's name in the API.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryLimit => "memory",
            Self::CpuLimit | Self::CpuRequest => "cpu",
        }
    }
}

/// One change of a pod's cgroup. Values are as in [`PodCgroup`]; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizePod {
    pub part: PodPart,
    /// Thousandths of a CPU or bytes.
    pub to: i64,
    /// Path in cgroupfs form below the cgroup root.
    pub path: String,
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    /// Refused unless the pod uses less memory than this, in bytes.
    pub usage_below: Option<i64>,
    /// What the runtime is told before; one that does not know the call is not asked again.
    pub request: cri::UpdatePodSandboxResourcesRequest,
}

/// One change of a running container's resources.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeContainer {
    pub container: ContainerName,
    pub id: ContainerId,
    pub measure: Measure,
    /// Thousandths of a CPU or bytes.
    pub request: i64,
    pub limit: i64,
    pub resources: cri::LinuxContainerResources,
    /// Refused unless the container uses less memory than this, in bytes.
    pub usage_below: Option<i64>,
}

/// One volume to mount below the pod's directory.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePlan {
    /// Its name in the pod.
    pub volume: String,
    /// Its name in messages and directories: a PersistentVolume's own, else that in the pod.
    pub name: String,
    /// What containers mount: for a hostPath the path itself, else `<pod dir>/volumes/<plugin>/<name>`.
    pub path: PathBuf,
    pub kind: VolumeKind,
    /// Group that owns the volume (`securityContext.fsGroup`), for kinds that take it.
    pub fs_group: Option<i64>,
    /// `fsGroupChangePolicy: OnRootMismatch`.
    pub fs_group_on_root_mismatch: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum VolumeKind {
    /// Directory 0777 on the node's disk.
    EmptyDir,
    /// The same, counted by the file system itself where it can.
    CountedDir,
    /// tmpfs of this size (bytes); `None`: the kernel's default.
    MemoryDir { size_bytes: Option<i64> },
    /// hugetlbfs with this page size in bytes.
    HugePages { page_size_bytes: u64 },
    /// The host's own path with the API's type (`""`, `DirectoryOrCreate`, …).
    HostPath { type_: String },
    /// A directory of the node that is bound to the volume's path.
    Local { source: PathBuf, is_read_only: bool },
    /// Files written atomically: a configMap's on the node's disk, all others on a tmpfs.
    Files { plugin: FilesPlugin, files: Vec<VolumeFile>, default_mode: u32 },
    /// A file system of another machine, mounted by the host's `mount`.
    Nfs { source: String, options: Vec<String> },
    /// An image, which the runtime mounts.
    Image,
    /// A device of the node.
    Device { source: PathBuf, map: DeviceMap },
    /// A volume of a CSI driver.
    Csi(Box<CsiVolume>),
    /// What it stands for is not known, or not usable: mounting fails with this message.
    Unprocessed { message: String },
    /// The kind is known and not built (or refused): mounting fails with this message.
    Refused { message: String },
}

/// Where a block device is held for its pod; the plan's path is a link to it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMap {
    /// Folder of the volume, with one file for each pod: the device is bound to it.
    pub global: PathBuf,
    /// The pod's file in it.
    pub pod: String,
}

/// A volume whose file system is smaller than its claim.
#[derive(Clone, PartialEq)]
pub struct Expansion {
    pub claim: crate::pod::needs::ObjectName,
    /// As the API writes it.
    pub size: String,
    pub bytes: i64,
    pub secrets: BTreeMap<String, String>,
}

/// All that a CSI driver is told of a volume, and where it shall be.
#[derive(Clone, PartialEq)]
pub struct CsiVolume {
    pub driver: String,
    /// The driver's name for the volume.
    pub handle: String,
    pub node: String,
    pub attributes: BTreeMap<String, String>,
    /// From the attachment; empty where nothing was attached.
    pub publish_context: BTreeMap<String, String>,
    pub fs_type: String,
    pub mount_flags: Vec<String>,
    /// As in the API: `ReadWriteOnce`, …
    pub access_mode: String,
    pub is_read_only: bool,
    pub stage_secrets: BTreeMap<String, String>,
    pub publish_secrets: BTreeMap<String, String>,
    /// Made for this pod and gone with it; nothing is staged.
    pub is_ephemeral: bool,
    /// Name of the VolumeAttachment, whether there is one or not.
    pub attachment: String,
    /// Where it is staged for all pods of the node; its record lies beside.
    pub staging: PathBuf,
    /// `fsGroup`, for drivers that apply it themselves.
    pub mount_group: Option<i64>,
    /// It is a block device.
    pub device: Option<CsiDevice>,
    /// The cluster attached it to the node.
    pub is_attached: bool,
    /// One pod may have it at a time.
    pub is_exclusive: bool,
    /// It is published already, and its driver hears of it again.
    pub is_again: bool,
    /// It is to grow.
    pub expansion: Option<Expansion>,
}

/// Where the block device of a driver is.
#[derive(Clone, Debug, PartialEq)]
pub struct CsiDevice {
    pub map: DeviceMap,
    /// Where the driver puts it for the pod.
    pub publish: PathBuf,
    /// Folder of its record.
    pub record: PathBuf,
}

/// Secrets are not shown, and attributes may hold tokens.
impl std::fmt::Debug for CsiVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { driver, handle, staging, .. } = self;
        f.debug_struct("CsiVolume")
            .field("driver", driver)
            .field("handle", handle)
            .field("staging", staging)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilesPlugin {
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

/// One file of a written volume.
#[derive(Clone, PartialEq)]
pub struct VolumeFile {
    /// Relative path without `..`.
    pub path: String,
    pub content: Vec<u8>,
    pub mode: u32,
    /// User that the file belongs to; root when there is none.
    pub owner: Option<i64>,
}

/// The content may be secret and is not shown.
impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, content, mode, owner } = self;
        write!(f, "{path} ({} bytes, {mode:o}, {owner:?})", content.len())
    }
}

/// Which image a container wants.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageWish {
    /// As written in the pod.
    pub image: String,
    pub policy: PullPolicy,
    pub runtime_handler: String,
    /// The sandbox configuration that goes with `PullImage`.
    pub sandbox: Box<cri::PodSandboxConfig>,
    /// The pod's `imagePullSecrets`, as far as they could be had.
    pub pull_secrets: Vec<PullSecret>,
    /// Images that the container has mounted; they are seen to first.
    pub volumes: Vec<ImageVolume>,
}

/// An image that is a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageVolume {
    /// Its name in the pod.
    pub volume: String,
    /// As written in the pod.
    pub image: String,
    pub policy: PullPolicy,
}

/// Logins of registries, in Docker's formats.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub format: PullFormat,
    pub content: Vec<u8>,
}

/// The content is secret and never shown.
impl std::fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullSecret").field("name", &self.name).field("format", &self.format).finish_non_exhaustive()
    }
}

/// Type of a pull secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PullFormat {
    /// `kubernetes.io/dockercfg`: logins by registry.
    DockerCfg,
    /// `kubernetes.io/dockerconfigjson`: the same below `auths`.
    DockerConfigJson,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// All that creating one container takes.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateContainer {
    pub container: ContainerName,
    pub restart_count: u32,
    pub sandbox: SandboxId,
    pub sandbox_config: cri::PodSandboxConfig,
    /// Complete but for subpaths, whose `host_path` is filled in by the hand.
    pub config: cri::ContainerConfig,
    /// Content of the pod's `etc-hosts`, written before; `None` when the pod gets none.
    pub etc_hosts: Option<String>,
    /// Termination log to make (0666) before.
    pub termination_log: PathBuf,
    /// Mounts that need a safe bind mount first.
    pub subpaths: Vec<SubPath>,
    /// hostPath-like directories that must exist for mounts (none created by default).
    pub env_files: Vec<EnvFile>,
}

/// A `fileKeyRef`: the hand reads the key from the file and sets the variable.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvFile {
    pub variable: String,
    pub volume_path: PathBuf,
    pub path: String,
    pub key: String,
    pub is_optional: bool,
}

/// A `subPath` mount: opened without following links out of the volume, bound to `target`.
#[derive(Clone, Debug, PartialEq)]
pub struct SubPath {
    /// Index into `config.mounts` whose `host_path` becomes `target`.
    pub mount: usize,
    pub volume_path: PathBuf,
    pub sub_path: String,
    /// `<pod dir>/volume-subpaths/<volume>/<container>/<index of the volumeMount>`.
    pub target: PathBuf,
    pub read_only: bool,
}

/// `/var/log/containers/<pod>_<ns>_<container>-<id>.log` and where it points.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLink {
    pub link: PathBuf,
    pub target: PathBuf,
}

/// One probe, with everything resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeStep {
    pub container: ContainerName,
    pub id: ContainerId,
    pub kind: ProbeKind,
    pub how: ProbeHow,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProbeHow {
    Exec {
        command: Vec<String>,
    },
    Http {
        scheme_https: bool,
        host: String,
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        host: String,
        port: u16,
        service: String,
    },
    /// It cannot be made (unknown port name, no handler): counts as `Unknown` with this text.
    Invalid {
        message: String,
    },
}
