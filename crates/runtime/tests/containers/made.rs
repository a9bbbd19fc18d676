//! The tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rubelet_proto::cri::security_profile::ProfileType;
use rubelet_proto::cri::{
    Capability, CdiDevice, ContainerConfig, Device, IdMapping, Int64Value, KeyValue, LinuxContainerSecurityContext,
    Mount, NamespaceMode, NamespaceOption, SecurityProfile, UserNamespace,
};

use crate::pod::{Pod, not_run, script};

fn plain() -> LinuxContainerSecurityContext {
    LinuxContainerSecurityContext::default()
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn profile(kind: ProfileType, path: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() })
}

pub(crate) fn a_pods_container() {
    let Some(mut pod) = Pod::new() else { return };
    let text = "exec 2>&1; hostname; echo $HOSTNAME $A; cat /etc/resolv.conf /etc/hostname /proc/sys/net/ipv4/ip_unprivileged_port_start \
                /proc/sys/net/ipv4/ping_group_range; touch /dev/shm/seen; echo $$; cat /in/file; touch /in/x || echo read-only";
    let mut config = script(text, plain());
    config.envs = vec![KeyValue { key: "A".into(), value: "own".into() }];
    let volume = pod.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let host_path = volume.display().to_string();
    config.mounts = vec![Mount { container_path: "/in".into(), host_path, readonly: true, ..Default::default() }];
    let (code, log) = pod.run(&config);
    assert_eq!(code, 0, "{log}");
    let want = "web\nweb own\nnameserver 10.96.0.10\nweb\n0\n0\t2147483647\n1\nvolume\ntouch: /in/x: Read-only file system\nread-only\n";
    assert_eq!(log, want);
    assert!(pod.dir.path().join("shm/seen").exists());
}

fn namespaces(pod: &mut Pod) -> &mut NamespaceOption {
    let security = pod.config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.get_or_insert_default()
}

pub(crate) fn a_pod_with_users_of_its_own() {
    let Some(mut pod) = Pod::new() else { return };
    let map = IdMapping { host_id: 1_000_000, container_id: 0, length: 65536 };
    let mode = NamespaceMode::Pod.into();
    namespaces(&mut pod).userns_options = Some(UserNamespace { mode, uids: vec![map], gids: vec![map] });
    fs::create_dir(pod.rootfs.join("data")).unwrap();
    fs::write(pod.rootfs.join("data/file"), "image\n").unwrap();
    pod.image.config.volumes = BTreeMap::from([("/data".to_owned(), serde_json::json!({}))]);
    let text = "id -u; sed 's/  */ /g' /proc/self/uid_map; cat /etc/resolv.conf /data/file; touch /made /data/x; ls -ln /data/file | wc -l; \
                cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net; mknod /tmp/x c 1 3 2>/dev/null || echo no node; \
                head -c 2 /dev/zero | wc -c";
    let (code, log) = pod.run(&script(text, plain()));
    let want = "0\n 0 1000000 65536\nnameserver 10.96.0.10\nimage\n1\n0\nlo\nno node\n2\n";
    assert_eq!((code, log.as_str()), (0, want));
    for made in [pod.rootfs.join("made"), pod.dir.path().join("volumes-1/0/x")] {
        assert_eq!(fs::metadata(&made).unwrap().uid(), 0, "{} has no id of the pod's range", made.display());
    }
}

