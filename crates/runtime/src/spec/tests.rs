//! Expected values are what containerd 2.1 made of the same requests.

use std::path::PathBuf;

use rubelet_proto::cri::{
    ContainerConfig, ContainerMetadata, IdMapping as CriMapping, Int64Value, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, SecurityProfile, UserNamespace,
};

use super::*;

pub(super) fn host() -> HostFacts {
    HostFacts {
        name: "node".to_owned(),
        capabilities: (1 << 41) - 1,
        oom_score_least: -1000,
        has_cgroup_v2: true,
        has_apparmor: false,
        has_selinux: false,
        cdi_dirs: vec![PathBuf::from("/no/such")],
    }
}

fn pod(options: NamespaceOption) -> PodSandboxConfig {
    let seccomp = Some(SecurityProfile::default());
    let security = LinuxSandboxSecurityContext { namespace_options: Some(options), seccomp, ..Default::default() };
    let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
    let metadata = PodSandboxMetadata { name: "a".into(), uid: "u1".into(), namespace: "default".into(), attempt: 0 };
    PodSandboxConfig { hostname: "web".into(), linux: Some(linux), metadata: Some(metadata), ..Default::default() }
}

fn privileged_pod() -> PodSandboxConfig {
    let mut pod = pod(NamespaceOption::default());
    let linux = pod.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    pod
}

