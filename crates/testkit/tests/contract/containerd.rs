//! Debian 12's containerd 1.6 and Debian forky's containerd 2, each of our own: its own folder, socket and network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rubelet_cri::Remote;
use rubelet_testkit::contract::Bench;

use crate::machine::{Machine, is_wanted};
use crate::report::play;

/// What containerd 1.6 does otherwise.
const KNOWN_1: &[(&str, &str)] = &[
    ("the cgroup driver is told", "since 2"),
    ("the image's id is told", "not by 2.1 either"),
    ("the container's own stop signal is sent", "not by 2.1 either"),
    ("the user of a container is told", "since 2"),
    ("the image's named user is taken with its groups", "since 2"),
    ("a container's life is told in events", "since 2"),
    ("a sandbox's life is told in events", "since 2"),
    ("everyone who listens is told", "since 2"),
    ("metrics are described and told", "since 2.2"),
    ("a read-only mount is read-only below it too when asked", "since 2"),
    ("a pod may have users of its own", "since 2"),
    ("what a pod with users of its own mounts belongs to whom it belonged", "since 2"),
    ("a handler is told", "since 2"),
    ("an image is mounted as a volume", "since 2.1"),
    ("a part of an image is mounted as a volume", "since 2.2"),
    ("the status tells which image is mounted", "not by 2.1 either"),
];
/// What containerd 2 does otherwise.
const KNOWN_2: &[(&str, &str)] = &[
    ("the image's id is told", "not by 2.1"),
    ("the container's own stop signal is sent", "not by 2.1"),
    ("metrics are described and told", "since 2.2"),
    ("a part of an image is mounted as a volume", "since 2.2"),
    ("the status tells which image is mounted", "not by 2.1"),
    ("a part that an image has not is not mounted", "since 2.2"),
    ("a pod may have users of its own", "with runc since 1.2"),
    ("what a pod with users of its own mounts belongs to whom it belonged", "with runc since 1.2"),
];

struct Containerd {
    child: Child,
    programs: PathBuf,
    machine: Machine,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // After a failed scenario something may be left.
        for task in self.ctr(&["tasks", "list", "-q"]).lines() {
            self.ctr(&["tasks", "kill", "-s", "9", task]);
            self.ctr(&["tasks", "delete", "-f", task]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Containerd {
    /// Starts the containerd in this folder of programs.
    fn start(programs: &Path, settings: fn(&Path) -> String) -> Self {
        let machine = Machine::start();
        std::fs::write(machine.path("config.toml"), settings(machine.folder.path())).unwrap();
        std::fs::create_dir(machine.path("cni")).unwrap();
        std::fs::write(machine.path("cni/10-pods.conflist"), network(machine.folder.path())).unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let child = Command::new(programs.join("containerd"))
            .env("PATH", path)
            .arg("--config")
            .arg(machine.path("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(machine.path("containerd.log")).unwrap())
            .spawn()
            .unwrap();
        let this = Self { child, programs: programs.to_owned(), machine };
        this.machine.wait("containerd answers", || this.ctr(&["version"]).contains("Server:"));
        this.ctr(&["images", "import", &this.machine.path("images.tar").display().to_string()]);
        this
    }

    fn ctr(&self, words: &[&str]) -> String {
        let mut ctr = Command::new(self.programs.join("ctr"));
        ctr.arg("-a").arg(self.machine.path("c.sock")).args(["-n", "k8s.io"]).args(words);
        ctr.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    fn bench(&self) -> Arc<Bench> {
        let endpoint = self.machine.path("c.sock").display().to_string();
        let remote = Remote::connect(&endpoint, "", Duration::from_secs(60)).unwrap();
        Bench::new(Arc::new(remote), self.machine.settings())
    }
}

fn network(folder: &Path) -> String {
    let ipam = serde_json::json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.89.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": folder.join("ipam"),
    });
    let bridge = serde_json::json!({
        "type": "bridge", "bridge": "contract0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ipam,
    });
    let ports = serde_json::json!({"type": "portmap", "capabilities": {"portMappings": true}});
    serde_json::json!({"cniVersion": "0.4.0", "name": "contract0", "plugins": [bridge, ports]}).to_string()
}

/// Only a process with all rights may make the kernel's killer spare it.
fn is_restricted() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(rights.trim(), 16).unwrap() >> 24 & 1 == 0
}

fn settings_1(folder: &Path) -> String {
    let (folder, restricted) = (folder.display(), is_restricted());
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = {restricted}
  stats_collect_period = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"#
    )
}

fn settings_2(folder: &Path) -> String {
    let (folder, restricted) = (folder.display(), is_restricted());
    format!(
        r#"version = 3
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[plugins.'io.containerd.cri.v1.images']
  stats_collect_period = 1
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {restricted}
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
"#
    )
}

#[tokio::test]
async fn containerd_1() {
    if !is_wanted("containerd1") {
        return;
    }
    let containerd = Containerd::start(Path::new("/usr/bin"), settings_1);
    play("containerd 1", &containerd.bench(), KNOWN_1).await;
}

#[tokio::test]
async fn containerd_2() {
    if !is_wanted("containerd2") {
        return;
    }
    let programs = std::env::var("RUBELET_CONTAINERD2").unwrap_or("/var/cache/rubelet/containerd2/usr/bin".to_owned());
    let containerd = Containerd::start(Path::new(&programs), settings_2);
    play("containerd 2", &containerd.bench(), KNOWN_2).await;
}