pub(crate) fn a_pod_that_shares() {
    let Some(mut pod) = Pod::new() else { return };
    let shared = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let mut config = script("cat /proc/1/comm; grep Cap[PE] /proc/1/status | sed 's/.*://'; hostname", plain());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(shared);
    assert_eq!(pod.run(&config).1, "pause\n\t0000000000000000\n\t0000000000000000\nweb\n");
    let Some(mut pod) = Pod::new() else { return };
    let node = NamespaceMode::Node.into();
    let hosts = NamespaceOption { pid: node, network: node, ipc: node, ..Default::default() };
    *namespaces(&mut pod) = hosts.clone();
    pod.config.hostname = String::new();
    let mut config =
        script("hostname; echo $HOSTNAME; for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done", plain());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(hosts);
    let log = pod.run(&config).1;
    let name = &pod.host.name;
    let own: Vec<_> = log.lines().skip(2).map(str::to_owned).collect();
    let ours = ["pid", "net", "ipc", "uts", "mnt"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    assert!(log.starts_with(&format!("{name}\n{name}\n")), "{log}");
    for (at, ours) in ours.iter().enumerate() {
        assert_eq!(Path::new(&own[at]) == ours, at < 4, "{} and {}", own[at], ours.display());
    }
}

pub(crate) fn users_and_capabilities() {
    let Some(mut pod) = Pod::new() else { return };
    const TEXT: &str = "id -u; id -g; id -G; grep Cap /proc/self/status | sed 's/.*://'; grep NoNewPrivs /proc/self/status; echo $HOME";
    let mut run = |security: LinuxContainerSecurityContext| {
        let (code, log) = pod.run(&script(TEXT, security));
        assert_eq!(code, 0, "{log}");
        log.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP
    let (none, usual) = ("0000000000000000", "00000000a80425fb");
    let want = format!("0 0 0 {none} {usual} {usual} {usual} {none} NoNewPrivs: 0 /root");
    assert_eq!(run(plain()), want);
    let web = LinuxContainerSecurityContext {
        run_as_username: "web".into(),
        supplemental_groups: vec![2000],
        no_new_privs: true,
        ..plain()
    };
    // The first group is the user's, the others are a set; capabilities go with root.
    assert_eq!(run(web), format!("1000 1001 1001 7 2000 {none} {none} {none} {usual} {none} NoNewPrivs: 1 /home/web"));
    let bind = "0000000000000400";
    let ambient = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 4000 }),
        run_as_group: Some(Int64Value { value: 5000 }),
        capabilities: Some(Capability {
            drop_capabilities: strings(&["ALL"]),
            add_ambient_capabilities: strings(&["NET_BIND_SERVICE"]),
            ..Default::default()
        }),
        ..plain()
    };
    assert_eq!(run(ambient), format!("4000 5000 5000 {bind} {bind} {bind} {bind} {bind} NoNewPrivs: 0 /"));
    let dropped = LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            drop_capabilities: strings(&["ALL"]),
            add_capabilities: strings(&["CHOWN", "NO_SUCH"]),
            ..Default::default()
        }),
        ..plain()
    };
    let chown = "0000000000000001";
    assert_eq!(run(dropped), format!("0 0 0 {none} {chown} {chown} {chown} {none} NoNewPrivs: 0 /root"));
}

pub(crate) fn read_only_and_hidden() {
    let Some(mut pod) = Pod::new() else { return };
    let text = "touch /x 2>/dev/null || echo root; touch /etc/hosts 2>/dev/null || echo hosts; touch /dev/shm/x && echo shm; \
                head -c 1 /proc/version | wc -c; ls /proc/tty | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo sys; \
                mkdir /sys/fs/cgroup/x 2>/dev/null || echo cgroup";
    let security = LinuxContainerSecurityContext {
        readonly_rootfs: true,
        masked_paths: strings(&["/proc/version", "/proc/tty", "/proc/no-such"]),
        readonly_paths: strings(&["/proc/sys"]),
        ..plain()
    };
    let (code, log) = pod.run(&script(text, security));
    assert_eq!((code, log.as_str()), (0, "root\nhosts\nshm\n0\n0\nsys\ncgroup\n"));
}

/// The kernel's log: a container has no business with it.
const KMSG: &str = "mknod /tmp/k c 1 11; dd if=/tmp/k bs=1 count=0 2>/dev/null && echo open || echo refused; rm /tmp/k; \
                    ls -l /dev/mine 2>/dev/null | sed 's/ .*//'; head -c 2 /dev/zero | wc -c; ls /dev/full /dev/kmsg 2>/dev/null";

