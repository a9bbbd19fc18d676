//! What `rubelet` does besides being the kubelet: commands about the embedded runtime. Under the name `kubelet` there are none.
//!
//! - `rubelet cri [--listen=SOCKET]`: serves the embedded runtime to other programs, without an agent.
//! - `rubelet image import FILE…`: brings images from archives into the store, pinned.
//! - `rubelet stop --all`: stops all pods, each within its grace. The records of them stay.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use rubelet_cri::{Runtime, serve};
use rubelet_host::cgroup::Driver;
use rubelet_host::chain;
use rubelet_proto::cri;
use rubelet_runtime::Embedded;

use crate::embedded;
use crate::flags::Given;
use crate::own::EmbeddedFlags;
use crate::surroundings::{Program, Surroundings};

/// Where kubelet 1.36 notes the grace of a container's pod, in seconds.
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const GRACE_DEFAULT_SECS: i64 = 30;

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
        let flags = EmbeddedFlags::read(given);
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
        let embedded = embedded::start(&self.flags, self.driver, &self.around).await?;
        match self.verb {
            Verb::Cri { listen } => {
                let ended = crate::run::told_to_end().map_err(|e| e.to_string())?;
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

async fn import(embedded: Embedded, files: Vec<PathBuf>) -> Result<(), String> {
    let work = move || {
        for path in files {
            let file = File::open(&path).map_err(|e| format!("open {}: {e}", path.display()))?;
            let what = path.display().to_string();
            let images = embedded.images().import(file, &what, true).map_err(|e| chain(&e))?;
            for name in images.iter().flat_map(|image| image.repo_tags.iter().chain(&image.repo_digests)) {
                // Nobody listens: nobody misses it.
                let _ = writeln!(std::io::stdout(), "{name}");
            }
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

/// All pods at once, each with its containers at once.
async fn stop_all(embedded: &Embedded) -> Result<(), String> {
    let failed = |error: rubelet_cri::RuntimeError| error.to_string();
    let state = Some(cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning.into() });
    let filter = cri::ContainerFilter { state, ..cri::ContainerFilter::default() };
    let running = embedded.list_containers(Some(filter)).await.map_err(failed)?;
    let mut stops = tokio::task::JoinSet::new();
    for container in running {
        let grace = container.annotations.get(GRACE).and_then(|text| text.parse().ok()).unwrap_or(GRACE_DEFAULT_SECS);
        let embedded = embedded.clone();
        stops.spawn(async move { embedded.stop_container(&container.id.into(), grace).await });
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
