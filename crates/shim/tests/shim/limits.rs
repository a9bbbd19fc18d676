//! What a container may not do.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use rubelet_shim::ExecStreams;
use rubelet_shim::spec::{DeviceRule, IdMapping, Namespace, Rlimit, Seccomp, SeccompRule};

use crate::box_::{Box_, Cgroups, bind};

#[test]
fn paths_are_hidden_or_read_only() {
    let Some(mut box_) = Box_::script(
        "cat /proc/keys | wc -c; ls /proc/acpi /sys/firmware | grep -v -c :; (echo x > /proc/sys/kernel/domainname) 2>&1; mkdir /etc/x 2>&1 || echo no; touch /tmp/y && echo yes",
    ) else {
        return;
    };
    box_.spec.linux.masked_paths =
        ["/proc/keys", "/proc/acpi", "/sys/firmware", "/no/such"].map(str::to_owned).to_vec();
    box_.spec.linux.readonly_paths = ["/proc/sys", "/etc", "/none"].map(str::to_owned).to_vec();
    let (_, log) = box_.run();
    assert!(log.starts_with("0\n"), "{log}");
    assert!(log.contains("/proc/sys/kernel/domainname: Read-only file system"), "{log}");
    assert!(log.ends_with("Read-only file system\nno\nyes\n"), "{log}");
    assert!(!box_.root().join("etc/x").exists() && box_.root().join("tmp/y").exists());
}

#[test]
fn a_root_may_be_read_only_and_mounts_have_their_flags() {
    let Some(mut box_) = Box_::script(
        "touch /x; touch /mnt/ro/x; touch /mnt/rw/x && echo written; touch /mnt/deep/sub/x; cat /mnt/file",
    ) else {
        return;
    };
    let (ro, rw, deep) = (box_.path().join("ro"), box_.path().join("rw"), box_.path().join("deep"));
    for dir in
        [&ro, &rw, &deep, &box_.root().join("mnt/ro"), &box_.root().join("mnt/rw"), &box_.root().join("mnt/deep")]
    {
        fs::create_dir_all(dir).unwrap();
    }
    fs::create_dir(deep.join("sub")).unwrap();
    fs::write(box_.path().join("file"), "content").unwrap();
    fs::write(box_.root().join("mnt/file"), "").unwrap();
    box_.spec.root.as_mut().unwrap().readonly = true;
    box_.spec.mounts.extend([
        bind(&ro, "/mnt/ro", "rbind,rprivate,ro"),
        bind(&rw, "/mnt/rw", "rbind,rprivate,rw"),
        bind(&deep, "/mnt/deep", "rbind,rprivate,rro"),
        bind(&box_.path().join("file"), "/mnt/file", "bind,ro"),
    ]);
    let (exit, log) = box_.run();
    assert_eq!(log.matches("Read-only file system").count(), 3, "{log}");
    assert!(log.contains("written\n") && log.ends_with("content\n"), "{log}");
    assert_eq!(exit.code, 0);
}

/// A file system of the host that is shared, until it is dropped.
struct Shared(std::path::PathBuf);

impl Shared {
    fn make(dir: &std::path::Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        rubelet_host::mount::tmpfs(dir, rubelet_host::mount::Tmpfs::default()).unwrap();
        rubelet_host::mount::make_rshared(dir).unwrap();
        Self(dir.to_owned())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        while rubelet_host::mount::unmount(&self.0, rubelet_host::mount::Unmount::Lazy).is_ok()
            && rubelet_host::mount::is_mount_point(&self.0).unwrap_or(false)
        {}
    }
}