fn kinds(spec: &Spec) -> String {
    let shown = |n: &Namespace| if n.path.is_empty() { n.kind.clone() } else { format!("{}={}", n.kind, n.path) };
    spec.linux.namespaces.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// A container's configuration with a security context.
fn secured(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    let metadata = ContainerMetadata { name: "app".into(), attempt: 0 };
    ContainerConfig { linux: Some(linux), metadata: Some(metadata), ..Default::default() }
}

fn own(namespaces: NamespaceOption) -> ContainerConfig {
    secured(LinuxContainerSecurityContext { namespace_options: Some(namespaces), ..Default::default() })
}

fn built(pod: &PodSandboxConfig, config: &ContainerConfig, target_pid: Option<u32>) -> Result<Built, SpecError> {
    let dir = tempfile::tempdir().unwrap();
    let place = Path::new("/run/pod");
    let host = host();
    let around = Surroundings {
        config: pod,
        netns: Some(Path::new("/run/netns/a")),
        pause_pid: 7,
        target_pid,
        shm: Path::new("/run/shm"),
        resolv_conf: place,
        hostname: place,
        hosts: place,
        volumes: dir.path(),
        host: &host,
    };
    let mut image = Config::default();
    image.config.entrypoint = vec!["/entry".into()];
    image.config.cmd = vec!["image-arg".into()];
    image.config.env = vec!["PATH=/image".into(), "A=image".into()];
    container_spec("id", config, &around, &image, dir.path())
}

fn node() -> i32 {
    NamespaceMode::Node.into()
}

#[test]
fn the_pause_process_makes_the_pods_namespaces() {
    let own = sandbox_spec(&pod(NamespaceOption::default()), Some(Path::new("/n")), &host()).unwrap();
    assert_eq!(kinds(&own), "mount pid ipc uts network=/n");
    let sysctl: Vec<_> = own.linux.sysctl.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(sysctl, ["net.ipv4.ip_unprivileged_port_start=0", "net.ipv4.ping_group_range=0 2147483647"]);
    assert_eq!((own.hostname.as_str(), own.process.oom_score_adj), ("web", Some(-998)));
    assert!(own.process.no_new_privileges && own.root.is_none() && own.linux.seccomp.is_some());
    assert_eq!(own.process.capabilities, Some(Capabilities::default()));
    assert_eq!(own.annotations["io.kubernetes.cri.sandbox-uid"], "u1");
    let all = NamespaceOption { network: node(), pid: node(), ipc: node(), ..Default::default() };
    let hosts = sandbox_spec(&pod(all), None, &host()).unwrap();
    assert_eq!(kinds(&hosts), "mount");
    assert!(hosts.linux.sysctl.is_empty() && hosts.hostname.is_empty());
    assert!(sandbox_spec(&privileged_pod(), None, &host()).unwrap().linux.seccomp.is_none());
}

#[test]
fn the_pods_own_kernel_settings_win() {
    let mut pod = pod(NamespaceOption::default());
    let linux = pod.linux.as_mut().unwrap();
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let sysctl = sandbox_spec(&pod, None, &host()).unwrap().linux.sysctl;
    assert_eq!((sysctl["net.ipv4.ip_unprivileged_port_start"].as_str(), sysctl.len()), ("80", 3));
}

#[test]
fn user_namespaces_have_one_mapping_of_each() {
    let map = CriMapping { host_id: 100_000, container_id: 0, length: 65536 };
    let users = |uids: &[CriMapping], gids: &[CriMapping]| UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: uids.to_vec(),
        gids: gids.to_vec(),
    };
    let with = |users: UserNamespace| pod(NamespaceOption { userns_options: Some(users), ..Default::default() });
    let fine = with(users(&[map], &[map]));
    let spec = sandbox_spec(&fine, None, &host()).unwrap();
    assert_eq!(kinds(&spec), "mount pid ipc uts network user");
    assert_eq!(spec.linux.uid_mappings, [IdMapping { container_id: 0, host_id: 100_000, size: 65536 }]);
    // Not the range of pings, which is given to groups that there are not all of.
    assert_eq!(spec.linux.sysctl.len(), 1);
    let mut config = own(NamespaceOption { userns_options: Some(users(&[map], &[map])), ..Default::default() });
    let container = built(&fine, &config, None).unwrap();
    assert!(kinds(&container.spec).ends_with(" user=/proc/7/ns/user") && container.setup.id_mapped_root);
    let mapped: Vec<&str> =
        container.spec.mounts.iter().filter(|m| !m.uid_mappings.is_empty()).map(|m| m.destination.as_str()).collect();
    assert_eq!(mapped, ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
    config.linux = None;
    assert!(built(&fine, &config, None).unwrap().setup.id_mapped_root);
    let refused =
        |uids: &[CriMapping], gids: &[CriMapping]| user_namespace(&with(users(uids, gids))).unwrap_err().to_string();
    assert_eq!(refused(&[], &[map]), "required only one uid mapping, but got 0 uid mapping(s)");
    assert_eq!(refused(&[map], &[map, map]), "required only one gid mapping, but got 2 gid mapping(s)");
    let other = own(NamespaceOption { userns_options: Some(users(&[map], &[map])), ..Default::default() });
    let error = built(&pod(NamespaceOption::default()), &other, None).unwrap_err().to_string();
    assert_eq!(error, "failed to generate spec opts: user namespace config for sandbox is different from container");
}

#[test]
fn containers_join_their_pod() {
    let target = NamespaceOption { pid: NamespaceMode::Target.into(), target_id: "x".into(), ..Default::default() };
    let in_container = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
    let rest = "ipc=/proc/7/ns/ipc uts=/proc/7/ns/uts network=/run/netns/a cgroup";
    let plain = pod(NamespaceOption::default());
    for (own_namespaces, want) in [
        (NamespaceOption::default(), format!("mount pid=/proc/7/ns/pid {rest}")),
        (in_container.clone(), format!("mount pid {rest}")),
        (target.clone(), format!("mount pid=/proc/99/ns/pid {rest}")),
        (NamespaceOption { pid: node(), ..Default::default() }, format!("mount pid=/proc/7/ns/pid {rest}")),
    ] {
        assert_eq!(kinds(&built(&plain, &own(own_namespaces), Some(99)).unwrap().spec), want);
    }
    let error = built(&plain, &own(target), None).unwrap_err().to_string();
    assert_eq!(error, "failed to generate spec opts: invalid target container: container \"x\" is not running");
    let all = NamespaceOption { network: node(), pid: node(), ipc: node(), ..Default::default() };
    let hosts = built(&pod(all.clone()), &own(all), None).unwrap().spec;
    assert_eq!(kinds(&hosts), "mount cgroup");
    let shm = hosts.mounts.iter().find(|mount| mount.destination == "/dev/shm").unwrap();
    assert_eq!(shm.source, "/dev/shm");
}

#[test]
fn the_privileged() {
    let security = LinuxContainerSecurityContext {
        privileged: true,
        no_new_privs: true,
        readonly_rootfs: true,
        masked_paths: vec!["/proc/asound".into()],
        readonly_paths: vec!["/proc/bus".into()],
        seccomp: Some(SecurityProfile::default()),
        ..Default::default()
    };
    let config = secured(security);
    let error = built(&pod(NamespaceOption::default()), &config, None).unwrap_err().to_string();
    assert_eq!(error, "failed to generate spec opts: no privileged container allowed in sandbox");
    let spec = built(&privileged_pod(), &config, None).unwrap().spec;
    assert!(spec.linux.masked_paths.is_empty() && spec.linux.readonly_paths.is_empty() && spec.linux.seccomp.is_none());
    assert!(spec.process.no_new_privileges && spec.root.as_ref().unwrap().readonly);
    assert_eq!(spec.process.capabilities.as_ref().unwrap().bounding.len(), 41);
    assert!(!kinds(&spec).contains("cgroup"));
    let options = |place: &str| spec.mounts.iter().find(|m| m.destination == place).unwrap().options.join(",");
    assert_eq!(options("/sys"), "nosuid,noexec,nodev,rw");
    assert_eq!(options("/sys/fs/cgroup"), "nosuid,noexec,nodev,relatime,rw");
    assert_eq!(options("/etc/hosts"), "rbind,rprivate,ro");
    assert!(spec.linux.devices.iter().any(|d| d.path == "/dev/full") && spec.linux.resources.devices[0].allow);
}

#[test]
fn a_locked_container() {
    let security = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        run_as_group: Some(Int64Value { value: 3000 }),
        supplemental_groups: vec![8, 7],
        readonly_rootfs: true,
        no_new_privs: true,
        masked_paths: vec!["/proc/asound".into()],
        readonly_paths: vec!["/proc/bus".into()],
        seccomp: Some(SecurityProfile::default()),
        ..Default::default()
    };
    let mut config = secured(security);
    config.linux.as_mut().unwrap().resources =
        Some(cri::LinuxContainerResources { oom_score_adj: 1000, ..Default::default() });
    let Built { spec, setup, user, stop_signal } = built(&pod(NamespaceOption::default()), &config, None).unwrap();
    assert_eq!((setup.id.as_str(), setup.id_mapped_root, stop_signal), ("id", false, 15));
    let user = user.linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 3000, vec![7, 8, 3000]));
    assert_eq!(spec.process.args, ["/entry", "image-arg"]);
    assert_eq!(spec.process.env, ["PATH=/image", "A=image", "HOSTNAME=web"]);
    assert_eq!((spec.process.cwd.as_str(), spec.process.oom_score_adj), ("/", Some(1000)));
    assert!(spec.process.no_new_privileges && spec.root.unwrap().readonly);
    assert_eq!(
        (spec.linux.masked_paths, spec.linux.readonly_paths),
        (vec!["/proc/asound".into()], vec!["/proc/bus".into()])
    );
    assert!(spec.linux.seccomp.is_some() && spec.process.capabilities.unwrap().bounding.len() == 14);
    let rules = &spec.linux.resources.devices;
    assert!(rules.len() == 1 && !rules[0].allow && rules[0].access == "rwm" && spec.linux.devices.is_empty());
    assert_eq!(spec.annotations["io.kubernetes.cri.container-name"], "app");
}

#[test]
fn errors_as_users_know_them() {
    let error = |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = own(NamespaceOption::default());
        change(&mut config);
        built(&pod(NamespaceOption::default()), &config, None).unwrap_err().to_string()
    };
    let mount = cri::Mount { container_path: "/y".into(), ..Default::default() };
    let mkdir = "failed to generate spec: failed to mkdir \"\": the path is not absolute";
    assert_eq!(error(&|config| config.mounts = vec![mount.clone()]), mkdir);
    let device = cri::Device { host_path: "/dev/no-such".into(), ..Default::default() };
    let lstat = "failed to generate spec: lstat /dev/no-such: no such file or directory";
    assert_eq!(error(&|config| config.devices = vec![device.clone()]), lstat);
    let command = error(&|config| config.command = vec![String::new()]);
    assert_eq!(command, "failed to generate spec: no command specified");
}
