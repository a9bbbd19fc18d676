//! Any runtime behind the contract, served on a unix socket as CRI v1: for `crictl`, other kubelets, and tests of runtimes.
//!
//! gRPC's frames are read and written here (`call`), verbs are looked up by name (`verbs`): no service is generated. Both
//! services, all verbs of Kubernetes 1.36, among them the lists that come in pieces.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{AnyAuthority, Runtime};

mod call;
mod socket;
#[cfg(test)]
mod tests;
mod verbs;

/// Connections at a time; more wait until one is closed. Programs that check runtimes open two for each case, some hundreds, and close none.
const CONNECTIONS_MAX: usize = 512;
/// Calls at a time of one connection; a client that has more waits.
const CALLS_MAX: u32 = 1024;
/// How much a client may send before it was read, for one call and for all of its connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How long nothing is accepted after the system refused a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Why a runtime is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("prepare the socket {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("somebody listens on {path} already")]
    Taken { path: PathBuf },
}

/// Serves a runtime on a socket at `path` until this future is dropped; then connections are closed, calls under way are
/// dropped and the socket's file is removed. The file is root's and its group's (mode 0660), directories that are missing
/// are made with mode 0711, and a socket that was left behind is replaced.
///
/// A call whose client goes away, or whose deadline (`grpc-timeout`) passes, is dropped, which cancels it.
///
/// # Errors
/// [`ServeError`], at once: the path cannot be used, or somebody listens there.
pub async fn serve(runtime: Arc<dyn Runtime>, path: &Path) -> Result<Infallible, ServeError> {
    let socket = socket::Socket::listen(path).await?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this future, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let permit = room.clone().acquire_owned().await;
        match socket.accept().await {
            Ok(stream) => {
                let runtime = runtime.clone();
                connections.spawn(async move {
                    connection(runtime, stream).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(REFUSED_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(runtime: Arc<dyn Runtime>, stream: UnixStream) {
    let service = hyper::service::service_fn(move |request| {
        let runtime = runtime.clone();
        async move { Ok::<_, Infallible>(call::answer(runtime, request).await) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    // How a connection ends is the client's affair: what it asked for was answered, or nobody waits for it.
    let _ = http.serve_connection(TokioIo::new(AnyAuthority::new(stream)), service).await;
}