pub(crate) fn devices() {
    let Some(mut pod) = Pod::new() else { return };
    if !pod.has_device_rules() {
        not_run("there is no cgroup for device rules");
        return;
    }
    // Where the log is for those with this capability only, the device still is not for this container.
    let syslog = Some(Capability { add_capabilities: strings(&["SYSLOG"]), ..Default::default() });
    let mut config = script(KMSG, LinuxContainerSecurityContext { capabilities: syslog, ..plain() });
    assert_eq!(pod.run(&config).1, "refused\n2\n/dev/full\n");
    config.devices =
        vec![Device { host_path: "/dev/kmsg".into(), container_path: "/dev/mine".into(), permissions: "r".into() }];
    let log = pod.run(&config).1;
    assert!(log.starts_with("open\ncrw-"), "{log}");
    let text = "(echo x > /dev/mine) 2>/dev/null || echo not written";
    config.command = strings(&["sh", "-c", text]);
    assert_eq!(pod.run(&config).1, "not written\n");
    let Some(mut privileged) = Pod::new() else { return };
    privileged.config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let all = LinuxContainerSecurityContext { privileged: true, ..plain() };
    let log = privileged.run(&script(KMSG, all)).1;
    assert!(log.starts_with("open\n2\n") && log.contains("/dev/kmsg\n"), "{log}");
}

pub(crate) fn devices_by_cdi() {
    let Some(mut pod) = Pod::new() else { return };
    let dir = pod.dir.path().join("cdi");
    fs::create_dir(&dir).unwrap();
    let lib = pod.dir.path().join("lib");
    fs::create_dir(&lib).unwrap();
    fs::write(lib.join("gpu.so"), "library\n").unwrap();
    let text = format!(
        "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: zero\n  containerEdits:\n    env: [GPU=zero]\n    \
         deviceNodes: [{{path: /dev/gpu0, hostPath: /dev/zero}}]\n    additionalGids: [44]\ncontainerEdits:\n  mounts:\n  \
         - {{hostPath: {}, containerPath: /usr/lib/gpu, options: [ro, rbind, rprivate]}}\n",
        lib.display()
    );
    fs::write(dir.join("gpu.yaml"), text).unwrap();
    pod.host.cdi_dirs = vec![dir];
    let mut config = script("echo $GPU; head -c 3 /dev/gpu0 | wc -c; cat /usr/lib/gpu/gpu.so; id -G", plain());
    config.cdi_devices = vec![CdiDevice { name: "vendor.com/gpu=zero".into() }];
    assert_eq!(pod.run(&config), (0, "zero\n3\nlibrary\n0 44\n".to_owned()));
    config.cdi_devices.push(CdiDevice { name: "vendor.com/gpu=one".into() });
    let error = pod.build(&config).unwrap_err().to_string();
    assert_eq!(error, "CDI device injection failed: unresolvable CDI devices vendor.com/gpu=one");
}

pub(crate) fn volumes_of_the_image() {
    let Some(mut pod) = Pod::new() else { return };
    fs::create_dir_all(pod.rootfs.join("data/sub")).unwrap();
    fs::write(pod.rootfs.join("data/sub/file"), "image\n").unwrap();
    std::os::unix::fs::chown(pod.rootfs.join("data"), Some(1000), Some(1001)).unwrap();
    pod.image.config.volumes =
        BTreeMap::from(["/data", "/new/", "/etc/mine"].map(|at| (at.to_owned(), serde_json::json!({}))));
    let security = LinuxContainerSecurityContext {
        readonly_rootfs: true,
        run_as_user: Some(Int64Value { value: 1000 }),
        ..plain()
    };
    let mut config =
        script("cat /data/sub/file; touch /data/x && echo written; ls -d /new /etc/mine; ls /etc/mine", security);
    let own = pod.dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("seen"), "").unwrap();
    config.mounts =
        vec![Mount { container_path: "/etc/mine".into(), host_path: own.display().to_string(), ..Default::default() }];
    assert_eq!(pod.run(&config), (0, "image\nwritten\n/etc/mine\n/new\nseen\n".to_owned()));
    assert!(!pod.rootfs.join("data/x").exists() && pod.dir.path().join("volumes-1/0/x").exists());
    // The next container has volumes of its own.
    config.command = strings(&["ls", "/data"]);
    assert_eq!(pod.run(&config).1, "sub\n");
}

/// Calls the kernel and says the errors. Numbers are x86-64's.
const CALLS: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    pid = os.fork()
    if pid == 0:
        r = libc.syscall(number, *[ctypes.c_long(a) for a in args])
        e = ctypes.get_errno()
        os._exit(0 if r >= 0 and e == 0 else e)
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
NEWUSER = 0x10000000
call("unshare", 272, NEWUSER)
call("unshare files", 272, 0x400)
call("clone", 56, NEWUSER | 17, 0, 0, 0, 0)
call("clone3", 435, 0, 0)
call("mount", 165, 0, 0, 0, 0, 0)
call("keyctl", 250, 0, -3, 0)
call("add_key", 248, 0, 0, 0, 0, 0)
call("bpf", 321, 0, 0, 0)
call("io_uring_setup", 425, 0, 0)
call("userfaultfd", 323, 0)
call("personality", 135, 0xffffffff)
call("personality bsd", 135, 6)
call("socket", 41, 1, 1, 0)
call("socket vsock", 41, 40, 1, 0)
call("chroot", 161, 0)
call("a newer one", 463, -1, 0, 0, 0, 0, 0)
call("getpid", 39)
"#;

