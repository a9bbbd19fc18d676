//! How containers end: codes, reasons, signals, grace.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::ContainerId;
use rubelet_proto::cri::{self, ContainerState};
use tokio::time::Instant;

use super::checks::{ensure, refused, same, until};
use super::pod::{SOON, resources, words};
use super::{Bench, Pod, Result, suite};

suite! {
    "a container that ends well is Completed" [Processes] => completed;
    "a container that ends badly is an Error with its code" [Processes] => error;
    "a container that a signal ends has the signal's code" [Processes] => by_signal;
    "a container that needs too much memory is OOMKilled" [Processes] => out_of_memory;
    "a command that is not there is a StartError" [Processes] => start_error;
    "a directory in the way of the command is a StartError" [Processes] => not_executable;
    "a container that ends on its signal keeps its code" [Processes] => own_code;
    "a container that ignores its signal is killed after its grace" [Processes] => grace;
    "without grace a container is killed at once" [Processes] => no_grace;
    "the second stop may have a shorter grace" [Processes] => shorter_grace;
    "children of a container's process are ended too" [Processes] => children;
    "the image's stop signal is sent" [Registry] => image_signal;
    "the container's own stop signal is sent" [Processes] => own_signal;
}

async fn ends_with(bench: &Arc<Bench>, script: &str, code: i32, reason: &str) -> Result {
    let pod = bench.pod().await?;
    let id = pod.start(pod.container("a", &["sh", "-c", script])).await?;
    let status = pod.ended(&id).await?;
    same("how it ended", (status.exit_code, status.reason.as_str()), (code, reason))?;
    // Some runtimes take the time of the start after the process has begun, and it may have ended by then.
    let is_later = status.started_at >= status.created_at && status.finished_at >= status.created_at;
    ensure(is_later, || format!("its times: {status:?}"))
}

async fn completed(bench: Arc<Bench>) -> Result {
    ends_with(&bench, "exit 0", 0, "Completed").await
}

async fn error(bench: Arc<Bench>) -> Result {
    ends_with(&bench, "exit 7", 7, "Error").await
}

async fn by_signal(bench: Arc<Bench>) -> Result {
    // The first process of a namespace is not ended by signals from inside; its shell's child is.
    ends_with(&bench, "sh -c 'kill -9 $$'; exit $?", 137, "Error").await?;
    let pod = bench.pod().await?;
    let id = pod.start(pod.container("a", &["sleep", "1000"])).await?;
    bench.runtime().stop_container(&id, 0).await?;
    let status = pod.status(&id).await?;
    same("how it ended", (status.exit_code, status.reason.as_str()), (137, "Error"))
}

async fn out_of_memory(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &["dd", "if=/dev/zero", "of=/dev/null", "bs=128M"]);
    resources(&mut config).memory_limit_in_bytes = 24 << 20;
    resources(&mut config).memory_swap_limit_in_bytes = 24 << 20;
    let id = pod.start(config).await?;
    let status = pod.ended(&id).await?;
    same("its code", status.exit_code, 137)?;
    // The kernel's notice may come after the end.
    until("the reason is told", SOON, async || {
        let reason = pod.status(&id).await?.reason;
        Ok((reason == "OOMKilled").then_some(()))
    })
    .await
}

async fn start_error(bench: Arc<Bench>) -> Result {
    fails_to_start(&bench, &["/no/such/program"]).await
}

async fn not_executable(bench: Arc<Bench>) -> Result {
    fails_to_start(&bench, &["/etc"]).await
}

async fn fails_to_start(bench: &Arc<Bench>, command: &[&str]) -> Result {
    let pod = bench.pod().await?;
    let id = pod.create(pod.container("a", command)).await?;
    let error = refused("its start", bench.runtime().start_container(&id).await)?;
    ensure(error.message().contains(command[0]), || format!("the program is not named: {error}"))?;
    let status = pod.status(&id).await?;
    same("the state", status.state(), ContainerState::ContainerExited)?;
    same("how it ended", (status.exit_code, status.reason.as_str()), (128, "StartError"))?;
    ensure(!status.message.is_empty(), || "there is no message".to_owned())?;
    ensure(status.finished_at > 0, || "the time of its end is not told".to_owned())?;
    bench.runtime().remove_container(&id).await.map_err(Into::into)
}

