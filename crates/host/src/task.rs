//! Work beside the caller, in tasks of one type whatever they do: the executor's code for a task is in the program once, not once for
//! each of hundreds.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

/// What work beside the caller comes to. Who drops it lets the work go on.
#[derive(Debug)]
pub struct Beside<T> {
    task: JoinHandle<()>,
    outcome: Arc<Mutex<Option<T>>>,
}

/// Starts a task that nobody waits for, or only for its end.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    spawn_boxed(Box::pin(work))
}

/// Starts a task with an outcome.
pub fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Beside<T> {
    let outcome = Arc::new(Mutex::new(None));
    let place = outcome.clone();
    let task = spawn(async move { keep(&place, work.await) });
    Beside { task, outcome }
}

/// Starts work that blocks its thread.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Beside<T> {
    let outcome = Arc::new(Mutex::new(None));
    let place = outcome.clone();
    Beside { task: block_boxed(Box::new(move || keep(&place, work()))), outcome }
}

fn spawn_boxed(work: Pin<Box<dyn Future<Output = ()> + Send>>) -> JoinHandle<()> {
    tokio::spawn(work)
}

fn block_boxed(work: Box<dyn FnOnce() + Send>) -> JoinHandle<()> {
    tokio::task::spawn_blocking(work)
}

fn keep<T>(place: &Mutex<Option<T>>, outcome: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
}

impl<T> Future for Beside<T> {
    /// An error: the work panicked, or the executor ended before it began.
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.task).poll(context));
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that ended without an error has kept its outcome as the last thing it did.
        Poll::Ready(ended.map(|()| outcome.take().expect("an outcome, and asked for once")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outcomes_and_panics_are_told() {
        assert_eq!(blocking(|| 7).await.expect("no panic"), 7);
        assert_eq!(beside(async { "seven" }).await.expect("no panic"), "seven");
        assert!(blocking(|| -> u8 { panic!("as asked") }).await.expect_err("a panic").is_panic());
        spawn(async {}).await.expect("no panic");
        let (told, seen) = tokio::sync::oneshot::channel();
        drop(blocking(move || told.send(1)));
        assert_eq!(seen.await.expect("it goes on"), 1);
    }
}
