//! The agent on a containerd of our own: its own folder, its own socket, ended with the test, pods in the host's network.
//! Without what that takes, the test says so and does nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rubelet_agent::clock::Clock;
use rubelet_agent::sources::DesiredPod;
use rubelet_cri::{Remote, Runtime};
use rubelet_proto::cri;
use serde_json::json;

use crate::world::{Agent, born_on, pod_of};

/// Builds an archive of the images `localhost/pause:1` and `localhost/busybox:1`.
const BUILD: &str = "import sys; sys.path.insert(0, sys.argv[1]); import images; \
    images.archive(sys.argv[2], {'localhost/pause:1': images.pause(), 'localhost/busybox:1': images.busybox()})";

struct Containerd {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // After a failed test something may be left; nothing of it may outlive the test.
        let tasks = self.ctr(&["tasks", "list", "-q"]);
        for task in tasks.lines() {
            self.ctr(&["tasks", "kill", "-s", "9", task]);
            self.ctr(&["tasks", "delete", "-f", task]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for mount in rubelet_host::mount::at_or_below(self.folder.path()).unwrap_or_default() {
            let _ = rubelet_host::mount::unmount(&mount.target, rubelet_host::mount::Unmount::Lazy);
        }
    }
}

impl Containerd {
    fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("config.toml"), settings(folder.path())).map_err(|e| e.to_string())?;
        let log = std::fs::File::create(path("log")).map_err(|e| e.to_string())?;
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lib");
        let archive = path("images.tar");
        let built = Command::new("python3").args(["-c", BUILD]).arg(lib).arg(&archive).stderr(Stdio::null()).status();
        if !built.is_ok_and(|status| status.success()) {
            return Err("building images takes python3, gcc and busybox".to_owned());
        }
        let mut containerd = Command::new("containerd");
        containerd.arg("--config").arg(path("config.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = containerd.spawn().map_err(|e| format!("start containerd: {e}"))?;
        let this = Self { child, folder };
        let give_up_at = Instant::now() + Duration::from_secs(60);
        while !this.ctr(&["version"]).contains("Server:") {
            assert!(Instant::now() < give_up_at, "{}", this.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        this.ctr(&["images", "import", &archive.display().to_string()]);
        Ok(this)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    fn ctr(&self, words: &[&str]) -> String {
        let output = Command::new("ctr").arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(words).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn remote(&self) -> Remote {
        let endpoint = format!("unix://{}", self.socket().display());
        Remote::connect(&endpoint, "", Duration::from_secs(60)).expect("an endpoint")
    }

    async fn agent(&self) -> Agent {
        born_on(self.folder.path(), Arc::new(self.remote()), Clock::start(), vec![rubelet_core::pod::Source::File])
            .await
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{folder}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"#
    )
}

fn started() -> Option<Containerd> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let is_installed = |name| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok();
    let started = match (is_root, is_installed("containerd") && is_installed("ctr")) {
        (false, _) => Err("containerd needs root".to_owned()),
        (true, false) => Err("containerd is not installed".to_owned()),
        (true, true) => Containerd::start(),
    };
    started.map_err(|reason| eprintln!("skipped: {reason}")).ok()
}

/// Uses much of what can be compared: variables, volumes, ports, probes, security.
fn web() -> DesiredPod {
    let security = json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
    pod_of(
        "web",
        json!({
            "hostNetwork": true,
            "dnsPolicy": "Default",
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "host", "hostPath": {"path": "/usr/share", "type": "Directory"}},
            ],
            "containers": [{
                "name": "app", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["sh", "-c", "sleep 1000000 & wait"],
                "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "$(B)"}],
                "resources": {"requests": {"cpu": "50m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "host", "mountPath": "/host", "readOnly": true}],
                "livenessProbe": {"exec": {"command": ["true"]}},
                "securityContext": security,
            }, {
                "name": "side", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "args": ["sleep", "1000000"],
                "tty": true,
            }],
        }),
    )
}

/// Ids of running containers by name.
async fn running(remote: &Remote) -> Vec<(String, String)> {
    let rows = remote.list_containers(None).await.expect("listed");
    let is_running = |c: &cri::Container| c.state == cri::ContainerState::ContainerRunning as i32;
    let name = |c: cri::Container| (c.metadata.map(|m| m.name).unwrap_or_default(), c.id);
    let mut running: Vec<_> = rows.into_iter().filter(is_running).map(name).collect();
    running.sort();
    running
}

async fn until(containerd: &Containerd, what: &str, limit: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let give_up_at = Instant::now() + limit;
    while !is_so().await {
        assert!(Instant::now() < give_up_at, "not within {limit:?}: {what}\n{}", containerd.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pod_is_adopted_watched_and_removed() {
    const LONG: Duration = Duration::from_secs(60);
    let Some(containerd) = started() else { return };
    let remote = containerd.remote();
    let agent = containerd.agent().await;
    agent.wants(vec![web()]).await;
    until(&containerd, "both run", LONG, async || running(&remote).await.len() == 2).await;
    let before = running(&remote).await;
    drop(agent);

    // Nothing but the runtime tells that it is the same: no ledger, and a UID that another version of the agent gave.
    std::fs::remove_dir_all(containerd.folder.path().join("root/rubelet")).expect("the ledger was there");
    let mut desired = web();
    let mut other = (*desired.pod).clone();
    other.metadata.uid = Some("0123456789abcdef0123456789abcdef".into());
    desired.pod = Arc::new(other);
    let agent = containerd.agent().await;
    agent.wants(vec![desired.clone()]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(running(&remote).await, before, "a pod that runs as wanted was restarted");

    // Sooner than any relist: its process is watched.
    containerd.ctr(&["tasks", "kill", "-a", "-s", "9", &before[0].1]);
    let (old, name) = (before[0].1.clone(), "app".to_owned());
    until(&containerd, "app runs again", Duration::from_secs(5), async || {
        running(&remote).await.iter().any(|(n, id)| *n == name && *id != old)
    })
    .await;

    agent.wants(Vec::new()).await;
    until(&containerd, "all is gone", LONG, async || {
        let sandboxes = remote.list_pod_sandbox(None).await.expect("listed");
        sandboxes.is_empty()
            && std::fs::read_dir(containerd.folder.path().join("root/pods")).is_ok_and(|d| d.count() == 0)
    })
    .await;
}
