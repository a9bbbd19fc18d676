//! Asking the API server, patiently but not for ever, and not with too many questions at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{AccessQuestion, Caller};

/// An answer in the making.
pub type Reviewing<T> = Pin<Box<dyn Future<Output = Result<T, ReviewError>> + Send>>;

/// Whom to ask who someone is and what they may: the API server.
pub trait Reviews: Send + Sync + 'static {
    /// Whose token this is, by a `TokenReview`; `None`: nobody's. One try.
    fn token(&self, token: &str) -> Reviewing<Option<Caller>>;

    /// Whether this is allowed, by a `SubjectAccessReview`. One try.
    fn access(&self, question: &AccessQuestion) -> Reviewing<bool>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The same question may be answered soon (kubelet 1.36: connection lost, 429, 500, 504, or `Retry-After`).
    #[error("{0}")]
    Busy(String),
    /// Asking again is of no use.
    #[error("{0}")]
    Refused(String),
}

/// kubelet 1.36: the first wait, the factor of the following ones, and how often is asked.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
const TRIES: u32 = 5;
/// kubelet 1.36: up to a fifth more, so that nodes do not ask in step.
const JITTER: f64 = 0.2;
/// kubelet 1.36: how long one question may take in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer, or no hope for one.
pub(super) async fn patiently<T>(ask: impl Fn() -> Reviewing<T>) -> Result<T, ReviewError> {
    let asking = async {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match ask().await {
                Err(ReviewError::Busy(why)) => tracing::debug!(err = %why, "The API server is asked again"),
                answer => return answer,
            }
            tokio::time::sleep(wait.mul_f64(1.0 + JITTER * chance())).await;
            wait = wait.mul_f64(FACTOR);
        }
        ask().await
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(ReviewError::Refused(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness, in step with others: no harm.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

/// Questions at a time; more wait for their turn.
const AT_ONCE: usize = 32;

/// The API server, which is not asked too much at once.
#[derive(Clone)]
pub(super) struct Asks {
    reviews: Arc<dyn Reviews>,
    turns: Arc<tokio::sync::Semaphore>,
}

impl Asks {
    pub(super) fn new(reviews: Arc<dyn Reviews>) -> Self {
        Self { reviews, turns: Arc::new(tokio::sync::Semaphore::new(AT_ONCE)) }
    }

    pub(super) async fn token(&self, token: &str) -> Result<Option<Caller>, ReviewError> {
        let _turn = self.turns.acquire().await;
        patiently(|| self.reviews.token(token)).await
    }

    pub(super) async fn access(&self, question: &AccessQuestion) -> Result<bool, ReviewError> {
        let _turn = self.turns.acquire().await;
        patiently(|| self.reviews.access(question)).await
    }
}
