//! A pod of a scenario: a sandbox, and containers in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_cri::Runtime;
use rubelet_proto::cri;

use super::checks::{ensure, same, some, until};
use super::logs::{self, Line};
use super::{Bench, Need, Result};

/// Enough for what takes no time.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// A sandbox that runs.
pub(crate) struct Pod {
    pub(super) bench: Arc<Bench>,
    pub(super) id: SandboxId,
    pub(super) config: cri::PodSandboxConfig,
}

/// What a command wrote and how it ended.
pub(crate) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) exit_code: i32,
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Namespaces as pods have them unless they say otherwise.
fn namespaces(bench: &Bench) -> cri::NamespaceOption {
    let network = if bench.has(Need::Network) { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Node };
    cri::NamespaceOption { network: network.into(), pid: cri::NamespaceMode::Container.into(), ..Default::default() }
}

impl Bench {
    pub(super) fn runtime(&self) -> &dyn Runtime {
        self.runtime.as_ref()
    }

    /// A directory of its own.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.settings.folder.join(format!("{name}-{}", self.number()));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The configuration of a pod that no other one has.
    pub(super) fn pod_config(&self) -> Result<cri::PodSandboxConfig> {
        let number = self.number();
        let name = format!("p{number}");
        let logs = self.settings.folder.join("logs").join(&name);
        fs::create_dir_all(&logs)?;
        let parent = &self.settings.cgroup_parent;
        let security =
            cri::LinuxSandboxSecurityContext { namespace_options: Some(namespaces(self)), ..Default::default() };
        Ok(cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{number}"),
                namespace: "contract".to_owned(),
                attempt: 0,
            }),
            hostname: if self.has(Need::Network) { name.clone() } else { String::new() },
            log_directory: logs.display().to_string(),
            labels: BTreeMap::from([("pod".to_owned(), name.clone()), ("suite".to_owned(), "contract".to_owned())]),
            annotations: BTreeMap::from([("note/of".to_owned(), name)]),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: parent.clone(),
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// A pod as most are.
    pub(super) async fn pod(self: &Arc<Self>) -> Result<Pod> {
        self.pod_with(|_| {}).await
    }

    /// A pod that is changed before it is made.
    pub(super) async fn pod_with(self: &Arc<Self>, change: impl FnOnce(&mut cri::PodSandboxConfig)) -> Result<Pod> {
        let mut config = self.pod_config()?;
        change(&mut config);
        self.run(config).await
    }

    /// Runs a pod of this configuration.
    pub(super) async fn run(self: &Arc<Self>, config: cri::PodSandboxConfig) -> Result<Pod> {
        let id = self.runtime.run_pod_sandbox(config.clone(), "").await?;
        self.note(id.clone());
        Ok(Pod { bench: self.clone(), id, config })
    }
}

/// The security context of a pod's sandbox.
pub(super) fn pod_security(config: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The namespaces of a pod's sandbox.
pub(super) fn pod_namespaces(config: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    pod_security(config).namespace_options.get_or_insert_default()
}

/// The security context of a container.
pub(super) fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The resources of a container.
pub(super) fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

impl Pod {
    pub(super) fn runtime(&self) -> &dyn Runtime {
        self.bench.runtime()
    }

    /// The configuration of a container that runs a command.
    pub(super) fn container(&self, name: &str, command: &[&str]) -> cri::ContainerConfig {
        let namespace_options =
            self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: self.bench.settings.image.clone(), ..Default::default() }),
            command: words(command),
            log_path: format!("{name}.log"),
            labels: BTreeMap::from([
                ("container".to_owned(), name.to_owned()),
                ("suite".to_owned(), "contract".to_owned()),
            ]),
            annotations: BTreeMap::from([("note/of".to_owned(), name.to_owned())]),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources::default()),
                security_context: Some(cri::LinuxContainerSecurityContext { namespace_options, ..Default::default() }),
            }),
            ..Default::default()
        }
    }

    pub(super) async fn create(&self, config: cri::ContainerConfig) -> Result<ContainerId> {
        Ok(self.runtime().create_container(&self.id, config, self.config.clone()).await?)
    }

    pub(super) async fn start(&self, config: cri::ContainerConfig) -> Result<ContainerId> {
        let id = self.create(config).await?;
        self.runtime().start_container(&id).await?;
        Ok(id)
    }

    /// A container that waits until it is stopped.
    pub(super) async fn waiting(&self, name: &str) -> Result<ContainerId> {
        self.waiting_with(name, |_| {}).await
    }

    /// The same, changed before it is made.
    pub(super) async fn waiting_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut cri::ContainerConfig),
    ) -> Result<ContainerId> {
        let mut config = self.container(name, &["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
        change(&mut config);
        self.start(config).await
    }

    pub(super) async fn status(&self, id: &ContainerId) -> Result<cri::ContainerStatus> {
        some("the status", self.runtime().container_status(id, false).await?.status)
    }

    pub(super) async fn sandbox_status(&self) -> Result<cri::PodSandboxStatus> {
        some("the status", self.runtime().pod_sandbox_status(&self.id, false).await?.status)
    }

    /// Waits for a container's end.
    pub(super) async fn ended(&self, id: &ContainerId) -> Result<cri::ContainerStatus> {
        until("the container ends", SOON, async || {
            let status = self.status(id).await?;
            Ok((status.state() == cri::ContainerState::ContainerExited).then_some(status))
        })
        .await
    }

    /// Lines of a container's log so far.
    pub(super) fn log(&self, name: &str) -> Result<Vec<Line>> {
        logs::read(&PathBuf::from(&self.config.log_directory).join(format!("{name}.log")))
    }

    /// Runs a script as a container's own process and takes what it wrote.
    pub(super) async fn output(&self, script: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> Result<Output> {
        let name = format!("o{}", self.bench.number());
        let mut config = self.container(&name, &["sh", "-c", script]);
        change(&mut config);
        let id = self.start(config).await?;
        let ended = self.ended(&id).await?;
        let lines = self.log(&name)?;
        let of = |stream: &str| {
            let texts = lines.iter().filter(|line| line.stream == stream).map(|line| line.shown());
            texts.collect::<String>().trim_end().to_owned()
        };
        Ok(Output { stdout: of("stdout"), stderr: of("stderr"), exit_code: ended.exit_code })
    }

    /// The same of a script that must succeed: its standard output.
    pub(super) async fn said(&self, script: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> Result<String> {
        let output = self.output(script, change).await?;
        ensure(output.exit_code == 0, || {
            format!("{script:?} ended with {}: {}{}", output.exit_code, output.stdout, output.stderr)
        })?;
        Ok(output.stdout)
    }

    /// Runs a script in a container; it must succeed.
    pub(super) async fn sh(&self, id: &ContainerId, script: &str) -> Result<String> {
        let answer = self.runtime().exec_sync(id, words(&["sh", "-c", script]), SOON).await?;
        let stdout = String::from_utf8_lossy(&answer.stdout).trim_end().to_owned();
        let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
        same(&format!("exit code of {script:?}, which said {stdout}{stderr}"), answer.exit_code, 0)?;
        Ok(stdout)
    }

    pub(super) async fn listed(&self, filter: cri::ContainerFilter) -> Result<Vec<String>> {
        let rows = self.runtime().list_containers(Some(filter)).await?;
        let mut ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
        ids.sort();
        Ok(ids)
    }
}
