//! The little that other processes of rubelet ask of the one that has the embedded runtime, an agent or `rubelet cri`: to import
//! an archive, or to stop all pods.
//!
//! One request on each connection to a socket that only root may use: a word and a line feed, after `import` the path of an archive, to its end. The
//! answer begins with `ok` or `failed`; lines follow: names of images, or why.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use rubelet_agent::Agent;
use rubelet_runtime::Embedded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::commands::{import_one, stop_all};

const SOCKET: &str = "control.sock";
/// Longest request: a word and a path.
const REQUEST_MAX: u64 = 4096;

/// Begins to listen; whoever asks waits until [`serve`] answers.
///
/// # Errors
/// The socket cannot be made, in words.
pub(crate) fn listen(run_dir: &Path) -> Result<UnixListener, String> {
    let path = run_dir.join(SOCKET);
    let failed = |e: io::Error| format!("listen on {}: {e}", path.display());
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Who stops pods.
pub(crate) enum Pods {
    /// The agent that runs them, which then starts none again.
    OfAgent(Agent),
    /// Nobody here runs them: the runtime itself.
    OfOthers,
}

/// Answers as long as the process runs.
pub(crate) fn serve(listener: UnixListener, embedded: Embedded, pods: Pods) {
    // One after the other: an import takes the disk's time anyway.
    rubelet_host::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = answer(stream, &embedded, &pods).await {
                warn!(err = %error, "A request was not answered");
            }
        }
    });
}

async fn answer(mut stream: UnixStream, embedded: &Embedded, pods: &Pods) -> io::Result<()> {
    let mut request = Vec::new();
    (&mut stream).take(REQUEST_MAX).read_to_end(&mut request).await?;
    let mut parts = request.splitn(2, |byte| *byte == b'\n');
    let text = match (parts.next(), parts.next()) {
        (Some(b"import"), Some(path)) => answer_import(embedded, PathBuf::from(OsStr::from_bytes(path))).await?,
        (Some(b"stop"), _) => {
            info!("All pods are stopped");
            let stopped = match pods {
                Pods::OfAgent(agent) => {
                    agent.shut_down().await;
                    Ok(())
                }
                Pods::OfOthers => stop_all(embedded).await,
            };
            stopped.map_or_else(|why| format!("failed\n{why}"), |()| "ok\n".to_owned())
        }
        _ => "failed\nno such request".to_owned(),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

async fn answer_import(embedded: &Embedded, path: PathBuf) -> io::Result<String> {
    let embedded = embedded.clone();
    let shown = path.display().to_string();
    let done = rubelet_host::task::blocking(move || import_one(&embedded, &path)).await?;
    Ok(match done {
        Ok(names) => {
            info!(archive = shown, images = names.len(), "Imported images");
            format!("ok\n{}", names.join("\n"))
        }
        Err(why) => format!("failed\n{why}"),
    })
}

/// Has archives imported; the names of their images. Blocks.
///
/// # Errors
/// Nobody answers, or why it failed, in words.
pub(crate) fn import(run_dir: &Path, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for file in files {
        let said = ask(&run_dir.join(SOCKET), &[b"import\n", file.as_os_str().as_bytes()].concat())?;
        names.extend(said.lines().map(str::to_owned));
    }
    Ok(names)
}

/// Has all pods stopped, by an agent in their order. Blocks until none runs.
///
/// # Errors
/// Nobody answers, or a pod was not stopped, in words.
pub(crate) fn stop_pods(run_dir: &Path) -> Result<(), String> {
    ask(&run_dir.join(SOCKET), b"stop\n").map(drop)
}

/// What follows `ok`.
fn ask(socket: &Path, request: &[u8]) -> Result<String, String> {
    let said = exchange(socket, request).map_err(|e| format!("ask the process that has the runtime: {e}"))?;
    match said.split_once('\n') {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        Some((_, why)) => Err(why.to_owned()),
        None => Err("the process that has the runtime did not answer".to_owned()),
    }
}

fn exchange(socket: &Path, request: &[u8]) -> io::Result<String> {
    let mut stream = Blocking::connect(socket)?;
    stream.write_all(request)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