#[test]
fn mounts_go_to_and_fro_as_said() {
    let Some(mut box_) = Box_::script("") else { return };
    let shared = Shared::make(&box_.path().join("shared"));
    for name in ["inner", "later"] {
        fs::create_dir(shared.0.join(name)).unwrap();
    }
    box_.spec.mounts.extend([
        bind(&shared.0, "/mnt/both", "rbind,rshared"),
        bind(&shared.0, "/mnt/from", "rbind,rslave"),
        bind(&shared.0, "/mnt/none", "rbind,rprivate"),
    ]);
    box_.spec.process.args[2] =
        "mount -t tmpfs tmpfs /mnt/both/inner && echo mounted; cat; for at in both from none; do ls /mnt/$at/later; done".to_owned();
    box_.capabilities(&["CAP_SYS_ADMIN"]);
    box_.setup.stdin = true;
    let shim = box_.start();
    box_.until_logged("mounted");
    assert!(rubelet_host::mount::is_mount_point(&shared.0.join("inner")).unwrap());
    let later = Shared::make(&shared.0.join("later"));
    fs::write(later.0.join("seen"), "").unwrap();
    let watch = shim.watch_exit().unwrap();
    shim.close_stdin().unwrap();
    assert_eq!(crate::box_::within(watch).code, 0);
    assert_eq!(box_.log(), "mounted\nseen\nseen\n");
    drop(later);
    rubelet_host::mount::unmount(&shared.0.join("inner"), rubelet_host::mount::Unmount::Plain).unwrap();
}