/// A container that says when it is ready to be stopped.
async fn ready(pod: &Pod, config: cri::ContainerConfig) -> Result<ContainerId> {
    let name = config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let id = pod.start(config).await?;
    until("the container is ready", SOON, async || {
        Ok(pod.log(&name)?.iter().any(|line| line.text == "ready").then_some(()))
    })
    .await?;
    Ok(id)
}

async fn stopped(pod: &Pod, id: &ContainerId, grace_secs: i64) -> Result<(cri::ContainerStatus, Duration)> {
    let begun = Instant::now();
    pod.runtime().stop_container(id, grace_secs).await?;
    let took = begun.elapsed();
    let status = pod.status(id).await?;
    same("the state", status.state(), ContainerState::ContainerExited)?;
    Ok((status, took))
}

const STUBBORN: &str = "trap 'echo heard' TERM; echo ready; while true; do sleep 0.1; done";

async fn own_code(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let script = "trap 'echo heard; exit 5' TERM; echo ready; while true; do sleep 0.1; done";
    let id = ready(&pod, pod.container("a", &["sh", "-c", script])).await?;
    let (status, took) = stopped(&pod, &id, 60).await?;
    same("how it ended", (status.exit_code, status.reason.as_str()), (5, "Error"))?;
    ensure(took < Duration::from_secs(30), || format!("it took {took:?}"))?;
    ensure(pod.log("a")?.iter().any(|line| line.text == "heard"), || "it heard no signal".to_owned())
}

async fn grace(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = ready(&pod, pod.container("a", &["sh", "-c", STUBBORN])).await?;
    let (status, took) = stopped(&pod, &id, 2).await?;
    same("its code", status.exit_code, 137)?;
    ensure(took >= Duration::from_secs(2) && took < Duration::from_secs(15), || format!("it took {took:?}"))?;
    ensure(pod.log("a")?.iter().any(|line| line.text == "heard"), || "it heard no signal".to_owned())
}

async fn no_grace(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = ready(&pod, pod.container("a", &["sh", "-c", STUBBORN])).await?;
    let (status, took) = stopped(&pod, &id, 0).await?;
    same("its code", status.exit_code, 137)?;
    ensure(took < Duration::from_secs(15), || format!("it took {took:?}"))
}

async fn shorter_grace(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = ready(&pod, pod.container("a", &["sh", "-c", STUBBORN])).await?;
    let first = {
        let (bench, id) = (bench.clone(), id.clone());
        tokio::spawn(async move { bench.runtime().stop_container(&id, 60).await })
    };
    until("the first stop has begun", SOON, async || {
        Ok(pod.log("a")?.iter().any(|line| line.text == "heard").then_some(()))
    })
    .await?;
    let (status, took) = stopped(&pod, &id, 1).await?;
    same("its code", status.exit_code, 137)?;
    ensure(took < Duration::from_secs(20), || format!("it took {took:?}"))?;
    first.await.map_err(|error| super::Failure::Said(error.to_string()))?.map_err(Into::into)
}

async fn children(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mark = format!("{}", 100_000_000 + bench.number());
    let script = format!("(trap '' TERM HUP INT; sleep {mark}) & echo ready; wait");
    let id = ready(&pod, pod.container("a", &["sh", "-c", &script])).await?;
    bench.runtime().stop_container(&id, 1).await?;
    until("its children are gone", SOON, async || Ok((!is_running(&mark)?).then_some(()))).await
}

/// Whether a process of this machine has a word in its command line.
fn is_running(word: &str) -> Result<bool> {
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|found| found == word.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

const SIGNALS: &str =
    "trap 'echo TERM; exit 1' TERM; trap 'echo USR1; exit 3' USR1; echo ready; while true; do sleep 0.1; done";

async fn image_signal(bench: Arc<Bench>) -> Result {
    let image = cri::ImageSpec { image: bench.in_registry("contract/signal:1"), ..Default::default() };
    bench.runtime().pull_image(image.clone(), None, None).await?;
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &[]);
    (config.image, config.command) = (Some(image), words(&["sh", "-c", SIGNALS]));
    let id = ready(&pod, config).await?;
    let (status, _) = stopped(&pod, &id, 20).await?;
    same("its code", status.exit_code, 3)
}

async fn own_signal(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &["sh", "-c", SIGNALS]);
    config.set_stop_signal(cri::Signal::Sigusr1);
    let id = ready(&pod, config).await?;
    same("what is told", pod.status(&id).await?.stop_signal(), cri::Signal::Sigusr1)?;
    let (status, _) = stopped(&pod, &id, 20).await?;
    same("its code", status.exit_code, 3)
}
