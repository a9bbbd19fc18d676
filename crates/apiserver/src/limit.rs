//! How often we may ask: a bucket of tokens.

use std::time::{Duration, Instant};

/// Requests per second, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    pub burst: u32,
}

impl Rate {
    /// kubelet 1.36's `kubeAPIQPS` and `kubeAPIBurst`: a rate of 0 means 5 and 10 of the client library, a negative one no limit.
    #[must_use]
    pub fn of_configuration(qps: i32, burst: i32) -> Option<Self> {
        let burst = if burst == 0 { 10 } else { u32::try_from(burst).unwrap_or(0) };
        match qps {
            0 => Some(Self { per_second: 5.0, burst }),
            qps if qps < 0 => None,
            qps => Some(Self { per_second: f64::from(qps), burst }),
        }
    }
}

/// The tokens: they come at a rate, up to a number; a request takes one, in advance if there is none.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Negative: taken in advance.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst.max(1)), at: now }
    }

    /// Takes a token and says how long to wait for it.
    pub fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.rate.per_second).min(f64::from(self.rate.burst.max(1)));
        self.tokens -= 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.rate.per_second) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_counts() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 10.0, burst: 2 }, start);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::ZERO);
        assert_eq!(bucket.take(start), Duration::from_millis(100));
        assert_eq!(bucket.take(start), Duration::from_millis(200));
        // Both are paid after 200 ms; half a second later the bucket is full, and not fuller.
        let later = start + Duration::from_secs(5);
        assert_eq!(bucket.take(later), Duration::ZERO);
        assert_eq!(bucket.take(later), Duration::ZERO);
        assert_eq!(bucket.take(later), Duration::from_millis(100));
    }

    #[test]
    fn a_negative_rate_is_no_limit() {
        assert_eq!(Rate::of_configuration(50, 100), Some(Rate { per_second: 50.0, burst: 100 }));
        assert_eq!(Rate::of_configuration(0, 0), Some(Rate { per_second: 5.0, burst: 10 }));
        assert_eq!(Rate::of_configuration(-1, 100), None);
    }
}
