//! What CRI asks for, as an OCI specification: for the pause process of a pod and for its containers.
//!
//! Where users can see a difference, what is not said is as with containerd 2 and its defaults; errors use its words. This module reads
//! the host (its devices, its mounts, the image's `/etc/passwd`); it makes directories that CRI wants made, and loads the AppArmor profile.
//! Values of cgroups are not its matter.

use std::collections::BTreeMap;
use std::path::Path;

use rubelet_proto::cri::{self, NamespaceMode};
use rubelet_shim::setup::Setup;
use rubelet_shim::spec::{Capabilities, IdMapping, Linux, Namespace, Process, Resources, Root, Spec};

use crate::image::document::Config;

pub mod apparmor;
mod capabilities;
mod cdi;
mod devices;
mod host;
mod mounts;
mod process;
mod seccomp;
mod signal;
#[cfg(test)]
mod tests;
mod user;
mod volumes;

pub use host::HostFacts;
pub(crate) use mounts::image_part;

/// Version of the runtime specification that the files say they follow.
const OCI_VERSION: &str = "1.2.0";
/// The pause process is the last one of a pod to be killed for memory.
const PAUSE_OOM_SCORE: i32 = -998;

/// Parts of the work, in the words of containerd's errors.
const SPEC: &str = "failed to generate spec";
const OPTIONS: &str = "failed to generate spec opts";

/// Why there is no specification for what is asked.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// In the words that users know from containerd, where it has some.
    #[error("{0}")]
    Refused(String),
    #[error("{what}")]
    Io { what: String, source: std::io::Error },
}

impl SpecError {
    fn new(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }

    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Says in which part it happened, as containerd does.
    fn within(self, part: &str) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(format!("{part}: {text}")),
            Self::Io { what, source } => Self::Io { what: format!("{part}: {what}"), source },
        }
    }

    /// The kernel's reason as Go programs write it: `open /x: no such file or directory`.
    fn go(what: &str, error: &std::io::Error) -> String {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut letters = text.chars();
        let lower: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
        format!("{what}: {lower}")
    }
}

/// The pod around a container.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub config: &'a cri::PodSandboxConfig,
    /// Its own network namespace; `None`: that of the pause process, or the host's when the pod shares it.
    pub netns: Option<&'a Path>,
    /// The pause process, whose namespaces the containers join.
    pub pause_pid: u32,
    /// First process of the container whose processes this one is to see.
    pub target_pid: Option<u32>,
    /// Shared memory of the pod (a tmpfs). Not used when the pod shares the host's.
    pub shm: &'a Path,
    /// Files of the pod, mounted unless CRI brings its own at their places.
    pub resolv_conf: &'a Path,
    pub hostname: &'a Path,
    pub hosts: &'a Path,
    /// A directory for the volumes that the image declares: it is made at need, and goes with the container.
    pub volumes: &'a Path,
    pub host: &'a HostFacts,
}

/// A container's specification, and what else follows from it.
#[derive(Clone, Debug)]
pub struct Built {
    pub spec: Spec,
    /// Its fields `id` and `id_mapped_root` are set; streams, log and cgroups are the caller's.
    pub setup: Setup,
    /// Who it runs as, for its status.
    pub user: cri::ContainerUser,
    /// Number of the signal that stops it.
    pub stop_signal: i32,
}

/// The pod's user namespace: none, or its mappings.
pub fn user_namespace(config: &cri::PodSandboxConfig) -> Result<Option<cri::UserNamespace>, SpecError> {
    let Some(wanted) = pods_namespaces(config).userns_options else { return Ok(None) };
    match wanted.mode() {
        NamespaceMode::Node => Ok(None),
        NamespaceMode::Pod => {
            let one = |what: &str, maps: &[cri::IdMapping]| match maps {
                [map] if map.length > 0 => Ok(()),
                [_] => Err(SpecError::new(format!("{what} mapping length is 0"))),
                _ => Err(SpecError::new(format!(
                    "required only one {what} mapping, but got {} {what} mapping(s)",
                    maps.len()
                ))),
            };
            one("uid", &wanted.uids)?;
            one("gid", &wanted.gids)?;
            Ok(Some(wanted))
        }
        NamespaceMode::Container | NamespaceMode::Target => {
            Err(SpecError::new(format!("unsupported user namespace mode: {:?}", wanted.mode().as_str_name())))
        }
    }
}