#[test]
fn links_of_the_image_do_not_lead_mounts_outside() {
    let Some(mut box_) = Box_::script("ls /mnt/link/") else { return };
    let outside = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("seen"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), box_.root().join("mnt/link")).unwrap();
    box_.spec.mounts.push(bind(source.path(), "/mnt/link/sub/../deep", "rbind,ro"));
    box_.spec.process.args[2] = format!("ls {}/deep", outside.path().display());
    // The link is followed inside the root: the same path there is made.
    fs::create_dir_all(box_.root().join(outside.path().strip_prefix("/").unwrap()).join("sub")).unwrap();
    let (exit, log) = box_.run();
    assert_eq!((exit.code, log.as_str()), (0, "seen\n"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn capabilities_are_exactly_those() {
    let Some(mut box_) =
        Box_::script("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status; id -u; id -G; echo $HOME")
    else {
        return;
    };
    box_.capabilities(&["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    let (_, log) = box_.run();
    let flat = log.replace('\t', " ");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(flat.contains(&format!("{set}: 0000000000000401")), "{log}");
    }
    assert!(flat.contains("CapInh: 0000000000000000") && flat.contains("NoNewPrivs: 1"), "{log}");
    // Another user keeps what is ambient only.
    box_.spec.process.user.uid = 1000;
    box_.spec.process.user.gid = 1000;
    box_.spec.process.user.additional_gids = vec![7];
    let capabilities = box_.spec.process.capabilities.as_mut().unwrap();
    capabilities.ambient = vec!["CAP_NET_BIND_SERVICE".to_owned()];
    capabilities.inheritable = capabilities.ambient.clone();
    fs::remove_file(box_.path().join("0.log")).unwrap();
    let (_, log) = box_.run();
    assert!(log.replace('\t', " ").contains("CapEff: 0000000000000400"), "{log}");
    assert!(log.ends_with("1000\n1000 7\n/home/web\n"), "{log}");
}

#[test]
fn system_calls_are_refused() {
    let Some(mut box_) = Box_::script("mkdir /tmp/a 2>&1 || echo refused; touch /tmp/b && echo made") else { return };
    box_.spec.linux.seccomp = Some(Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"].map(str::to_owned).to_vec(),
        syscalls: vec![SeccompRule {
            names: ["mkdir", "mkdirat"].map(str::to_owned).to_vec(),
            action: "SCMP_ACT_ERRNO".to_owned(),
            ..SeccompRule::default()
        }],
        ..Seccomp::default()
    });
    for no_new_privileges in [true, false] {
        box_.spec.process.no_new_privileges = no_new_privileges;
        let _ = fs::remove_file(box_.path().join("0.log"));
        let (_, log) = box_.run();
        assert_eq!(log, "mkdir: can't create directory '/tmp/a': Operation not permitted\nrefused\nmade\n");
    }
}

fn deny_all() -> Vec<DeviceRule> {
    vec![DeviceRule { access: "rwm".to_owned(), ..DeviceRule::default() }]
}

/// `/dev/kmsg` can be made, and not be read; the plain devices work.
const DEVICES: &str = "mknod /tmp/kmsg c 1 11 && dd if=/tmp/kmsg bs=1 count=0 2>&1; head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo fine; ls -l /dev/fd /dev/ptmx | wc -l";
const DEVICES_REFUSED: &str = "dd: can't open '/tmp/kmsg': Operation not permitted\n3\nfine\n2\n";

#[test]
fn devices_are_refused_on_cgroup_v1() {
    let Some(mut box_) = Box_::script(DEVICES) else { return };
    let Some(cgroups) = Cgroups::make(&["devices"]) else { return };
    box_.spec.linux.resources.devices = deny_all();
    box_.setup.cgroups = cgroups.0.clone();
    assert_eq!(box_.run().1, DEVICES_REFUSED);
    box_.spec.linux.resources.devices =
        vec![DeviceRule { allow: true, access: "rwm".to_owned(), ..DeviceRule::default() }];
    box_.spec.process.args[2] = "mknod /tmp/kmsg2 c 1 11 && dd if=/tmp/kmsg2 bs=1 count=0 && echo open".to_owned();
    fs::remove_file(box_.path().join("0.log")).unwrap();
    assert!(box_.run().1.contains("open\n"));
}

#[test]
fn devices_are_refused_on_cgroup_v2() {
    let Some(mut box_) = Box_::script(DEVICES) else { return };
    let Some(cgroups) = Cgroups::make(&[""]) else { return };
    box_.spec.linux.resources.devices = deny_all();
    box_.setup.cgroups = cgroups.0.clone();
    assert_eq!(box_.run().1, DEVICES_REFUSED);
    // A filter stays with its cgroup.
    let Some(cgroups) = Cgroups::make(&[""]) else { return };
    box_.setup.cgroups = cgroups.0.clone();
    box_.spec.linux.resources.devices.push(DeviceRule {
        allow: true,
        kind: "c".to_owned(),
        major: Some(1),
        minor: Some(11),
        access: "r".to_owned(),
    });
    box_.spec.process.args[2] =
        "dd if=/tmp/kmsg bs=1 count=0 && echo open; (echo x > /tmp/kmsg) || echo not written".to_owned();
    fs::remove_file(box_.path().join("0.log")).unwrap();
    let log = box_.run().1;
    assert!(log.contains("open\n") && log.contains("not written\n"), "{log}");
}

#[test]
fn device_rules_need_a_cgroup_that_keeps_them() {
    let Some(mut box_) = Box_::script("true") else { return };
    box_.spec.linux.resources.devices = deny_all();
    assert!(box_.create().unwrap_err().to_string().contains("device rules without a cgroup"));
}

#[test]
fn a_container_sees_its_own_cgroups() {
    let script = "ls -x /sys/fs/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs; cat /sys/fs/cgroup/pids/pids.max; mkdir /sys/fs/cgroup/pids/x || echo no";
    let Some(mut box_) = Box_::script(script) else { return };
    let Some(cgroups) = Cgroups::make(&["pids", "memory", "systemd"]) else { return };
    fs::write(cgroups.0[0].dir.join("pids.max"), "77").unwrap();
    box_.setup.cgroups = cgroups.0.clone();
    box_.spec.mounts.push(crate::box_::mount("cgroup", "/sys/fs/cgroup", "nosuid,noexec,nodev,relatime,ro"));
    let (_, log) = box_.run();
    let names: Vec<&str> = log.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(names, ["memory", "pids", "systemd"]);
    assert!(log.contains("\n1\n") && log.contains("\n77\n") && log.contains("no\n"), "{log}");
    // In a cgroup namespace of its own, paths begin at its cgroup; the file system of version 2 is a new mount.
    let Some(unified) = Cgroups::make(&[""]) else { return };
    box_.setup.cgroups = unified.0.clone();
    box_.spec.linux.namespaces.push(Namespace { kind: "cgroup".to_owned(), path: String::new() });
    box_.spec.process.args[2] = "grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -1".to_owned();
    fs::remove_file(box_.path().join("0.log")).unwrap();
    assert_eq!(box_.run().1, "0::/\n1\n");
}

const MAPPING: IdMapping = IdMapping { container_id: 0, host_id: 1_000_000, size: 65536 };

fn with_users(box_: &mut Box_) {
    box_.spec.linux.namespaces.push(Namespace { kind: "user".to_owned(), path: String::new() });
    box_.spec.linux.uid_mappings = vec![MAPPING];
    box_.spec.linux.gid_mappings = vec![MAPPING];
    box_.setup.id_mapped_root = true;
}

#[test]
fn a_user_namespace_with_id_mapped_root_and_mounts() {
    let Some(mut box_) = Box_::script(
        "id -u; cat /proc/self/uid_map; touch /etc/made /mnt/made && ls -ln /mnt | grep -c ' 0  '; chmod 600 /mnt/theirs; cat /dev/null && echo x >/dev/null && echo null; hostname",
    ) else {
        return;
    };
    let volume = box_.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("theirs"), "").unwrap();
    chown(volume.join("theirs"), Some(77), Some(77)).unwrap();
    with_users(&mut box_);
    let mut mount = bind(&volume, "/mnt", "rbind,rprivate");
    (mount.uid_mappings, mount.gid_mappings) = (vec![MAPPING], vec![MAPPING]);
    box_.spec.mounts.push(mount);
    // The container's user may not pass the directories above its sources.
    fs::set_permissions(box_.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (exit, log) = box_.run();
    assert_eq!(exit.code, 0, "{log}");
    let flat: Vec<String> = log.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!((flat[0].as_str(), flat[1].as_str()), ("0", "0 1000000 65536"), "{log}");
    assert!(log.ends_with("null\nbox\n"), "{log}");
    for made in [volume.join("made"), box_.root().join("etc/made")] {
        let owner = fs::metadata(&made).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (0, 0), "{}", made.display());
    }
    assert_eq!(fs::metadata(volume.join("theirs")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_program_is_run_in_a_user_namespace() {
    let Some(mut box_) = Box_::script("sleep 1000") else { return };
    with_users(&mut box_);
    box_.spec.linux.namespaces.push(Namespace { kind: "cgroup".to_owned(), path: String::new() });
    let shim = box_.start();
    let (reader, writer) = std::io::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let owner = null.metadata().unwrap().uid();
    let streams = ExecStreams::Pipes([null.into(), writer.try_clone().unwrap().into(), writer.into()]);
    let script = [
        "sh",
        "-c",
        "id -u; touch /tmp/theirs; cat /proc/self/uid_map | wc -l; readlink /proc/self/ns/cgroup; echo $$",
    ];
    let running = shim.exec(&script.map(str::to_owned), &[], streams).unwrap();
    let said = std::io::read_to_string(reader).unwrap();
    assert_eq!(running.wait().unwrap().code, 0);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), owner, "the host's device stays the host's");
    let first = shim.state().unwrap().pid;
    let cgroup = fs::read_link(format!("/proc/{first}/ns/cgroup")).unwrap();
    assert_eq!(said, format!("0\n1\n{}\n2\n", cgroup.display()));
    assert_eq!(fs::metadata(box_.root().join("tmp/theirs")).unwrap().uid(), 0, "the root is id-mapped");
    let watch = shim.watch_exit().unwrap();
    shim.kill(9, false).unwrap();
    crate::box_::within(watch);
}

#[test]
fn a_working_directory_outside_is_refused() {
    let Some(mut box_) = Box_::script("true") else { return };
    for number in 3..40 {
        box_.spec.process.cwd = format!("/proc/self/fd/{number}");
        let text = box_.create().unwrap_err().to_string();
        assert!(text.contains("mkdir /proc/self/fd/"), "{text}");
    }
}

#[test]
fn hooks_are_refused() {
    let Some(mut box_) = Box_::script("true") else { return };
    box_.spec.hooks.insert("poststop".to_owned(), vec![serde_json::json!({"path": "/bin/true"})]);
    assert!(box_.create().unwrap_err().to_string().contains("hooks are not supported"));
}

#[test]
fn containers_join_the_user_namespace_of_their_pod() {
    let Some(mut pause) = Box_::script("") else { return };
    pause.setup.pause = true;
    pause.spec.root = None;
    pause.spec.mounts.clear();
    with_users(&mut pause);
    pause.setup.id_mapped_root = false;
    let sandbox = pause.start();
    let holder = sandbox.state().unwrap().pid;
    let Some(mut app) = Box_::script("readlink /proc/self/ns/user; id -u; hostname; echo $$") else { return };
    with_users(&mut app);
    for namespace in &mut app.spec.linux.namespaces {
        let file = match namespace.kind.as_str() {
            "network" => "net",
            "ipc" | "uts" | "user" => &namespace.kind,
            _ => continue,
        };
        namespace.path = format!("/proc/{holder}/ns/{file}");
    }
    let (exit, log) = app.run();
    let user = fs::read_link(format!("/proc/{holder}/ns/user")).unwrap();
    assert_eq!((exit.code, log), (0, format!("{}\n0\nbox\n1\n", user.display())));
    let watch = sandbox.watch_exit().unwrap();
    sandbox.kill(libc::SIGTERM, false).unwrap();
    crate::box_::within(watch);
}

#[test]
fn limits_sysctls_scores_and_labels() {
    let Some(mut box_) =
        Box_::script("ulimit -n; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start")
    else {
        return;
    };
    box_.spec.process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 123, soft: 123 }];
    box_.spec.process.oom_score_adj = Some(500);
    box_.spec.linux.sysctl.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned());
    assert_eq!(box_.run().1, "123\n500\n80\n");
    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        box_.spec.process.apparmor_profile = "no-such-profile".to_owned();
        assert!(box_.create().unwrap_err().to_string().contains("apparmor failed to apply profile"));
    }
}

