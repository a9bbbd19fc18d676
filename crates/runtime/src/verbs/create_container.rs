//! Making a container: its file system and its bundle. Nothing runs yet.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubelet_api::ids::ContainerId;
use rubelet_host::cgroup::Driver;
use rubelet_proto::cri::{self, ContainerEventType, NamespaceMode};
use rubelet_shim::setup::{Setup, write_bundle};

use super::{Doing, Refusal, new_id, now_nanos};
use crate::embedded::Engine;
use crate::pods::record::{ContainerRecord, SandboxRecord};
use crate::pods::{Container, Life, SandboxLife, container_name};
use crate::snapshot::rootfs::{RootFs, RootFsError, Users};
use crate::{spec, sweep};

pub(crate) async fn create_container(
    engine: &Arc<Engine>,
    sandbox_id: &str,
    config: cri::ContainerConfig,
) -> Result<ContainerId, Refusal> {
    let sandbox = engine.pods().sandbox(sandbox_id).ok_or_else(|| Refusal::no_sandbox(sandbox_id))?;
    let metadata = config.metadata.clone().ok_or_else(|| Refusal::invalid("container config must include metadata"))?;
    let SandboxLife::Ready { pid } = sandbox.life() else {
        return Err(Refusal::unknown(format!("sandbox {:?} is not running", sandbox.id.as_str())));
    };
    let id = new_id().doing("make an id")?;
    let sandbox_record = sandbox.record().clone();
    let name = container_name(&metadata, &sandbox_record.metadata());
    engine.pods().reserve(&name, &id).map_err(|holder| {
        let reserved = format!("name {name:?} is reserved for {holder:?}");
        Refusal::unknown(format!("failed to reserve container name {name:?}: {reserved}"))
    })?;
    let work = Work { id: id.clone(), config, sandbox: sandbox_record, pause_pid: pid };
    match engine.blocking(move |engine| make(engine, work)).await {
        Ok(container) => {
            engine.pods().add_container(container.clone());
            engine.tell(container.id.as_str(), ContainerEventType::ContainerCreatedEvent, &container.sandbox);
            Ok(container.id.clone())
        }
        Err(refusal) => {
            let swept = id.clone();
            if let Err(left) = engine.blocking(move |engine| sweep::container(engine, &swept)).await {
                tracing::warn!(container = id, err = %left.message, "a container that could not be made is not cleaned up wholly");
            }
            engine.pods().free_name_of(&id);
            Err(refusal)
        }
    }
}

struct Work {
    id: String,
    config: cri::ContainerConfig,
    sandbox: SandboxRecord,
    /// Whose namespaces the container joins.
    pause_pid: u32,
}

/// Makes everything, in the order in which [`sweep::container`] can take it back at any point.
fn make(engine: &Arc<Engine>, mut work: Work) -> Result<Arc<Container>, Refusal> {
    let id = work.id.clone();
    let dir = engine.places.container(&id);
    fs::DirBuilder::new().mode(0o711).create(&dir).doing("create the container's directory")?;
    engine.reached("create.directory");
    let wanted = work.config.image.as_ref().map(|i| i.image.as_str()).unwrap_or_default();
    let image = engine.images.status(wanted);
    let image_id = image.map(|i| i.id).ok_or_else(|| {
        Refusal::new(rubelet_cri::Code::NotFound, format!("failed to resolve image {wanted:?}: not found"))
    })?;
    let image = engine.images.config_now(&image_id)?;
    let rootfs = engine.places.rootfs(&id);
    fs::create_dir(&rootfs).doing("create the container's root")?;
    let file_system = engine.images.prepare_now(&id, &image_id)?;
    attach(&file_system, &rootfs, &work).doing("failed to mount the container's file system")?;
    engine.reached("create.mounted");
    mount_images(engine, &id, &dir, &mut work.config.mounts)?;
    engine.reached("create.images");
    let mut built = build(engine, &work, &image, &rootfs)?;
    let Work { config, sandbox, .. } = work;
    let handler = engine.handlers.find(&sandbox.runtime_handler).ok_or_else(|| {
        Refusal::unknown(format!("no runtime for {:?} is configured any more", sandbox.runtime_handler))
    })?;
    let cgroups = engine.plan_cgroup(&dir, &sandbox.cgroup_parent(), &id)?;
    let log_path = log_path(&sandbox, &config)?;
    if handler.program.is_some() {
        built.spec.linux.cgroups_path = engine.oci_cgroup(&dir);
        // crun 1.8 takes no other; nothing newer is said.
        "1.0.2".clone_into(&mut built.spec.oci_version);
    }
    let setup = Setup {
        runtime: handler.program.clone(),
        has_systemd_scope: engine.cgroup_driver == Driver::Systemd,
        id: id.clone(),
        log_path: log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        cgroups,
        // Its layers are mapped already.
        id_mapped_root: false,
        ..built.setup
    };
    write_bundle(&dir, &built.spec, &setup).doing("write the container's bundle")?;
    engine.reached("create.bundle");
    let record = ContainerRecord {
        id: id.clone(),
        sandbox: sandbox.id.clone(),
        has_pid_namespace: pid_mode(&config) == NamespaceMode::Container,
        config: Some(cri::ContainerConfig { envs: Vec::new(), ..config }),
        created_at_nanos: now_nanos(),
        boot_id: engine.boot_id.clone(),
        image_id,
        user: Some(built.user),
        stop_signal: built.stop_signal,
        end: None,
        log_path: log_path.map(|p| p.display().to_string()).unwrap_or_default(),
    };
    engine.container_records.write(&id, &record).doing("record the container")?;
    engine.reached("create.recorded");
    Ok(Container::new(ContainerId::new(&id), record, Life::Created))
}

