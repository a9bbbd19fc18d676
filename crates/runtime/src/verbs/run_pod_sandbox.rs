//! Making a sandbox: its namespaces, its network, its pause process.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rubelet_api::ids::SandboxId;
use rubelet_cri::Code;
use rubelet_host::cgroup::Values;
use rubelet_host::mount;
use rubelet_network::{PortMapping, Wanted};
use rubelet_proto::cri::{self, ContainerEventType, NamespaceMode};
use rubelet_shim::Shim;
use rubelet_shim::setup::{Setup, write_bundle};

use super::{Doing, Refusal, new_id, now_nanos};
use crate::embedded::Engine;
use crate::pods::record::SandboxRecord;
use crate::pods::{Sandbox, SandboxLife, sandbox_name};
use crate::{dns, limits, spec, sweep, watch};

/// CPU shares of the pause process.
const PAUSE_SHARES: u64 = 2;
/// Size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

pub(crate) async fn run_pod_sandbox(
    engine: &Arc<Engine>,
    config: cri::PodSandboxConfig,
    runtime_handler: String,
) -> Result<SandboxId, Refusal> {
    check(engine, &config, &runtime_handler)?;
    let id = new_id().doing("make an id")?;
    let metadata = config.metadata.clone().unwrap_or_default();
    let name = sandbox_name(&metadata);
    engine.pods().reserve(&name, &id).map_err(|holder| {
        let reserved = format!("name {name:?} is reserved for {holder:?}");
        Refusal::unknown(format!("failed to reserve sandbox name {name:?}: {reserved}"))
    })?;
    let record = SandboxRecord {
        id: id.clone(),
        config: Some(config),
        runtime_handler,
        created_at_nanos: now_nanos(),
        boot_id: engine.boot_id.clone(),
        ..SandboxRecord::default()
    };
    let made = engine.blocking(move |engine| make(engine, record)).await;
    match made {
        Ok((sandbox, shim)) => {
            engine.pods().add_sandbox(sandbox.clone());
            watch::sandbox(engine, &sandbox, shim);
            engine.tell(sandbox.id.as_str(), ContainerEventType::ContainerCreatedEvent, &sandbox.id);
            engine.tell(sandbox.id.as_str(), ContainerEventType::ContainerStartedEvent, &sandbox.id);
            Ok(sandbox.id.clone())
        }
        Err(refusal) => {
            let swept = id.clone();
            if let Err(left) = engine.blocking(move |engine| sweep::sandbox(engine, &swept)).await {
                tracing::warn!(sandbox = id, err = %left.message, "a sandbox that could not be made is not cleaned up wholly");
            }
            engine.pods().free_name_of(&id);
            Err(refusal)
        }
    }
}

fn check(engine: &Engine, config: &cri::PodSandboxConfig, runtime_handler: &str) -> Result<(), Refusal> {
    let metadata = config.metadata.as_ref().ok_or_else(|| Refusal::invalid("sandbox config must include metadata"))?;
    if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
        return Err(Refusal::invalid("sandbox metadata must name the pod, its namespace and its UID"));
    }
    let Some(handler) = engine.handlers.find(runtime_handler) else {
        let said = format!("failed to get sandbox runtime: no runtime for {runtime_handler:?} is configured");
        return Err(Refusal::new(Code::Unknown, said));
    };
    let has_users = spec::user_namespace(config).doing("the pod's user namespace")?.is_some();
    if has_users && !handler.features.user_namespaces {
        return Err(Refusal::unknown(format!("runtime handler {runtime_handler:?} does not support user namespaces")));
    }
    Ok(())
}

