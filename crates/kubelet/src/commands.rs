//! What `rubelet` does besides being the kubelet: commands about the embedded runtime. Under the name `kubelet` there are none.
//!
//! - `rubelet cri [--listen=SOCKET]`: serves the embedded runtime to other programs, without an agent.
//! - `rubelet image import FILE…`: brings images from archives into the store, pinned.
//! - `rubelet stop --all`: stops all pods, each within its grace, after their hooks. An agent that runs does it, sidecars last, and is told
//!   to end; without one, the containers of a pod are stopped at once. The records of the pods stay, so that a later start goes on with them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rubelet_cri::{Runtime, RuntimeError, serve};
use rubelet_host::cgroup::Driver;
use rubelet_host::chain;
use rubelet_proto::cri;
use rubelet_runtime::{Embedded, StartError};

use crate::control;
use crate::embedded::{self, Unstarted};
use crate::flags::Given;
use crate::own::EmbeddedFlags;
use crate::surroundings::{Program, Surroundings};

/// Where kubelet 1.36 notes the grace of a container's pod, in seconds.
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const GRACE_DEFAULT_SECS: i64 = 30;
/// kubelet 1.36: what a hook leaves at least.
const GRACE_LEAST_SECS: i64 = 2;
/// Where kubelet 1.36 notes a container's hook.
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// How long an agent may take to end.
const AGENT_PATIENCE: Duration = Duration::from_secs(30);

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    verb: Verb,
    flags: EmbeddedFlags,
    driver: Driver,
    around: Surroundings,
}

#[derive(Debug)]
enum Verb {
    Cri { listen: PathBuf },
    Import { files: Vec<PathBuf> },
    StopAll,
}

impl Command {
    /// The command that the operands name; `None`: none.
    pub(crate) fn read(given: &Given, around: &Surroundings) -> Option<Self> {
        if around.program == Program::Kubelet {
            return None;
        }
        let words: Vec<&str> = given.operands.iter().map(String::as_str).collect();
        let verb = match words.as_slice() {
            ["cri"] => {
                let listen = given.text("listen");
                Verb::Cri { listen: around.working_dir.join(listen.strip_prefix("unix://").unwrap_or(&listen)) }
            }
            ["image", "import", files @ ..] if !files.is_empty() => {
                Verb::Import { files: files.iter().map(|file| around.working_dir.join(file)).collect() }
            }
            ["stop"] if given.is_on("all") => Verb::StopAll,
            _ => return None,
        };
        let driver = if given.text("cgroup-driver") == "systemd" { Driver::Systemd } else { Driver::Cgroupfs };
        let mut flags = EmbeddedFlags::read(given);
        if !matches!(verb, Verb::Cri { .. }) {
            // Who stops pods or names archives does not want those of the import folder read, which takes long.
            flags.import_dir = PathBuf::new();
        }
        Some(Self { verb, flags, driver, around: around.clone() })
    }

    /// Does it; what went wrong is logged.
    pub(crate) fn carry_out(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(64).enable_all().build();
        let done = match runtime {
            Ok(runtime) => {
                let done = runtime.block_on(self.run());
                runtime.shutdown_background();
                done
            }
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(said) => {
                tracing::error!(err = %said, "command failed");
                ExitCode::FAILURE
            }
        }
    }

    async fn run(self) -> Result<(), String> {
        let embedded = match embedded::try_start(&self.flags, self.driver, &self.around).await {
            Ok(embedded) => embedded,
            Err(Unstarted::Settings(text)) => return Err(text),
            Err(Unstarted::Runtime(StartError::Locked { pid: Some(pid), .. })) => return self.beside(pid).await,
            Err(Unstarted::Runtime(error)) => return Err(format!("embedded runtime: {}", chain(&error))),
        };
        match self.verb {
            Verb::Cri { listen } => {
                let ended = crate::run::told_to_end().map_err(|e| e.to_string())?;
                control::serve(control::listen(&self.flags.run_dir)?, embedded.clone(), control::Pods::OfOthers);
                tracing::info!(socket = %listen.display(), "The embedded runtime is served");
                let runtime: Arc<dyn Runtime> = Arc::new(embedded);
                tokio::select! {
                    served = serve(runtime, &listen) => match served {
                        Ok(never) => match never {},
                        Err(error) => Err(chain(&error)),
                    },
                    () = ended => Ok(()),
                }
            }
            Verb::Import { files } => import(embedded, files).await,
            Verb::StopAll => stop_all(&embedded).await,
        }
    }
}

