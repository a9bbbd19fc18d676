//! The channel to a socket: connected when first used, and again after it broke, with a back-off between failures.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// kubelet 1.36: connecting again waits 100 ms at first and 3 s at most.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How much we let the runtime send before we have read it: enough for a list in a few turns, little when idle.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Calls that wait for the channel at a time; more wait for their turn.
const CALLS_QUEUED_MAX: usize = 64;

/// A channel to the socket at `path`. Nothing is connected yet. Must be called within a tokio runtime.
pub(super) fn channel(path: PathBuf) -> Channel {
    // The authority that gRPC for Go sends over unix sockets.
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .buffer_size(CALLS_QUEUED_MAX)
        .connect_with_connector_lazy(Dialer { path: path.into(), backoff: Arc::default() })
}

/// Why the socket cannot be reached, in the words that gRPC for Go uses (they appear in conditions and events).
#[derive(Clone, Debug, thiserror::Error)]
#[error("connection error: desc = \"transport: Error while dialing: dial unix {}: connect: {message}\"", path.display())]
struct DialError {
    path: Arc<Path>,
    message: String,
}

#[derive(Clone)]
struct Dialer {
    path: Arc<Path>,
    backoff: Arc<Mutex<Backoff>>,
}

/// While it lasts, calls fail at once with the last failure.
#[derive(Default)]
struct Backoff {
    failed: Option<(DialError, Instant)>,
    wait: Duration,
}

impl Backoff {
    /// The last failure, while it is too early for another try.
    fn refusal(&self, now: Instant) -> Option<DialError> {
        self.failed.as_ref().filter(|(_, retry_at)| now < *retry_at).map(|(error, _)| error.clone())
    }

    fn has_failed(&mut self, error: DialError, now: Instant) {
        self.wait = if self.wait.is_zero() { WAIT_MIN } else { self.wait.mul_f64(1.6).min(WAIT_MAX) };
        self.failed = Some((error, now + self.wait));
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<UnixStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dialer.dial().await?)) })
    }
}

impl Dialer {
    async fn dial(&self) -> Result<UnixStream, DialError> {
        if let Some(refusal) = self.backoff().refusal(Instant::now()) {
            return Err(refusal);
        }
        match UnixStream::connect(&*self.path).await {
            Ok(stream) => {
                *self.backoff() = Backoff::default();
                Ok(stream)
            }
            Err(error) => {
                let error = DialError { path: self.path.clone(), message: errno_text(&error) };
                self.backoff().has_failed(error.clone(), Instant::now());
                Err(error)
            }
        }
    }

    fn backoff(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The system's text as Go writes it: lower case, without the number.
fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(path: &str) -> Dialer {
        Dialer { path: Path::new(path).into(), backoff: Arc::default() }
    }

    #[tokio::test]
    async fn a_missing_socket_is_told_as_go_tells_it() {
        let error = dialer("/nowhere/a.sock").dial().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "connection error: desc = \"transport: Error while dialing: dial unix /nowhere/a.sock: connect: no such file or directory\""
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_try_waits_longer_each_time() {
        let dialer = dialer("/nowhere/a.sock");
        let mut waits = Vec::new();
        for _ in 0..10 {
            dialer.dial().await.unwrap_err();
            let wait = dialer.backoff().wait;
            waits.push(wait);
            assert!(dialer.backoff().refusal(Instant::now()).is_some());
            tokio::time::advance(wait).await;
            assert!(dialer.backoff().refusal(Instant::now()).is_none());
        }
        assert_eq!(waits[..3], [100, 160, 256].map(Duration::from_millis));
        assert_eq!(waits.last(), Some(&WAIT_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_the_failures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let dialer = dialer(path.to_str().unwrap());
        dialer.dial().await.unwrap_err();
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let too_early = dialer.dial().await.unwrap_err();
        assert!(too_early.to_string().contains("no such file"), "the last failure is told: {too_early}");
        tokio::time::advance(WAIT_MIN).await;
        dialer.dial().await.unwrap();
        assert!(dialer.backoff().failed.is_none());
    }
}
