//! Users, groups, namespaces, capabilities and profiles.

use rubelet_api::ids::ContainerId;
use rubelet_api::v1;
use rubelet_proto::cri;
use rubelet_proto::cri::security_profile::ProfileType;

use super::{ContainerView, RenderError, containers, full_name};
use crate::node::NodeFacts;
use crate::pod::fact::ImageFound;

/// Hidden from containers with the default `procMount`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Read-only in containers with the default `procMount`.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The annotation that set a container's AppArmor profile before there was a field.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The sandbox's security context. kubelet 1.36: its seccomp profile is always the runtime's default; privileged if any container is.
pub fn sandbox(pod: &v1::Pod) -> cri::LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
        run_as_user: context.and_then(|c| c.run_as_user).map(|value| cri::Int64Value { value }),
        run_as_group: context.and_then(|c| c.run_as_group).map(|value| cri::Int64Value { value }),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: containers(pod).chain(&super::ephemeral(pod)).any(is_privileged),
        seccomp: Some(profile(ProfileType::RuntimeDefault)),
        ..Default::default()
    }
}

/// A container's security context, the container's fields over the pod's.
///
/// # Errors
///
/// The image would run as root although `runAsNonRoot` forbids it, or a profile is incomplete.
pub fn container(
    view: &ContainerView<'_>,
    container: &v1::Container,
) -> Result<cri::LinuxContainerSecurityContext, RenderError> {
    let ContainerView { pod, image, node, .. } = *view;
    let own = container.security_context.as_ref();
    let above = of_pod(pod);
    let user = own.and_then(|c| c.run_as_user).or(above.and_then(|c| c.run_as_user));
    verify_non_root(pod, container, user, image)?;
    let is_default_proc = own.and_then(|c| c.proc_mount.as_deref()).unwrap_or("Default") != "Unmasked";
    let (apparmor, apparmor_profile) = apparmor(pod, container)?;
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.and_then(|c| c.capabilities.as_ref()).map(capabilities),
        privileged: is_privileged(container),
        namespace_options: Some(with_target(namespaces(pod), view.target)),
        selinux_options: own
            .and_then(|c| c.se_linux_options.as_ref())
            .or(above.and_then(|c| c.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: user.or(image.uid).map(|value| cri::Int64Value { value }),
        run_as_username: if user.is_some() || image.uid.is_some() { String::new() } else { image.username.clone() },
        run_as_group: own
            .and_then(|c| c.run_as_group)
            .or(above.and_then(|c| c.run_as_group))
            .map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        masked_paths: if is_default_proc { masked(node) } else { Vec::new() },
        readonly_paths: if is_default_proc { READ_ONLY.map(str::to_owned).to_vec() } else { Vec::new() },
        seccomp: Some(seccomp(pod, container, node)?),
        apparmor,
        apparmor_profile,
        ..Default::default()
    })
}

/// An ephemeral container may see the processes of another one instead of its own only.
fn with_target(own: cri::NamespaceOption, target: Option<&ContainerId>) -> cri::NamespaceOption {
    match target {
        Some(id) => cri::NamespaceOption { pid: cri::NamespaceMode::Target.into(), target_id: id.to_string(), ..own },
        None => own,
    }
}

/// Namespaces that the pod shares with the host, and its containers with each other.
pub fn namespaces(pod: &v1::Pod) -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Node, Pod};
    let spec = pod.spec.as_ref();
    let host = |shared: Option<bool>| if shared.unwrap_or(false) { Node } else { Pod };
    let pid = if spec.and_then(|s| s.host_pid).unwrap_or(false) {
        Node
    } else if spec.and_then(|s| s.share_process_namespace).unwrap_or(false) {
        Pod
    } else {
        Container
    };
    cri::NamespaceOption {
        network: host(spec.and_then(|s| s.host_network)).into(),
        ipc: host(spec.and_then(|s| s.host_ipc)).into(),
        pid: pid.into(),
        target_id: String::new(),
        // The range of a pod with users of its own is filled in by who has it: see `users`.
        userns_options: Some(cri::UserNamespace {
            mode: host(Some(!super::users::has_own_users(pod))).into(),
            ..Default::default()
        }),
    }
}

/// Whether the container runs privileged.
pub fn is_privileged(container: &v1::Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false)
}