/// Mounts a container's file system; to the users of a pod that has its own, with these as the owners.
fn attach(file_system: &RootFs, target: &Path, work: &Work) -> Result<(), AttachError> {
    let Some(users) = spec::user_namespace(&work.sandbox.config())? else { return Ok(file_system.attach(target)?) };
    let namespace = fs::File::open(format!("/proc/{}/ns/user", work.pause_pid))?;
    let first = |maps: &[cri::IdMapping]| maps.first().map_or(0, |map| map.host_id);
    let users = Users { namespace: &namespace, first_uid: first(&users.uids), first_gid: first(&users.gids) };
    Ok(file_system.attach_mapped(target, &users, &target.with_file_name("layers"))?)
}

#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error("open the pod's user namespace")]
    Namespace(#[from] std::io::Error),
}

/// Mounts the images that are volumes of the container: from then on they are directories of the host. Which image it was is noted, for the
/// container's status.
fn mount_images(engine: &Engine, id: &str, dir: &Path, mounts: &mut [cri::Mount]) -> Result<(), Refusal> {
    for (at, mount) in mounts.iter_mut().enumerate() {
        let Some(image) = mount.image.as_ref().map(|i| i.image.clone()).filter(|image| !image.is_empty()) else {
            continue;
        };
        let said = || format!("failed to mount image {image:?} at {:?}", mount.container_path);
        if !mount.readonly {
            return Err(Refusal::invalid(format!("{}: it must be read-only", said())));
        }
        let Some(known) = engine.images.status(&image) else {
            return Err(Refusal::new(rubelet_cri::Code::NotFound, format!("{}: image not found", said())));
        };
        let target = dir.join(format!("image{at}"));
        fs::create_dir(&target).doing(said())?;
        engine.images.view_now(&sweep::view_name(id, at), &image)?.attach(&target).doing(said())?;
        spec::image_part(&target, &mount.image_sub_path, &image).doing("failed to create the container")?;
        if let Some(image) = &mut mount.image {
            image.image_ref = known.id;
        }
        mount.host_path = target.display().to_string();
    }
    Ok(())
}

fn pid_mode(config: &cri::ContainerConfig) -> NamespaceMode {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.as_ref()).map_or(NamespaceMode::Pod, cri::NamespaceOption::pid)
}

fn build(
    engine: &Arc<Engine>,
    work: &Work,
    image: &crate::image::document::Config,
    rootfs: &Path,
) -> Result<spec::Built, Refusal> {
    let Work { id, config, sandbox, pause_pid } = work;
    let pod = sandbox.config();
    let target = config
        .linux
        .as_ref()
        .and_then(|l| l.security_context.as_ref())
        .and_then(|s| s.namespace_options.as_ref())
        .filter(|n| n.pid() == NamespaceMode::Target)
        .map(|n| target_pid(engine, &n.target_id))
        .transpose()?;
    let around = spec::Surroundings {
        config: &pod,
        netns: (!sandbox.netns.is_empty()).then(|| Path::new(&sandbox.netns)),
        pause_pid: *pause_pid,
        target_pid: target,
        shm: &engine.places.shm(&sandbox.id),
        resolv_conf: &engine.places.resolv_conf(&sandbox.id),
        hostname: &engine.places.hostname(&sandbox.id),
        hosts: &engine.places.hosts(&sandbox.id),
        volumes: &engine.places.volumes(id),
        host: &engine.host,
    };
    spec::container_spec(id, config, &around, image, rootfs).doing(format!("failed to generate container {id:?} spec"))
}

/// The first process of the container whose processes another one may see.
fn target_pid(engine: &Engine, id: &str) -> Result<u32, Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    match container.life() {
        Life::Running { pid, .. } => Ok(pid),
        Life::Created | Life::Ended(_) => {
            Err(Refusal::unknown(format!("invalid target container {id:?}: it is not running")))
        }
    }
}

/// The log's place: below the pod's log directory. Without one there is no log.
fn log_path(sandbox: &SandboxRecord, config: &cri::ContainerConfig) -> Result<Option<PathBuf>, Refusal> {
    let dir = sandbox.config.as_ref().map(|c| c.log_directory.as_str()).unwrap_or_default();
    if dir.is_empty() || config.log_path.is_empty() {
        return Ok(None);
    }
    let below = Path::new(&config.log_path);
    let is_below = below.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !is_below {
        return Err(Refusal::invalid(format!("log path {:?} leaves the pod's log directory", config.log_path)));
    }
    Ok(Some(Path::new(dir).join(below)))
}
