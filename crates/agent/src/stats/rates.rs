//! How fast CPU time is used: the difference to what was read before.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// kubelet 1.36: what was read longer ago says nothing about now.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Readings closer together than this are too rough: the rate from before holds.
const APART_MIN: Duration = Duration::from_millis(500);

/// CPU time of cgroups when they were last asked.
#[derive(Default)]
pub(super) struct Rates {
    known: BTreeMap<String, Reading>,
}

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    nanos: u64,
    nano_cores: Option<u64>,
}

impl Rates {
    /// Billionths of a CPU since the reading before; `None` when there was none.
    pub(super) fn rate(&mut self, cgroup: &str, at: Instant, nanos: u64) -> Option<u64> {
        let Some(known) = self.known.get_mut(cgroup) else {
            self.known.insert(cgroup.to_owned(), Reading { at, nanos, nano_cores: None });
            return None;
        };
        let apart = at.saturating_duration_since(known.at);
        if apart < APART_MIN && nanos >= known.nanos {
            return known.nano_cores;
        }
        let rate = nanos
            .checked_sub(known.nanos)
            .filter(|_| apart <= AGE_MAX)
            .and_then(|used| u64::try_from(u128::from(used) * 1_000_000_000 / apart.as_nanos().max(1)).ok());
        *known = Reading { at, nanos, nano_cores: rate };
        rate
    }

    /// Forgets what was not asked for a long time.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, reading| now.saturating_duration_since(reading.at) <= AGE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        assert_eq!(rates.rate("a", at(0), 1_000_000_000), None);
        assert_eq!(rates.rate("a", at(10), 6_000_000_000), Some(500_000_000));
        let soon = at(10) + Duration::from_millis(100);
        assert_eq!(rates.rate("a", soon, 6_100_000_000), Some(500_000_000), "too soon: the rate from before");
        assert_eq!(rates.rate("a", at(20), 5), None, "another cgroup of that name");
        assert_eq!(rates.rate("a", at(21), 1_000_000_005), Some(1_000_000_000));
        assert_eq!(rates.rate("a", at(2000), 9_000_000_000), None, "too long ago");
        rates.sweep(at(9000));
        assert_eq!(rates.rate("a", at(9001), 9_000_000_001), None);
    }
}
