//! A container to try things in: busybox as its root, a bundle in a temporary directory, and cgroups of its own.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rubelet_shim::setup::{Cgroup, Setup, write_bundle};
use rubelet_shim::spec::{Capabilities, Linux, Mount, Namespace, Process, Root, Spec};
use rubelet_shim::wire::Exit;
use rubelet_shim::{Program, Shim, ShimError, Standing};

static COUNT: AtomicU32 = AtomicU32::new(0);
static NOT_RUN: AtomicU32 = AtomicU32::new(0);
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Box_ {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Spec,
    pub(crate) setup: Setup,
    pub(crate) program: Program,
}

fn not_run(why: &str) {
    let count = NOT_RUN.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("not run ({count} so far): {why}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn mount(kind: &str, destination: &str, options: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    }
}

pub(crate) fn bind(source: &Path, destination: &str, options: &str) -> Mount {
    Mount { source: source.display().to_string(), ..mount("bind", destination, options) }
}

fn namespaces() -> Vec<Namespace> {
    ["pid", "network", "ipc", "uts", "mount"]
        .map(|kind| Namespace { kind: kind.to_owned(), path: String::new() })
        .into_iter()
        .collect()
}

impl Box_ {
    /// A container that runs a shell script; `None` when this machine cannot.
    pub(crate) fn script(script: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            not_run("containers need root");
            return None;
        }
        if !Path::new("/usr/bin/busybox").exists() {
            not_run("there is no /usr/bin/busybox (apt-get install busybox-static)");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("shim")
            .tempdir_in(std::env::var_os("SHIM_TEST_DIR").unwrap_or("/tmp".into()))
            .unwrap();
        let root = dir.path().join("rootfs");
        for sub in ["bin", "etc", "proc", "dev", "sys", "tmp", "mnt"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in "sh cat echo sleep id ls mkdir mknod true false kill ps hostname touch stty dd head seq ip readlink env chmod mount trap grep tr wc"
            .split(' ')
        {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
            .unwrap();
        let spec = Spec {
            oci_version: "1.1.0".to_owned(),
            process: Process {
                args: strings(&["sh", "-c", script]),
                env: strings(&["PATH=/bin"]),
                cwd: "/".to_owned(),
                no_new_privileges: true,
                ..Process::default()
            },
            root: Some(Root { path: "rootfs".to_owned(), readonly: false }),
            hostname: "box".to_owned(),
            mounts: vec![
                mount("proc", "/proc", "nosuid,noexec,nodev"),
                mount("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k"),
                mount("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
                mount("mqueue", "/dev/mqueue", "nosuid,noexec,nodev"),
                mount("sysfs", "/sys", "nosuid,noexec,nodev,ro"),
            ],
            linux: Linux { namespaces: namespaces(), ..Linux::default() },
            ..Spec::default()
        };
        let setup = Setup { id: "box".to_owned(), log_path: Some(dir.path().join("0.log")), ..Setup::default() };
        let program = Program::at(Path::new(env!("CARGO_BIN_EXE_rubelet-shim")), &[]).unwrap();
        Some(Self { dir, spec, setup, program })
    }

    pub(crate) fn capabilities(&mut self, names: &[&str]) {
        let names = strings(names);
        self.spec.process.capabilities = Some(Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..Capabilities::default()
        });
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn create(&self) -> Result<Shim, ShimError> {
        write_bundle(self.path(), &self.spec, &self.setup).unwrap();
        Shim::create(&self.program, self.path()).map(|(shim, _)| shim)
    }

    pub(crate) fn start(&self) -> Shim {
        let shim = self.create().unwrap();
        shim.start().unwrap();
        shim
    }

    /// Runs it to its end: exit and log.
    pub(crate) fn run(&self) -> (Exit, String) {
        let shim = self.create().unwrap();
        let watch = shim.watch_exit().unwrap();
        shim.start().unwrap();
        let exit = within(watch);
        (exit, self.log())
    }

    /// What it wrote, without time and tags.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.path().join("0.log")).unwrap_or_default();
        text.split_terminator('\n').map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n").collect()
    }

    /// Waits until a text is in the log.
    pub(crate) fn until_logged(&self, text: &str) {
        until(&format!("{text:?} in the log"), || self.log().contains(text));
    }
}

impl Drop for Box_ {
    /// A test that failed leaves no process either.
    fn drop(&mut self) {
        match Shim::attach(self.path()) {
            Ok(Standing::Kept(shim)) => {
                let watch = shim.watch_exit();
                let _ = shim.kill(libc::SIGKILL, true);
                // Its end is written before the directory goes.
                let _ = watch.map(rubelet_shim::ExitWatch::wait);
            }
            Ok(Standing::Lost(birth)) => drop(Shim::end_lost(self.path(), &birth)),
            Ok(Standing::Ended(_) | Standing::Unborn) | Err(_) => {}
        }
    }
}

/// The end of a container that must come.
pub(crate) fn within(watch: rubelet_shim::ExitWatch) -> Exit {
    let timeout = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(watch.as_fd(), rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1, "the container has not ended");
    watch.wait().unwrap()
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// The end of a bundle's container, however it is found.
pub(crate) fn ended(bundle: &Path) -> Option<Exit> {
    match Shim::attach(bundle).unwrap() {
        Standing::Ended(exit) => Some(exit),
        Standing::Kept(_) | Standing::Lost(_) | Standing::Unborn => None,
    }
}

/// Cgroups of one test; removed at its end.
pub(crate) struct Cgroups(pub(crate) Vec<Cgroup>);

impl Cgroups {
    /// In the named hierarchies of version 1, `""` for version 2. `None` when one is not mounted.
    pub(crate) fn make(names: &[&str]) -> Option<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut made = Self(Vec::new());
        for name in names {
            let mount = Path::new("/sys/fs/cgroup").join(if name.is_empty() { "unified" } else { name });
            if !mount.join("cgroup.procs").exists() {
                not_run(&format!("no cgroup hierarchy {}", mount.display()));
                return None;
            }
            let dir = mount.join(format!("rubelet-shim-test-{}-{count}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            if *name == "cpuset" {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    fs::write(dir.join(file), fs::read(mount.join(file)).unwrap()).unwrap();
                }
            }
            made.0.push(Cgroup { name: (*name).to_owned(), dir });
        }
        Some(made)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|cgroup| fs::read_to_string(cgroup.dir.join("cgroup.procs")).unwrap().is_empty())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            let begin = Instant::now();
            while fs::remove_dir(&cgroup.dir).is_err() && begin.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
    }
}
