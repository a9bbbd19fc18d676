//! The embedded runtime as a whole: what it stands on, and how it starts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rubelet_host::cgroup::{CgroupError, Driver, Tree, Values, Version};
use rubelet_host::chain;
use rubelet_network::Network;
use rubelet_proto::cri;
use rubelet_shim::{Program, ShimError};
use tokio::sync::broadcast;

use crate::handlers::{Creator, HandlerError, Handlers};
use crate::image::{self, ImageError, Images};
use crate::places::Places;
use crate::pods::Pods;
use crate::pods::record::Records;
use crate::spec::HostFacts;
use crate::verbs::Refusal;
use crate::{recover, streams};

const LOCK: &str = "lock";
/// Events that a slow listener may be behind by before it misses some.
const EVENTS_MAX: usize = 1024;

/// The points at which a killed agent leaves something half done: what [`Options::fault`] is called with.
/// Those of CNI plugins are not among them: a pod has either them or the bridge.
pub const FAULT_POINTS: [&str; 76] = [
    "attach.attached",
    "attach.booked",
    "attach.connected",
    "attach.laid",
    "attach.ports",
    "collect.blob",
    "collect.layer",
    "create.bundle",
    "create.directory",
    "create.images",
    "create.mounted",
    "create.recorded",
    "detach.booked",
    "detach.cut",
    "detach.ports",
    "down.doors",
    "down.rules",
    "end.recorded",
    "end.seen",
    "exec.ended",
    "exec.found",
    "exec.started",
    "forward.connected",
    "image.recorded",
    "import.documents",
    "import.published",
    "import.read",
    "import.unpacked",
    "lay.bridge",
    "namespace.adopted",
    "namespace.made",
    "pull.arrived",
    "pull.described",
    "pull.forgotten",
    "pull.published",
    "pull.unpacked",
    "pull.written",
    "record.written",
    "remove-container.stopped",
    "remove-pod.containers",
    "remove-pod.stopped",
    "remove.unrecorded",
    "reopen.found",
    "reopen.reopened",
    "run.cgroup",
    "run.created",
    "run.directory",
    "run.files",
    "run.netns",
    "run.network",
    "run.recorded",
    "run.started",
    "start.cgroup",
    "start.created",
    "start.started",
    "stop-pod.containers",
    "stop-pod.recorded",
    "stop-pod.swept",
    "stop.asked",
    "stop.killed",
    "sweep.container-cgroup",
    "sweep.container-directory",
    "sweep.container-ended",
    "sweep.container-released",
    "sweep.container-unmounted",
    "sweep.container-unrecorded",
    "sweep.detached",
    "sweep.ended",
    "sweep.namespace",
    "sweep.sandbox-directory",
    "sweep.sandbox-stopped",
    "sweep.sandbox-unrecorded",
    "sweep.unmounted",
    "update-container.changed",
    "update-container.recorded",
    "update-pod.recorded",
];

/// Where programs are on most machines.
const PROGRAM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where shims live: not in the agent's cgroup, which a service manager may end as a whole.
const SHIMS_CGROUP: &str = "rubelet-shims";

/// How an embedded runtime works.
pub struct Options {
    /// What outlives a boot: images, records, addresses. `/var/lib/rubelet`.
    pub root: PathBuf,
    /// What does not: bundles, mounts, namespaces. `/run/rubelet`; on a tmpfs, as environment variables are in it.
    pub run: PathBuf,
    pub images: image::Options,
    /// Archives in this directory are imported at the start and pinned.
    pub import_dir: Option<PathBuf>,
    pub network: rubelet_network::Options,
    /// Who names cgroups: what `RuntimeConfig` answers.
    pub cgroup_driver: Driver,
    /// What creates the containers of pods that name no runtime handler.
    pub creator: Creator,
    /// What creates those of pods that name one.
    pub handlers: BTreeMap<String, Creator>,
    /// Directories, with `:` between, in which OCI runtimes are that are given by name.
    pub program_path: String,
    /// Called with the name of each point at which an agent that is killed leaves something half done. For tests.
    pub fault: Option<fn(&'static str)>,
    /// Instead of the kernel's id of this boot. For tests.
    pub boot_id: Option<String>,
}

impl Options {
    /// Below two directories, with the machine's usual places for the rest.
    pub fn at(root: &Path, run: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: run.to_owned(),
            images: image::Options::default(),
            import_dir: None,
            network: rubelet_network::Options::at(&root.join("network"), &run.join("netns")),
            cgroup_driver: Driver::Cgroupfs,
            creator: Creator::default(),
            handlers: BTreeMap::new(),
            program_path: PROGRAM_PATH.to_owned(),
            fault: None,
            boot_id: None,
        }
    }
}

