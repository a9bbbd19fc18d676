//! What a real runtime needs around it: images, a registry, a network's configuration, a folder. All of it ends with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rubelet_testkit::contract::{Need, Settings};

/// The image that is on the node, in the archive.
pub(crate) const IMAGE: &str = "localhost/busybox:1";
/// Parent of the pods' cgroups.
const CGROUP: &str = "/rubelet-contract";
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a registry beside it.
pub(crate) struct Machine {
    pub(crate) folder: tempfile::TempDir,
    registry: Child,
    address: String,
}

/// Whether a kind of runtime is to be tried; says so if it is not.
pub(crate) fn is_wanted(kind: &str) -> bool {
    let wanted = std::env::var("RUBELET_CONTRACT").unwrap_or_default();
    let is_wanted = wanted.split(',').any(|word| word == kind);
    if !is_wanted {
        eprintln!("not run: RUBELET_CONTRACT does not name {kind}");
    }
    is_wanted
}

impl Machine {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("contract").tempdir().unwrap();
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let settings = serde_json::json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("registry")}},
            "http": {"addr": free.to_string()},
        });
        std::fs::write(folder.path().join("registry.yml"), settings.to_string()).unwrap();
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("registry.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("registry.log")).unwrap())
            .spawn()
            .expect("docker-registry is installed");
        let this = Self { folder, registry, address: free.to_string() };
        this.wait("the registry answers", || std::net::TcpStream::connect(free).is_ok());
        this.images("push", &format!("http://{free}"));
        this.images("archive", &this.path("images.tar").display().to_string());
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn images(&self, verb: &str, argument: &str) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut python = Command::new("python3");
        python.arg(here.join("tests/contract/images.py")).arg(here.join("../../tests/lib")).args([verb, argument]);
        let output = python.output().expect("python3 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits a minute at most.
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let give_up_at = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(
                Instant::now() < give_up_at,
                "not within {PATIENCE:?}: {what}; see {}",
                self.folder.path().display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            image: IMAGE.to_owned(),
            folder: self.path("pods"),
            cgroup_parent: CGROUP.to_owned(),
            has: vec![Need::Processes, Need::Network, Need::Registry, Need::Root],
            registry: self.address.clone(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.registry.kill();
        let _ = self.registry.wait();
        // What a failed scenario left; nothing of it may outlive the test.
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(1));
        for target in targets.filter(|target| Path::new(target).starts_with(self.folder.path())).rev() {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
        for top in ["/sys/fs/cgroup", "/sys/fs/cgroup/*"] {
            let script = format!("find {top}{CGROUP} -depth -type d -exec rmdir {{}} + 2>/dev/null");
            let _ = Command::new("sh").args(["-c", &script]).status();
        }
    }
}