#[test]
fn the_hosts_program_is_out_of_reach() {
    let Some(mut pause) = Box_::script("") else { return };
    pause.setup.pause = true;
    pause.spec.root = None;
    pause.spec.mounts.clear();
    let sandbox = pause.start();
    let holder = sandbox.state().unwrap().pid;
    // From the host, with every right: the program's file is on a read-only mount.
    let opened = fs::OpenOptions::new().append(true).open(format!("/proc/{holder}/exe")).unwrap_err();
    assert!([libc::EROFS, libc::ETXTBSY].contains(&opened.raw_os_error().unwrap()), "{opened}");
    let Some(mut app) = Box_::script("readlink /proc/1/exe || echo hidden; cat /proc/1/maps || echo hidden") else {
        return;
    };
    app.spec.linux.namespaces[0].path = format!("/proc/{holder}/ns/pid");
    app.capabilities(&["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    assert_eq!(app.run().1.matches("hidden").count(), 2);
    let watch = sandbox.watch_exit().unwrap();
    sandbox.kill(libc::SIGTERM, false).unwrap();
    crate::box_::within(watch);
}

#[test]
fn the_pause_process_has_no_rights() {
    let Some(mut pause) = Box_::script("") else { return };
    pause.setup.pause = true;
    pause.spec.root = None;
    pause.spec.mounts.clear();
    pause.spec.process.capabilities = Some(rubelet_shim::spec::Capabilities::default());
    pause.spec.process.user.uid = 1000;
    pause.spec.process.user.gid = 77;
    pause.spec.process.user.additional_gids = vec![9];
    // What it needs to wait, to reap and to end.
    let names = ["rt_sigaction", "rt_sigprocmask", "rt_sigtimedwait", "rt_sigreturn", "wait4", "exit_group", "prctl"];
    pause.spec.linux.seccomp = Some(Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        syscalls: vec![SeccompRule {
            names: names.map(str::to_owned).to_vec(),
            action: "SCMP_ACT_ALLOW".to_owned(),
            ..SeccompRule::default()
        }],
        ..Seccomp::default()
    });
    let sandbox = pause.start();
    let pid = sandbox.state().unwrap().pid;
    // It is told to go and then gives its last rights away.
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap().replace('\t', " ");
    crate::box_::until("a filter", || status().contains("Seccomp: 2"));
    let status = status();
    for line in [
        "CapEff: 0000000000000000",
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "Uid: 1000 1000",
        "Gid: 77 77",
        "Groups: 9",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let watch = sandbox.watch_exit().unwrap();
    sandbox.kill(libc::SIGTERM, false).unwrap();
    assert_eq!(crate::box_::within(watch).code, 0);
}
