//! The contract against a containerd of our own: its own folder, its own socket, ended with the test.
//! Without containerd, or without the right to run it, the test says so and does nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rubelet_cri::{Remote, Runtime, check_version};
use rubelet_proto::cri;
use tempfile::TempDir;

struct Containerd {
    child: Child,
    folder: TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Containerd {
    fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (config, log) = (folder.path().join("config.toml"), folder.path().join("log"));
        std::fs::write(&config, settings(folder.path())).map_err(|error| error.to_string())?;
        let log = std::fs::File::create(log).map_err(|error| error.to_string())?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("start containerd: {error}"))?;
        Ok(Self { child, folder })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Asks until it answers, as the agent does; fails when containerd ended or a minute has passed.
    async fn remote(&mut self) -> Remote {
        let endpoint = format!("unix://{}", self.folder.path().join("c.sock").display());
        let remote = Remote::connect(&endpoint, "", Duration::from_secs(20)).unwrap();
        let give_up_at = Instant::now() + Duration::from_secs(60);
        while let Err(error) = remote.version().await {
            assert!(error.is_unavailable() || error.is_unimplemented(), "{error}");
            assert!(self.child.try_wait().unwrap().is_none(), "containerd ended: {}", self.log());
            assert!(Instant::now() < give_up_at, "{error}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        remote
    }
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{folder}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"#
    )
}

fn skipped() -> Option<&'static str> {
    let is_installed = Command::new("containerd").arg("--version").stdout(Stdio::null()).status().is_ok();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    match (is_installed, is_root) {
        (false, _) => Some("containerd is not installed"),
        (true, false) => Some("containerd needs root"),
        (true, true) => None,
    }
}

#[tokio::test]
async fn containerd_keeps_the_contract() {
    if let Some(reason) = skipped() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut containerd = Containerd::start().unwrap();
    let remote = containerd.remote().await;

    let version = check_version(&remote).await.unwrap();
    assert_eq!(version.runtime_name, "containerd");

    let status = remote.status(true).await.unwrap();
    assert!(!status.info.is_empty(), "verbose tells details");
    let conditions = status.status.unwrap().conditions;
    let ready: Vec<_> = conditions.iter().map(|condition| (condition.r#type.as_str(), condition.status)).collect();
    assert_eq!(ready, [("RuntimeReady", true), ("NetworkReady", false)], "it has no network configuration");
    assert!(remote.status(false).await.unwrap().info.is_empty());

    assert_eq!(remote.list_images(None).await, Ok(vec![]));
    assert_eq!(remote.list_containers(None).await, Ok(vec![]));
    assert_eq!(remote.list_pod_sandbox(None).await, Ok(vec![]));
    assert_eq!(remote.list_container_stats(None).await, Ok(vec![]));
    absent_objects(&remote).await;
    unknown_verbs(&remote, &version).await;
}

async fn absent_objects(remote: &Remote) {
    let image = cri::ImageSpec { image: "registry.example/none:1".into(), ..Default::default() };
    assert_eq!(remote.image_status(image.clone(), false).await.unwrap().image, None);
    assert_eq!(remote.remove_image(image).await, Ok(()), "removing is idempotent");
    assert_eq!(remote.stop_pod_sandbox(&"none".into()).await, Ok(()), "stopping is idempotent");
    assert_eq!(remote.remove_pod_sandbox(&"none".into()).await, Ok(()));
    assert_eq!(remote.stop_container(&"none".into(), 1).await, Ok(()));
    assert_eq!(remote.remove_container(&"none".into()).await, Ok(()));

    let error = remote.container_status(&"none".into(), false).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().starts_with("rpc error: code = NotFound desc = "), "{error}");
    let error = remote.pod_sandbox_status(&"none".into(), true).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let error = remote.start_container(&"none".into()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(remote.exec_sync(&"none".into(), vec!["true".into()], Duration::ZERO).await.is_err());
}

async fn unknown_verbs(remote: &Remote, version: &cri::VersionResponse) {
    if !version.runtime_version.starts_with("1.6.") {
        eprintln!("skipped: which verbs are unknown is only known of containerd 1.6, not {}", version.runtime_version);
        return;
    }
    let error = remote.runtime_config().await.unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
    let error = remote.container_events().next().await.unwrap().unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
    let error = remote.list_metric_descriptors().await.unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
}
