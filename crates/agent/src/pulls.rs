//! Whose turn it is to pull: one at a time or in parallel, and not faster than configured.

use std::sync::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Limits on image pulls.
#[derive(Debug)]
pub struct Pulls {
    at_once: Option<Semaphore>,
    rate: Option<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    per_sec: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Pulls {
    /// `at_once`: `None` means no limit. `per_sec` 0 means no rate limit.
    ///
    /// Kubelet 1.36: `serializeImagePulls` is one at once; `registryPullQPS`/`registryBurst` are a token bucket.
    pub fn new(at_once: Option<usize>, per_sec: u32, burst: u32) -> Self {
        let burst = f64::from(burst);
        let bucket = || Bucket { per_sec: f64::from(per_sec), burst, tokens: burst, filled: Instant::now() };
        Self { at_once: at_once.map(Semaphore::new), rate: (per_sec > 0).then(|| Mutex::new(bucket())) }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Kubelet 1.36: over the rate a pull fails at once with `pull QPS exceeded`.
    pub async fn turn(&self) -> Result<Option<SemaphorePermit<'_>>, String> {
        if let Some(rate) = &self.rate {
            let mut bucket = rate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !bucket.take() {
                return Err("pull QPS exceeded".to_owned());
            }
        }
        match &self.at_once {
            Some(at_once) => at_once.acquire().await.map(Some).map_err(|e| e.to_string()),
            None => Ok(None),
        }
    }
}

impl Bucket {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_sec;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_passes_and_the_next_pull_fails_at_once() {
        let pulls = Pulls::new(None, 1, 3);
        for _ in 0..3 {
            assert!(pulls.turn().await.is_ok());
        }
        assert_eq!(pulls.turn().await.err().as_deref(), Some("pull QPS exceeded"));
    }

    #[tokio::test]
    async fn one_at_a_time_lets_the_second_wait() {
        let pulls = Pulls::new(Some(1), 0, 0);
        let first = pulls.turn().await;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), pulls.turn()).await;
        assert!(waiting.is_err(), "the second turn came while the first was held");
        drop(first);
        assert!(pulls.turn().await.is_ok());
    }
}
