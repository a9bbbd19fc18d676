//! The life of one agent: all its tasks end together, wherever they are.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Spawns tasks that end with the agent. Clones share one life.
#[derive(Clone, Debug)]
pub struct Life {
    ended: watch::Receiver<()>,
}

/// Ends a life when it is dropped: each task stops at the point where it waits, as if the process were killed there.
#[derive(Debug)]
pub struct LifeEnd {
    _end: watch::Sender<()>,
}

impl Life {
    /// A life and its end.
    pub fn new() -> (Self, LifeEnd) {
        let (end, ended) = watch::channel(());
        (Self { ended }, LifeEnd { _end: end })
    }

    /// Spawns a task of this life.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.spawn_boxed(Box::pin(task))
    }

    /// One type for all tasks: the runtime's code for a task is there once, not for each.
    fn spawn_boxed(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) -> AbortHandle {
        let mut ended = self.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                // An error is the end: the sender is gone; nothing is ever sent.
                _ = ended.changed() => {}
                () = task => {}
            }
        })
        .abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn tasks_end_with_the_life() {
        let (life, end) = Life::new();
        let (held, gone) = oneshot::channel::<()>();
        life.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(end);
        assert!(gone.await.is_err(), "the task still holds its end of the channel");
    }
}
