//! Running a command in a container and waiting for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rubelet_cri::{Code, RuntimeError};
use rubelet_proto::cri::ExecSyncResponse;
use rubelet_shim::{ExecStreams, Execution, Shim, Standing};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::{Doing, Refusal};
use crate::embedded::Engine;
use crate::pods::Life;
use crate::streams;

/// Bytes of each stream that are kept, as with containerd; what is beyond is read and dropped.
const KEPT_MAX: u64 = 16 << 20;
const VERB: &str = "ExecSync";

pub(crate) async fn exec_sync(
    engine: &Arc<Engine>,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<ExecSyncResponse, RuntimeError> {
    let refused = |refusal: Refusal| refusal.into_runtime(VERB);
    let (program, stdout, stderr) = begin(engine, id, command.clone()).await.map_err(refused)?;
    let work = async {
        let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
        Ok::<_, io::Error>((stdout, stderr, streams::ended(program).await?))
    };
    let whole = Duration::from_secs(timeout.as_secs());
    let done = match whole.is_zero() {
        true => work.await,
        // Dropping the program kills it.
        false => tokio::time::timeout(whole, work)
            .await
            .map_err(|_| RuntimeError::CommandTimedOut { command: command.join(" "), timeout: whole })?,
    };
    let (stdout, stderr, exit) = done.doing("failed to exec in container").map_err(refused)?;
    engine.reached("exec.ended");
    Ok(ExecSyncResponse { stdout, stderr, exit_code: exit.code })
}

async fn begin(
    engine: &Arc<Engine>,
    id: &str,
    command: Vec<String>,
) -> Result<(Execution, Receiver, Receiver), Refusal> {
    if command.is_empty() {
        return Err(Refusal::invalid("exec needs a command"));
    }
    let (stdout, their_stdout) = io::pipe().doing("make a pipe")?;
    let (stderr, their_stderr) = io::pipe().doing("make a pipe")?;
    let nothing = std::fs::File::open("/dev/null").doing("open /dev/null")?;
    let streams = ExecStreams::Pipes([nothing.into(), their_stdout.into(), their_stderr.into()]);
    let execution = execute(engine, id, command, streams).await?;
    let reader = |fd: OwnedFd| Receiver::from_owned_fd(fd).doing("read from the command");
    Ok((execution, reader(stdout.into())?, reader(stderr.into())?))
}

/// Starts a command in a running container.
pub(crate) async fn execute(
    engine: &Arc<Engine>,
    id: &str,
    command: Vec<String>,
    streams: ExecStreams,
) -> Result<Execution, Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    let Life::Running { .. } = container.life() else {
        return Err(Refusal::unknown(format!("container is in {} state", state(&container.life()))));
    };
    let bundle = engine.places.container(container.id.as_str());
    let said = "failed to exec in container: failed to start exec";
    engine
        .blocking(move |engine| match Shim::attach(&bundle).doing(said)? {
            Standing::Kept(shim) => {
                engine.reached("exec.found");
                let execution = shim.exec(&command, &[], streams).doing(said)?;
                engine.reached("exec.started");
                Ok(execution)
            }
            Standing::Ended(_) | Standing::Lost(_) | Standing::Unborn => {
                Err(Refusal::new(Code::Unknown, "container is in CONTAINER_EXITED state"))
            }
        })
        .await
}

fn state(life: &Life) -> &'static str {
    super::status::container_state(life).as_str_name()
}

/// Reads to the end, and keeps the beginning.
async fn read(mut from: Receiver) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut from).take(KEPT_MAX).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}
