//! CPU in use, from two looks at what was used.

use std::sync::{Mutex, PoisonError};

/// Looks that are nearer to each other than this tell little: the rate of the looks before is told again.
const APART_NANOS: i64 = 1_000_000_000;

/// What was seen of one cgroup.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    at_nanos: i64,
    used_nanos: u64,
    rate: Option<u64>,
}

impl Rate {
    /// Billionths of a CPU in use since an earlier look; `None` at the first one, and when the counter began anew.
    pub(crate) fn seen(&self, at_nanos: i64, used_nanos: u64) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = match *last {
            Some(last) if at_nanos - last.at_nanos < APART_NANOS && at_nanos >= last.at_nanos => return last.rate,
            Some(last) if at_nanos > last.at_nanos => {
                let used = used_nanos.checked_sub(last.used_nanos);
                let passed = u128::from((at_nanos - last.at_nanos).unsigned_abs());
                used.and_then(|used| u64::try_from(u128::from(used) * 1_000_000_000 / passed).ok())
            }
            Some(_) | None => None,
        };
        *last = Some(Seen { at_nanos, used_nanos, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_looks_a_second_apart() {
        let rate = Rate::default();
        assert_eq!(rate.seen(1_000_000_000, 500), None);
        assert_eq!(rate.seen(1_500_000_000, 900_000_000), None);
        assert_eq!(rate.seen(3_000_000_000, 1_000_000_500), Some(500_000_000));
        assert_eq!(rate.seen(3_100_000_000, 1_100_000_500), Some(500_000_000));
        assert_eq!(rate.seen(5_000_000_000, 7), None);
        assert_eq!(rate.seen(4_000_000_000, 8), None);
    }
}