/// Why the embedded runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("prepare {path}")]
    Directory { path: PathBuf, source: io::Error },
    /// With the other's pid, if it told it.
    #[error("another process{} runs pods from {path}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("open the image store")]
    Images(#[from] ImageError),
    #[error("set up runtime handlers")]
    Handlers(#[from] HandlerError),
    #[error("look at the cgroups")]
    Cgroups(#[from] CgroupError),
    #[error("prepare the pods' network")]
    Network(#[source] rubelet_network::NetworkError),
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error(transparent)]
    Streams(#[from] rubelet_streaming::server::ListenError),
    #[error("find out which boot this is: {0}")]
    Boot(String),
    #[error("clean up after an earlier run: {0}")]
    Recover(String),
}

/// The embedded runtime. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Embedded {
    pub(crate) engine: Arc<Engine>,
}

/// What verbs work with.
pub(crate) struct Engine {
    pub(crate) places: Places,
    pub(crate) images: Images,
    pub(crate) network: Network,
    pub(crate) program: Program,
    /// Cgroups by their names in the file system.
    pub(crate) cgroups: Tree,
    pub(crate) cgroup_driver: Driver,
    pub(crate) handlers: Handlers,
    pub(crate) sandbox_records: Records,
    pub(crate) container_records: Records,
    pub(crate) boot_id: String,
    pub(crate) news: broadcast::Sender<cri::ContainerEventResponse>,
    pub(crate) host: HostFacts,
    /// Set once: its server knows the engine.
    pub(crate) streams: OnceLock<rubelet_streaming::Server>,
    pods: Mutex<Pods>,
    fault: Option<fn(&'static str)>,
    _lock: fs::File,
}

impl Embedded {
    /// Opens or makes everything, finds again what an earlier process has left running, and cleans up what it left unfinished.
    ///
    /// # Errors
    /// [`StartError`]; pods that run are not touched then.
    pub async fn start(mut options: Options) -> Result<Self, StartError> {
        options.images.fault = options.images.fault.or(options.fault);
        options.network.fault = options.network.fault.or(options.fault);
        let import_dir = options.import_dir.clone();
        let engine = rubelet_host::task::blocking(move || Engine::open(options))
            .await
            .map_err(|e| StartError::Recover(e.to_string()))??;
        let engine = Arc::new(engine);
        recover::recover(&engine).await.map_err(StartError::Recover)?;
        recover::check_networks(&engine);
        let _ = engine.streams.set(streams::serve(&engine).await?);
        if let Some(dir) = import_dir {
            import(&engine, dir).await;
        }
        engine.images.tidy_later();
        Ok(Self { engine })
    }

    /// The images of this runtime.
    pub fn images(&self) -> &Images {
        &self.engine.images
    }
}

/// The lock of a directory, with our pid in it; `None`: another process has it.
fn lock(run: &Path) -> io::Result<Option<fs::File>> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = run.join(LOCK);
    let mut lock = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    lock.set_len(0)?;
    lock.write_all(std::process::id().to_string().as_bytes())?;
    Ok(Some(lock))
}

/// Who wrote the pid into the lock.
fn holder(run: &Path) -> Option<u32> {
    fs::read_to_string(run.join(LOCK)).ok()?.trim().parse().ok()
}

/// What is in the directory; an archive that is no image harms nobody.
async fn import(engine: &Arc<Engine>, dir: PathBuf) {
    let done = engine.blocking(move |engine| Ok(engine.images.import_dir(&dir))).await;
    match done {
        Ok(Ok((images, failures))) => {
            tracing::info!(images = images.len(), "imported the archives of images");
            for error in failures {
                tracing::warn!(err = %chain(&error), "an archive of images could not be imported");
            }
        }
        Ok(Err(error)) => tracing::warn!(err = %chain(&error), "archives of images could not be imported"),
        Err(refusal) => tracing::warn!(err = %refusal.message, "archives of images could not be imported"),
    }
}

impl Engine {
    fn open(options: Options) -> Result<Self, StartError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Directory { path, source }
        };
        for dir in [&options.root, &options.run] {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed(dir))?;
        }
        let places = Places::new(&options.run, &options.root).map_err(failed(&options.run))?;
        let lock = lock(&options.run).map_err(failed(&options.run))?;
        let lock = lock.ok_or_else(|| StartError::Locked { path: options.run.clone(), pid: holder(&options.run) })?;
        let records = |kind: &str| {
            let dir = options.root.join("records").join(kind);
            Records::open(dir.clone(), options.fault).map_err(failed(&dir))
        };
        let cgroups = Tree::detect(Driver::Cgroupfs, "/")?;
        cgroups.ensure(SHIMS_CGROUP, &Values::default())?;
        let host = HostFacts::look(cgroups.version() == Version::V2);
        let shims = cgroups.dirs(SHIMS_CGROUP)?.into_iter().map(|(_, dir)| dir).collect();
        Ok(Self {
            sandbox_records: records("sandboxes")?,
            container_records: records("containers")?,
            places,
            images: Images::open(&options.root.join("images"), options.images)?,
            network: Network::open(options.network).map_err(StartError::Network)?,
            program: Program::this()?.in_cgroups(shims),
            cgroups,
            cgroup_driver: options.cgroup_driver,
            handlers: Handlers::open(&options.creator, &options.handlers, &options.program_path)?,
            boot_id: match options.boot_id {
                Some(id) => id,
                None => rubelet_host::proc::boot_id().map_err(|e| StartError::Boot(chain(&e)))?,
            },
            news: broadcast::channel(EVENTS_MAX).0,
            host,
            streams: OnceLock::new(),
            pods: Mutex::default(),
            fault: options.fault,
            _lock: lock,
        })
    }

    pub(crate) fn pods(&self) -> MutexGuard<'_, Pods> {
        // Only whole changes are made while it is held.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A point at which a kill leaves something half done.
    pub(crate) fn reached(&self, point: &'static str) {
        if let Some(fault) = self.fault {
            fault(point);
        }
    }

    /// Runs blocking work where it may block. It goes on to its end also when nobody waits for it any more.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let engine = self.clone();
        rubelet_host::task::blocking(move || work(&engine)).await.map_err(|e| Refusal::internal(e.to_string()))?
    }
}

impl Engine {
    /// Sets the subnets of the built-in network: CIDRs with commas between.
    pub(crate) fn set_pod_cidr(&self, cidrs: &str) -> Result<(), Refusal> {
        let parse = |text: &str| text.parse::<rubelet_network::Subnet>();
        let subnets: Result<Vec<_>, _> = cidrs.split(',').filter(|text| !text.is_empty()).map(parse).collect();
        self.network.set_subnets(subnets.map_err(|e| Refusal::invalid(chain(&e)))?);
        Ok(())
    }

    /// What somebody who looks for the cause of something wants to know.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let driver = match self.cgroup_driver {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        };
        serde_json::json!({
            "root": self.images.root().parent(),
            "network": self.network.kind(),
            "cgroupDriver": driver,
            "hasAppArmor": self.host.has_apparmor,
        })
    }
}