/// The pause process: it makes the namespaces that the pod's containers join, and sets the pod's kernel parameters.
///
/// `netns` is the pod's network namespace, if there is one already. With a user namespace it has to belong to that: then
/// there is none yet, and the pause process makes it.
pub fn sandbox_spec(config: &cri::PodSandboxConfig, netns: Option<&Path>, host: &HostFacts) -> Result<Spec, SpecError> {
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    host.check_selinux(security.selinux_options.as_ref())?;
    let options = pods_namespaces(config);
    let userns = user_namespace(config)?;
    let has_network = options.network() != NamespaceMode::Node;
    let mut namespaces = vec![namespace("mount", None)];
    if options.pid() != NamespaceMode::Node {
        namespaces.push(namespace("pid", None));
    }
    if options.ipc() != NamespaceMode::Node {
        namespaces.push(namespace("ipc", None));
    }
    if has_network {
        namespaces.push(namespace("uts", None));
        namespaces.push(namespace("network", netns.map(|path| path.display().to_string())));
    }
    if userns.is_some() {
        namespaces.push(namespace("user", None));
    }
    let sysctl = sysctls(linux.sysctls, has_network, userns.is_some());
    let maps = userns.unwrap_or_default();
    let process = Process {
        args: vec!["pause".to_owned()],
        cwd: "/".to_owned(),
        user: user::pause(&security)?,
        no_new_privileges: true,
        capabilities: Some(Capabilities::default()),
        oom_score_adj: Some(host.oom_score(PAUSE_OOM_SCORE)),
        ..Process::default()
    };
    Ok(Spec {
        oci_version: OCI_VERSION.to_owned(),
        process,
        hostname: if has_network { config.hostname.clone() } else { String::new() },
        annotations: annotations("sandbox", config),
        linux: Linux {
            namespaces,
            uid_mappings: mappings(&maps.uids),
            gid_mappings: mappings(&maps.gids),
            sysctl,
            seccomp: seccomp::of_pause(&security)?,
            ..Linux::default()
        },
        ..Spec::default()
    })
}

