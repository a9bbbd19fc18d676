//! How long to wait before the next attempt. No clock, no chance: both are arguments.

use std::time::Duration;

/// How waiting grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    pub first: Duration,
    pub most: Duration,
    /// Added at random, as a share of the wait: 1.0 doubles it at most.
    pub jitter: f64,
}

/// Waits of one thing that is tried again.
#[derive(Clone, Debug)]
pub struct Backoff {
    growth: Growth,
    next: Duration,
    chance: Chance,
}

impl Backoff {
    #[must_use]
    pub fn new(growth: Growth, seed: u64) -> Self {
        Self { growth, next: growth.first, chance: Chance::new(seed) }
    }

    /// The wait after one more failure: doubles up to the most, with chance on top.
    pub fn fail(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.growth.most);
        wait + wait.mul_f64(self.growth.jitter * self.chance.share())
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.growth.first;
    }
}

/// Numbers that look like chance, from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, but not 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth { first: Duration::from_millis(800), most: Duration::from_secs(30), jitter: 1.0 };

    #[test]
    fn waits_double_up_to_the_most() {
        let mut backoff = Backoff::new(Growth { jitter: 0.0, ..GROWTH }, 1);
        let waits: Vec<u128> = (0..8).map(|_| backoff.fail().as_millis()).collect();
        assert_eq!(waits, [800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.fail(), Duration::from_millis(800));
    }

    #[test]
    fn jitter_is_within_its_share_and_differs_by_seed() {
        let first = |seed| Backoff::new(GROWTH, seed).fail();
        let waits: Vec<Duration> = (0..100).map(first).collect();
        assert!(waits.iter().all(|wait| (800..1600).contains(&wait.as_millis())));
        assert_eq!(first(7), first(7));
        let early = waits.iter().filter(|wait| wait.as_millis() < 1200).count();
        assert!((30..70).contains(&early), "{early}");
    }
}
