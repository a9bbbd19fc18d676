//! A pod to try things in: a pause process, and containers of busybox.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rubelet_proto::cri::{
    ContainerConfig, LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, SecurityProfile,
};
use rubelet_runtime::image::document::Config;
use rubelet_runtime::spec::{self, Built, HostFacts, SpecError, Surroundings};
use rubelet_shim::setup::{Cgroup, Setup, write_bundle};
use rubelet_shim::wire::Exit;
use rubelet_shim::{ExitWatch, Program, Shim, Standing};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Pod {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PodSandboxConfig,
    pub(crate) host: HostFacts,
    pub(crate) image: Config,
    /// The root of the next container.
    pub(crate) rootfs: PathBuf,
    program: Program,
    pause: Option<(Shim, u32)>,
    cgroup: Option<Cgroup>,
    count: usize,
}

pub(crate) fn not_run(why: &str) {
    eprintln!("not run: {why}");
}

impl Pod {
    /// `None` when this machine cannot.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            not_run("containers need root");
            return None;
        }
        if !Path::new("/usr/bin/busybox").exists() {
            not_run("there is no /usr/bin/busybox (apt-get install busybox-static)");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("pod").tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for sub in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in "sh cat echo id ls mkdir mknod grep head hostname touch chroot sed wc dd rm readlink".split(' ') {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
            .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nlogs:x:7:web\n").unwrap();
        for (file, text) in [("resolv.conf", "nameserver 10.96.0.10\n"), ("hostname", "web\n"), ("hosts", "# hosts\n")]
        {
            fs::write(dir.path().join(file), text).unwrap();
        }
        fs::create_dir(dir.path().join("shm")).unwrap();
        let seccomp = Some(SecurityProfile::default());
        let security = LinuxSandboxSecurityContext { seccomp, ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        let config = PodSandboxConfig { hostname: "web".into(), linux: Some(linux), ..Default::default() };
        Some(Self {
            dir,
            config,
            host: HostFacts::look(false),
            image: Config::default(),
            rootfs,
            program: Program::this().unwrap(),
            pause: None,
            cgroup: cgroup(),
            count: 0,
        })
    }

    fn pause(&mut self) -> u32 {
        if let Some((_, pid)) = &self.pause {
            return *pid;
        }
        let spec = spec::sandbox_spec(&self.config, None, &self.host).unwrap();
        let bundle = self.dir.path().join("pause");
        fs::create_dir(&bundle).unwrap();
        let setup = Setup { id: "pause".to_owned(), pause: true, ..Setup::default() };
        write_bundle(&bundle, &spec, &setup).unwrap();
        let (shim, state) = Shim::create(&self.program, &bundle).unwrap();
        shim.start().unwrap();
        self.pause = Some((shim, state.pid));
        state.pid
    }

    pub(crate) fn build(&mut self, config: &ContainerConfig) -> Result<Built, SpecError> {
        let pause_pid = self.pause();
        let file = |name: &str| self.dir.path().join(name);
        let around = Surroundings {
            config: &self.config,
            netns: None,
            pause_pid,
            target_pid: None,
            shm: &file("shm"),
            resolv_conf: &file("resolv.conf"),
            hostname: &file("hostname"),
            hosts: &file("hosts"),
            volumes: &file(&format!("volumes-{}", self.count)),
            host: &self.host,
        };
        spec::container_spec("id", config, &around, &self.image, &self.rootfs)
    }

    /// Runs a container to its end: its exit code and what it wrote.
    pub(crate) fn run(&mut self, config: &ContainerConfig) -> (i32, String) {
        self.count += 1;
        let mut built = self.build(config).unwrap();
        let bundle = self.dir.path().join(format!("container-{}", self.count));
        fs::create_dir(&bundle).unwrap();
        built.setup.log_path = Some(bundle.join("log"));
        match &self.cgroup {
            Some(cgroup) => built.setup.cgroups.push(cgroup.clone()),
            None => built.spec.linux.resources.devices.clear(),
        }
        write_bundle(&bundle, &built.spec, &built.setup).unwrap();
        let (shim, _) = Shim::create(&self.program, &bundle).unwrap();
        let watch = shim.watch_exit().unwrap();
        shim.start().unwrap();
        let exit = within(watch);
        let log = fs::read_to_string(bundle.join("log")).unwrap_or_default();
        // Without time and tags.
        let lines = log.split_terminator('\n').map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n");
        (exit.code, lines.collect())
    }

    pub(crate) fn has_device_rules(&self) -> bool {
        self.cgroup.is_some()
    }
}

/// A container that runs a shell script, with a security context.
pub(crate) fn script(text: &str, security: LinuxContainerSecurityContext) -> ContainerConfig {
    let namespaces = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
    let security = LinuxContainerSecurityContext { namespace_options: Some(namespaces), ..security };
    ContainerConfig {
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
        linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

/// A cgroup that keeps device rules. It stays in the hierarchy for as long as the process of the test.
fn cgroup() -> Option<Cgroup> {
    let is_v1 = Path::new("/sys/fs/cgroup/devices/cgroup.procs").exists();
    let (name, mount) = if is_v1 { ("devices", "/sys/fs/cgroup/devices") } else { ("", "/sys/fs/cgroup") };
    let dir = tempfile::Builder::new().prefix("rubelet-runtime-test-").tempdir_in(mount).ok()?;
    Some(Cgroup { name: name.to_owned(), dir: dir.keep() })
}

impl Drop for Pod {
    /// A test that failed leaves no process either.
    fn drop(&mut self) {
        for number in 1..=self.count {
            if let Ok(Standing::Kept(shim)) = Shim::attach(&self.dir.path().join(format!("container-{number}"))) {
                end(&shim);
            }
        }
        if let Some((shim, _)) = &self.pause {
            end(shim);
        }
        if let Some(cgroup) = &self.cgroup {
            let begin = Instant::now();
            while fs::remove_dir(&cgroup.dir).is_err() && begin.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
    }
}

fn end(shim: &Shim) {
    let watch = shim.watch_exit();
    let _ = shim.kill(9, true);
    let _ = watch.map(ExitWatch::wait);
}

/// The end of a container that must come.
fn within(watch: ExitWatch) -> Exit {
    let timeout = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(watch.as_fd(), rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1, "the container has not ended");
    watch.wait().unwrap()
}