/// Makes everything, in the order in which [`sweep::sandbox`] can take it back at any point.
fn make(engine: &Arc<Engine>, mut record: SandboxRecord) -> Result<(Arc<Sandbox>, Shim), Refusal> {
    let id = record.id.clone();
    let config = record.config();
    let namespaces = record.namespaces();
    let dir = engine.places.sandbox(&id);
    fs::DirBuilder::new().mode(0o711).create(&dir).doing("create the sandbox's directory")?;
    engine.reached("run.directory");
    let is_adopted = spec::user_namespace(&config).doing("the pod's user namespace")?.is_some();
    let has_network = namespaces.network() != NamespaceMode::Node;
    // The namespaces of a pod with its own users belong to these: its pause process makes them.
    if has_network && !is_adopted {
        let netns = engine.network.make_namespace(&id).doing("create network namespace for sandbox")?;
        engine.reached("run.netns");
        let attached = attach(engine, &id, &config)?;
        record.addresses = attached;
        record.netns = netns.display().to_string();
        engine.reached("run.network");
    }
    write_files(engine, &id, &config, &namespaces)?;
    engine.reached("run.files");
    let cgroups = engine.plan_cgroup(&dir, &record.cgroup_parent(), &id)?;
    let setup = Setup { id: id.clone(), pause: true, cgroups, ..Setup::default() };
    let netns = (!record.netns.is_empty()).then(|| Path::new(&record.netns));
    let spec = spec::sandbox_spec(&config, netns, &engine.host).doing("failed to generate sandbox container spec")?;
    write_bundle(&dir, &spec, &setup).doing("write the sandbox's bundle")?;
    let values =
        Values { cpu_shares: Some(PAUSE_SHARES), cpu_weight: Some(limits::weight(PAUSE_SHARES)), ..Values::default() };
    let held = engine.make_cgroup(&dir, &values).doing("make the sandbox's cgroup")?;
    engine.reached("run.cgroup");
    let (shim, state) = Shim::create(&engine.program, &dir).doing("failed to create the sandbox's pause process")?;
    drop(held);
    engine.reached("run.created");
    if has_network && is_adopted {
        let netns = engine.network.adopt_namespace(&id, state.pid).doing("keep the sandbox's network namespace")?;
        record.addresses = attach(engine, &id, &config)?;
        record.netns = netns.display().to_string();
    }
    shim.start().doing("failed to start the sandbox's pause process")?;
    engine.reached("run.started");
    engine.sandbox_records.write(&id, &record).doing("record the sandbox")?;
    engine.reached("run.recorded");
    Ok((Sandbox::new(SandboxId::new(&id), record, SandboxLife::Ready { pid: state.pid }), shim))
}

/// Gives the pod its addresses.
fn attach(engine: &Engine, id: &str, config: &cri::PodSandboxConfig) -> Result<Vec<String>, Refusal> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let dns = config.dns_config.clone().unwrap_or_default();
    let wanted = Wanted {
        id,
        uid: &metadata.uid,
        namespace: &metadata.namespace,
        name: &metadata.name,
        ports: config.port_mappings.iter().filter_map(port).collect(),
        annotations: &config.annotations,
        dns_servers: &dns.servers,
        dns_searches: &dns.searches,
        dns_options: &dns.options,
    };
    let failed = format!("failed to setup network for sandbox {id:?}");
    let attached = engine.network.attach(&wanted).doing(failed)?;
    Ok(attached.addresses.iter().map(ToString::to_string).collect())
}

/// Mappings without a host port are remarks only.
fn port(mapping: &cri::PortMapping) -> Option<PortMapping> {
    let host_port = u16::try_from(mapping.host_port).ok().filter(|p| *p != 0)?;
    Some(PortMapping {
        host_ip: mapping.host_ip.parse().ok(),
        host_port,
        container_port: u16::try_from(mapping.container_port).ok()?,
        protocol: match mapping.protocol() {
            cri::Protocol::Tcp => rubelet_network::Protocol::Tcp,
            cri::Protocol::Udp => rubelet_network::Protocol::Udp,
            cri::Protocol::Sctp => rubelet_network::Protocol::Sctp,
        },
    })
}

/// Shared memory, name resolution, the host's name.
fn write_files(
    engine: &Engine,
    id: &str,
    config: &cri::PodSandboxConfig,
    namespaces: &cri::NamespaceOption,
) -> Result<(), Refusal> {
    let places = &engine.places;
    let host_file = |path: &str| fs::read(path).unwrap_or_default();
    let resolv_conf = dns::resolv_conf(config.dns_config.as_ref()).map(String::into_bytes);
    let resolv_conf = resolv_conf.unwrap_or_else(|| host_file("/etc/resolv.conf"));
    let hostname = match config.hostname.as_str() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        own => own.to_owned(),
    };
    let files = [
        (places.resolv_conf(id), resolv_conf),
        (places.hostname(id), format!("{hostname}\n").into_bytes()),
        (places.hosts(id), host_file("/etc/hosts")),
    ];
    for (path, content) in files {
        fs::write(&path, content).doing(format!("write {}", path.display()))?;
    }
    if namespaces.ipc() != NamespaceMode::Node {
        let shm = places.shm(id);
        fs::create_dir(&shm).doing("create the pod's shared memory")?;
        let wish = mount::Tmpfs { size_bytes: Some(SHM_BYTES), noswap: false, is_data_only: true };
        mount::tmpfs(&shm, wish).doing("mount the pod's shared memory")?;
        // The pod's own root has it, whoever that is on the host.
        if let Some(users) = spec::user_namespace(config).doing("the pod's user namespace")? {
            let first = |maps: &[cri::IdMapping]| maps.first().map(|map| map.host_id);
            let owner = (first(&users.uids), first(&users.gids));
            std::os::unix::fs::chown(&shm, owner.0, owner.1).doing("give the pod its shared memory")?;
        }
    }
    Ok(())
}