/// A container of the host's own files, which has python.
fn python(security: LinuxContainerSecurityContext) -> ContainerConfig {
    ContainerConfig { command: strings(&["/usr/bin/python3", "-c", CALLS]), ..script("", security) }
}

fn answers(pod: &mut Pod, security: LinuxContainerSecurityContext) -> BTreeMap<String, i32> {
    let (code, log) = pod.run(&python(security));
    assert_eq!(code, 0, "{log}");
    log.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, e)| (name.to_owned(), e.parse().unwrap()))
        .collect()
}

pub(crate) fn the_usual_system_calls() {
    let Some(mut pod) = Pod::new() else { return };
    if !Path::new("/usr/bin/python3").exists() || !cfg!(target_arch = "x86_64") {
        not_run("there is no /usr/bin/python3, or not x86-64");
        return;
    }
    const EPERM: i32 = 1;
    const EFAULT: i32 = 14;
    const ENOSYS: i32 = 38;
    pod.rootfs = "/".into();
    let add = |names: &[&str]| Some(Capability { add_capabilities: strings(names), ..Default::default() });
    let base = LinuxContainerSecurityContext { readonly_rootfs: true, ..plain() };
    let usual = LinuxContainerSecurityContext { seccomp: profile(ProfileType::RuntimeDefault, ""), ..base.clone() };
    for no_new_privs in [false, true] {
        let found = answers(&mut pod, LinuxContainerSecurityContext { no_new_privs, ..usual.clone() });
        for name in [
            "unshare",
            "unshare files",
            "clone",
            "mount",
            "keyctl",
            "add_key",
            "bpf",
            "io_uring_setup",
            "userfaultfd",
            "personality bsd",
            "socket vsock",
        ] {
            assert_eq!(found[name], EPERM, "{name} of {found:?}");
        }
        for name in ["clone3", "a newer one"] {
            assert_eq!(found[name], ENOSYS, "{name} of {found:?}");
        }
        for name in ["personality", "socket", "getpid"] {
            assert_eq!(found[name], 0, "{name} of {found:?}");
        }
        assert_eq!(found["chroot"], EFAULT, "CAP_SYS_CHROOT is among the usual ones");
    }
    let admin = LinuxContainerSecurityContext { capabilities: add(&["SYS_ADMIN"]), ..usual };
    let found = answers(&mut pod, admin);
    assert_eq!((found["unshare"], found["keyctl"], found["unshare files"]), (0, EPERM, 0), "{found:?}");
    assert!(found["clone3"] != ENOSYS && found["mount"] != EPERM, "{found:?}");
    let open = LinuxContainerSecurityContext { seccomp: profile(ProfileType::Unconfined, ""), ..base };
    let found = answers(&mut pod, open);
    assert_eq!((found["unshare"], found["unshare files"], found["personality bsd"]), (0, 0, 0), "{found:?}");
    assert!(found["a newer one"] != ENOSYS || !newest_is_known(), "{found:?}");
}

/// Whether this kernel has the call that stands for newer ones (Linux 6.13).
fn newest_is_known() -> bool {
    let release = rubelet_host::proc::kernel_release();
    rubelet_host::proc::kernel_version(&release) >= (6, 13)
}

pub(crate) fn a_profile_of_its_own() {
    let Some(mut pod) = Pod::new() else { return };
    let path = pod.dir.path().join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
    fs::write(&path, text).unwrap();
    let seccomp = profile(ProfileType::Localhost, path.to_str().unwrap());
    let security = LinuxContainerSecurityContext { seccomp, ..plain() };
    let (_, log) = pod.run(&script("mkdir /tmp/x", security));
    assert_eq!(log, "mkdir: can't create directory '/tmp/x': No space left on device\n");
}