/// The AppArmor profile that a container asks for: (type, profile on the host), by field or by annotation.
pub fn apparmor_wish<'a>(pod: &'a v1::Pod, container: &'a v1::Container) -> Option<(&'a str, &'a str)> {
    let fields = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let fields = fields.or_else(|| of_pod(pod).and_then(|c| c.app_armor_profile.as_ref()));
    if let Some(profile) = fields {
        return Some((&profile.type_, profile.localhost_profile.as_deref().unwrap_or_default()));
    }
    let annotation = pod.metadata.annotations.as_ref()?.get(&format!("{APPARMOR_ANNOTATION}{}", container.name))?;
    match annotation.as_str() {
        "" => None,
        "runtime/default" => Some(("RuntimeDefault", "")),
        "unconfined" => Some(("Unconfined", "")),
        other => Some(("Localhost", other.strip_prefix("localhost/").unwrap_or_default())),
    }
}

fn of_pod(pod: &v1::Pod) -> Option<&v1::PodSecurityContext> {
    pod.spec.as_ref().and_then(|s| s.security_context.as_ref())
}

fn groups(pod: &v1::Pod) -> Vec<i64> {
    let context = of_pod(pod);
    let more = context.and_then(|c| c.supplemental_groups.as_deref()).unwrap_or_default();
    context.and_then(|c| c.fs_group).into_iter().chain(more.iter().copied()).collect()
}

fn groups_policy(pod: &v1::Pod) -> i32 {
    match of_pod(pod).and_then(|c| c.supplemental_groups_policy.as_deref()) {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict.into(),
        _ => cri::SupplementalGroupsPolicy::Merge.into(),
    }
}

fn verify_non_root(
    pod: &v1::Pod,
    container: &v1::Container,
    user: Option<i64>,
    image: &ImageFound,
) -> Result<(), RenderError> {
    let own = container.security_context.as_ref().and_then(|c| c.run_as_non_root);
    if !own.or(of_pod(pod).and_then(|c| c.run_as_non_root)).unwrap_or(false) {
        return Ok(());
    }
    let whose = format!("(pod: {:?}, container: {})", full_name(pod), container.name);
    Err(RenderError::config(match (user, image.uid, image.username.as_str()) {
        (Some(0), ..) => format!("container's runAsUser breaks non-root policy {whose}"),
        (None, Some(0), _) => format!("container has runAsNonRoot and image will run as root {whose}"),
        (None, None, username) if !username.is_empty() => {
            format!(
                "container has runAsNonRoot and image has non-numeric user ({username}), cannot verify user is non-root {whose}"
            )
        }
        (Some(_), ..) | (None, Some(_), _) | (None, None, _) => return Ok(()),
    }))
}

fn masked(node: &NodeFacts) -> Vec<String> {
    MASKED.iter().map(|path| (*path).to_owned()).chain(node.machine.thermal_throttle_paths.iter().cloned()).collect()
}

fn capabilities(capabilities: &v1::Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn selinux(options: &v1::SELinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: ProfileType) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

fn seccomp(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> Result<cri::SecurityProfile, RenderError> {
    let own = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let Some(wish) = own.or_else(|| of_pod(pod).and_then(|c| c.seccomp_profile.as_ref())) else {
        let default = if node.settings.seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        return Ok(profile(default));
    };
    match wish.type_.as_str() {
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault)),
        "Localhost" => match wish.localhost_profile.as_deref() {
            None | Some("") => {
                Err(RenderError::config("localhostProfile must be set if seccompProfile type is Localhost."))
            }
            Some(name) => Ok(cri::SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: node.root_dir.join("seccomp").join(name).to_string_lossy().into_owned(),
            }),
        },
        _ => Ok(profile(ProfileType::Unconfined)),
    }
}

/// The profile, and the same as the text that runtimes read before there was a message for it.
fn apparmor(pod: &v1::Pod, container: &v1::Container) -> Result<(Option<cri::SecurityProfile>, String), RenderError> {
    Ok(match apparmor_wish(pod, container) {
        None => (None, String::new()),
        Some(("RuntimeDefault", _)) => (Some(profile(ProfileType::RuntimeDefault)), "runtime/default".to_owned()),
        Some(("Unconfined", _)) => (Some(profile(ProfileType::Unconfined)), "unconfined".to_owned()),
        Some((_, "")) => return Err(RenderError::config("missing localhost apparmor profile name")),
        Some((_, name)) => {
            let localhost =
                cri::SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: name.to_owned() };
            (Some(localhost), format!("localhost/{name}"))
        }
    })
}