/// What the pod wants, over what is usual: as everywhere, low ports and pings need no capability in a network of its own.
fn sysctls(mut wanted: BTreeMap<String, String>, has_network: bool, has_users: bool) -> BTreeMap<String, String> {
    if has_network {
        let mut unless_said = |name: &str, value: &str| {
            wanted.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        };
        unless_said("net.ipv4.ip_unprivileged_port_start", "0");
        if !has_users {
            unless_said("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    wanted
}

/// A container of an image whose file system is mounted at `rootfs`. What CRI mounts of an image ([`cri::Mount::image`]), the caller has
/// mounted at that mount's `host_path`.
///
/// # Errors
///
/// Users know the texts with `failed to generate container "ID" spec: ` before them.
pub fn container_spec(
    id: &str,
    config: &cri::ContainerConfig,
    around: &Surroundings<'_>,
    image: &Config,
    rootfs: &Path,
) -> Result<Built, SpecError> {
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let resources = linux.resources.clone().unwrap_or_default();
    let host = around.host;
    if security.privileged && !is_privileged_pod(around.config) {
        return Err(SpecError::new("no privileged container allowed in sandbox").within(OPTIONS));
    }
    host.check_selinux(security.selinux_options.as_ref())?;
    let userns = user_namespace(around.config)?;
    check_same_users(&security, userns.as_ref()).map_err(|e| e.within(OPTIONS))?;
    let capabilities = capabilities::sets(&security, host);
    let process = Process {
        user: user::resolve(&security, &image.config.user, rootfs)?,
        no_new_privileges: security.no_new_privs,
        apparmor_profile: apparmor::profile(&security, host)?,
        oom_score_adj: Some(host.oom_score(i32::try_from(resources.oom_score_adj).unwrap_or(0))),
        ..process::process(config, around.config, image, &host.name).map_err(|e| e.within(SPEC))?
    };
    let allowed = seccomp::profile(&security, &capabilities.bounding)?;
    let devices = devices::devices(config, security.privileged).map_err(|e| e.within(SPEC))?;
    let maps = userns.unwrap_or_default();
    let volumes = volumes::declared(config, around, image, rootfs)?;
    let mounts = mounts::mounts(config, around, &volumes).map_err(|e| e.within(SPEC))?;
    let mut spec = Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Process { capabilities: Some(capabilities), ..process },
        root: Some(Root { path: rootfs.display().to_string(), readonly: security.readonly_rootfs }),
        mounts,
        annotations: containers_annotations(config, around.config),
        linux: Linux {
            namespaces: namespaces(&security, around).map_err(|e| e.within(OPTIONS))?,
            uid_mappings: mappings(&maps.uids),
            gid_mappings: mappings(&maps.gids),
            devices: devices.nodes,
            resources: Resources { devices: devices.rules },
            rootfs_propagation: mounts::of_root(config).to_owned(),
            seccomp: allowed,
            masked_paths: if security.privileged { Vec::new() } else { security.masked_paths },
            readonly_paths: if security.privileged { Vec::new() } else { security.readonly_paths },
            ..Linux::default()
        },
        ..Spec::default()
    };
    cdi::inject(&mut spec, config, &host.cdi_dirs)?;
    let user = user::shown(&spec.process.user);
    let setup = Setup { id: id.to_owned(), id_mapped_root: !maps.uids.is_empty(), ..Setup::default() };
    let stop_signal = signal::to_stop(config, image)?;
    Ok(Built { spec, setup, user: cri::ContainerUser { linux: Some(user) }, stop_signal })
}

fn pods_namespaces(config: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
}

fn is_privileged_pod(config: &cri::PodSandboxConfig) -> bool {
    config.linux.as_ref().and_then(|l| l.security_context.as_ref()).is_some_and(|s| s.privileged)
}

/// A container that says anything about users has to say what its pod says.
fn check_same_users(
    security: &cri::LinuxContainerSecurityContext,
    pods: Option<&cri::UserNamespace>,
) -> Result<(), SpecError> {
    let own = security.namespace_options.as_ref().and_then(|o| o.userns_options.as_ref());
    let own = own.filter(|users| users.mode() != NamespaceMode::Node);
    match (own, pods) {
        (Some(own), Some(pods)) if own == pods => Ok(()),
        (None, _) => Ok(()),
        (Some(_), _) => Err(SpecError::new("user namespace config for sandbox is different from container")),
    }
}

/// Those of the pod, but for what is the container's own.
fn namespaces(
    security: &cri::LinuxContainerSecurityContext,
    around: &Surroundings<'_>,
) -> Result<Vec<Namespace>, SpecError> {
    let pod = pods_namespaces(around.config);
    let own = security.namespace_options.clone().unwrap_or_default();
    let of = |pid: u32, kind: &str| Some(format!("/proc/{pid}/ns/{kind}"));
    let mut found = vec![namespace("mount", None)];
    match (own.pid(), around.target_pid) {
        (NamespaceMode::Container, _) => found.push(namespace("pid", None)),
        (NamespaceMode::Target, Some(target)) => found.push(namespace("pid", of(target, "pid"))),
        (NamespaceMode::Target, None) => {
            return Err(SpecError::new(format!(
                "invalid target container: container {:?} is not running",
                own.target_id
            )));
        }
        // The pause process is where the pod says its processes are.
        (NamespaceMode::Pod | NamespaceMode::Node, _) if pod.pid() == NamespaceMode::Node => {}
        (NamespaceMode::Pod | NamespaceMode::Node, _) => found.push(namespace("pid", of(around.pause_pid, "pid"))),
    }
    if pod.ipc() != NamespaceMode::Node {
        found.push(namespace("ipc", of(around.pause_pid, "ipc")));
    }
    if pod.network() != NamespaceMode::Node {
        found.push(namespace("uts", of(around.pause_pid, "uts")));
        let path = around.netns.map(|path| path.display().to_string());
        found.push(namespace("network", path.or_else(|| of(around.pause_pid, "net"))));
    }
    if around.host.has_cgroup_v2 && !security.privileged {
        found.push(namespace("cgroup", None));
    }
    if pod.userns_options.is_some_and(|u| u.mode() == NamespaceMode::Pod) {
        found.push(namespace("user", of(around.pause_pid, "user")));
    }
    Ok(found)
}

fn mappings(from: &[cri::IdMapping]) -> Vec<IdMapping> {
    from.iter().map(|m| IdMapping { container_id: m.container_id, host_id: m.host_id, size: m.length }).collect()
}

fn namespace(kind: &str, path: Option<String>) -> Namespace {
    Namespace { kind: kind.to_owned(), path: path.unwrap_or_default() }
}

/// Whose it is, for who looks at the file.
fn annotations(kind: &str, pod: &cri::PodSandboxConfig) -> BTreeMap<String, String> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    [
        ("container-type", kind.to_owned()),
        ("sandbox-name", metadata.name),
        ("sandbox-namespace", metadata.namespace),
        ("sandbox-uid", metadata.uid),
    ]
    .into_iter()
    .map(|(name, value)| (format!("io.kubernetes.cri.{name}"), value))
    .collect()
}

fn containers_annotations(config: &cri::ContainerConfig, pod: &cri::PodSandboxConfig) -> BTreeMap<String, String> {
    let mut all = annotations("container", pod);
    let name = config.metadata.clone().unwrap_or_default().name;
    let image = config.image.as_ref().map(|i| i.user_specified_image.clone()).unwrap_or_default();
    all.insert("io.kubernetes.cri.container-name".to_owned(), name);
    all.insert("io.kubernetes.cri.image-name".to_owned(), image);
    all
}
