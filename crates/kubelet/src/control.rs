//! The little that other processes of rubelet ask of an agent that has the embedded runtime: to import archives.
//!
//! One request on each connection to a socket that only root may use: the path of an archive, to its end. The answer begins with `ok` or
//! `failed`; lines follow: names of images, or why.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use rubelet_runtime::Embedded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::commands::import_one;

const SOCKET: &str = "control.sock";
/// Longest request: a path.
const REQUEST_MAX: u64 = 4096;

/// Listens as long as the process runs.
///
/// # Errors
/// The socket cannot be made, in words.
pub(crate) fn listen(run_dir: &Path, embedded: Embedded) -> Result<(), String> {
    let path = run_dir.join(SOCKET);
    let failed = |e: io::Error| format!("listen on {}: {e}", path.display());
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    // One after the other: an import takes the disk's time anyway.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = answer(stream, &embedded).await {
                warn!(err = %error, "A request was not answered");
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, embedded: &Embedded) -> io::Result<()> {
    let mut request = String::new();
    (&mut stream).take(REQUEST_MAX).read_to_string(&mut request).await?;
    let path = PathBuf::from(request);
    let embedded = embedded.clone();
    let shown = path.display().to_string();
    let done = tokio::task::spawn_blocking(move || import_one(&embedded, &path)).await?;
    let text = match done {
        Ok(names) => {
            info!(archive = shown, images = names.len(), "Imported images");
            format!("ok\n{}", names.join("\n"))
        }
        Err(why) => format!("failed\n{why}"),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Has the agent import archives; the names of their images. Blocks.
///
/// # Errors
/// The agent does not answer, or why it failed, in words.
pub(crate) fn import(run_dir: &Path, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for file in files {
        let said = ask(&run_dir.join(SOCKET), file).map_err(|e| format!("ask the agent that runs: {e}"))?;
        match said.split_once('\n') {
            Some(("ok", rest)) => names.extend(rest.lines().map(str::to_owned)),
            Some((_, why)) => return Err(why.to_owned()),
            None => return Err("the agent that runs did not answer".to_owned()),
        }
    }
    Ok(names)
}

fn ask(socket: &Path, file: &Path) -> io::Result<String> {
    use std::os::unix::ffi::OsStrExt;
    let mut stream = Blocking::connect(socket)?;
    stream.write_all(file.as_os_str().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