impl Command {
    /// What is done while another process of rubelet, with this pid, has the runtime.
    async fn beside(self, pid: u32) -> Result<(), String> {
        match &self.verb {
            Verb::Cri { .. } => Err(format!("embedded runtime: the process {pid} runs pods with it already")),
            Verb::Import { files } => {
                for name in control::import(&self.flags.run_dir, files)? {
                    let _ = writeln!(std::io::stdout(), "{name}");
                }
                Ok(())
            }
            Verb::StopAll => {
                tracing::info!(pid, "The process that has the runtime stops all pods, and is then told to end");
                let run_dir = self.flags.run_dir.clone();
                let asked = rubelet_host::task::blocking(move || control::stop_pods(&run_dir)).await;
                if let Err(err) = asked.map_err(|e| e.to_string()).and_then(|done| done) {
                    tracing::warn!(%err, "The process did not stop the pods; it is ended and they are stopped without it");
                }
                end(pid).await?;
                let embedded = embedded::start(&self.flags, self.driver, &self.around).await?;
                stop_all(&embedded).await
            }
        }
    }
}

/// Tells a process to end, and waits for that.
async fn end(pid: u32) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("end the process {pid}: {e}");
    let handle = match rubelet_host::process::Handle::open(pid) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        handle => handle.map_err(failed)?,
    };
    handle.tell_to_end().map_err(failed)?;
    match tokio::time::timeout(AGENT_PATIENCE, handle.exited()).await {
        Ok(ended) => ended.map_err(failed),
        Err(_) => Err(format!("the process {pid} does not end")),
    }
}

async fn import(embedded: Embedded, files: Vec<PathBuf>) -> Result<(), String> {
    let work = move || {
        for path in files {
            for name in import_one(&embedded, &path)? {
                // Nobody listens: nobody misses it.
                let _ = writeln!(std::io::stdout(), "{name}");
            }
        }
        Ok(())
    };
    rubelet_host::task::blocking(work).await.map_err(|e| e.to_string())?
}

/// Imports one archive, to be kept; the names of its images. Blocks.
pub(crate) fn import_one(embedded: &Embedded, path: &Path) -> Result<Vec<String>, String> {
    let file = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
    let images = embedded.images().import(file, &path.display().to_string(), true).map_err(|e| chain(&e))?;
    Ok(images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests)).collect())
}

/// Stops a container within its grace, of which its hook takes a part.
async fn stop(embedded: &Embedded, container: cri::Container) -> Result<(), RuntimeError> {
    let grace = container.annotations.get(GRACE).and_then(|text| text.parse().ok()).unwrap_or(GRACE_DEFAULT_SECS);
    let id = container.id.into();
    let begin = Instant::now();
    if let Some(command) = container.annotations.get(PRE_STOP).and_then(|text| hook(text)) {
        let patience = Duration::from_secs(u64::try_from(grace).unwrap_or(0).max(1));
        if let Err(error) = embedded.exec_sync(&id, command, patience).await {
            tracing::warn!(container = %id, err = %error, "A hook failed before its container was stopped");
        }
    }
    let used = i64::try_from(begin.elapsed().as_secs()).unwrap_or(i64::MAX);
    embedded.stop_container(&id, (grace - used).max(GRACE_LEAST_SECS)).await
}

/// The command of a hook. Those by HTTP are the agent's: nobody asks them here.
fn hook(text: &str) -> Option<Vec<String>> {
    let handler: serde_json::Value = serde_json::from_str(text).ok()?;
    let words = handler.get("exec")?.get("command")?.as_array()?;
    words.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

/// All pods at once, each with its containers at once.
pub(crate) async fn stop_all(embedded: &Embedded) -> Result<(), String> {
    let failed = |error: RuntimeError| error.to_string();
    let state = Some(cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning.into() });
    let filter = cri::ContainerFilter { state, ..cri::ContainerFilter::default() };
    let running = embedded.list_containers(Some(filter)).await.map_err(failed)?;
    let mut stops = tokio::task::JoinSet::new();
    for container in running {
        let embedded = embedded.clone();
        stops.spawn(async move { stop(&embedded, container).await });
    }
    let mut failure = None;
    while let Some(stopped) = stops.join_next().await {
        let stopped = stopped.map_err(|e| e.to_string()).and_then(|done| done.map_err(failed));
        failure = failure.or(stopped.err());
    }
    for sandbox in embedded.list_pod_sandbox(None).await.map_err(failed)? {
        if let Err(error) = embedded.stop_pod_sandbox(&sandbox.id.into()).await {
            failure = failure.or(Some(failed(error)));
        }
    }
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_serves_pods_reads_the_import_folder() {
        let import_dir = |line: &[&str]| {
            let arguments: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
            let given = crate::flags::parse(&arguments, &mut Vec::new()).unwrap();
            Command::read(&given, &Surroundings::default()).unwrap().flags.import_dir
        };
        assert_eq!(import_dir(&["cri"]), Path::new("/var/lib/rubelet/import"));
        assert_eq!(import_dir(&["stop", "--all"]), Path::new(""));
        assert_eq!(import_dir(&["image", "import", "x.tar"]), Path::new(""));
    }

    #[test]
    fn hooks_that_execute_something() {
        assert_eq!(hook(r#"{"exec":{"command":["sh","-c","x"]}}"#).unwrap(), ["sh", "-c", "x"]);
        for other in [r#"{"httpGet":{"port":80}}"#, "{", r#"{"exec":{"command":[1]}}"#] {
            assert_eq!(hook(other), None, "{other}");
        }
    }
}
