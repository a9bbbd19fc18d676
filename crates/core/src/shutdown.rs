//! In which order pods stop when the node goes down, and how long each may take.

use std::time::Duration;

/// Priority from which pods are critical for the system.
const CRITICAL: i32 = 2_000_000_000;

/// How long pods from some priority on may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    pub priority: i32,
    pub secs: i64,
}

/// The periods, lowest priority first; empty: pods are not stopped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Periods(Vec<Period>);

impl Periods {
    /// kubelet 1.36: what is said by priority stands above the two simple fields, which are the periods of the priorities 0 and two
    /// billion.
    pub fn of(by_priority: Vec<Period>, whole: Duration, critical: Duration) -> Self {
        let mut periods = by_priority;
        if periods.is_empty() && !whole.is_zero() && critical <= whole {
            let secs = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
            let regular = Period { priority: 0, secs: secs(whole - critical) };
            periods = vec![regular, Period { priority: CRITICAL, secs: secs(critical) }];
        }
        periods.sort_by_key(|p| p.priority);
        Self(periods)
    }

    /// Whether pods are left alone.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }

    /// How long all of it may take.
    pub fn whole(&self) -> Duration {
        let secs = self.0.iter().fold(0_i64, |sum, p| sum.saturating_add(p.secs));
        Duration::from_secs(u64::try_from(secs).unwrap_or(0))
    }

    /// Divides pods, by their priorities, into the groups that stop one after the other: the period and the pods' places.
    /// Groups without pods are left out.
    ///
    /// kubelet 1.36: a pod belongs to the highest period that is not above it, one below all of them to the lowest.
    pub fn groups(&self, priorities: &[i32]) -> Vec<(Period, Vec<usize>)> {
        let group_of = |priority: i32| self.0.iter().rposition(|p| p.priority <= priority).unwrap_or(0);
        let members = |nth: usize| {
            let all = priorities.iter().enumerate();
            all.filter(|(_, priority)| group_of(**priority) == nth).map(|(place, _)| place).collect::<Vec<usize>>()
        };
        let groups = self.0.iter().enumerate().map(|(nth, period)| (*period, members(nth)));
        groups.filter(|(_, pods)| !pods.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_simple_fields_are_two_periods() {
        let periods = Periods::of(Vec::new(), SECS(30), SECS(10));
        assert_eq!(periods.0, [Period { priority: 0, secs: 20 }, Period { priority: CRITICAL, secs: 10 }]);
        assert_eq!(periods.whole(), SECS(30));
        assert!(Periods::of(Vec::new(), SECS(0), SECS(0)).is_off());
        let own = vec![Period { priority: 5, secs: 1 }, Period { priority: -5, secs: 2 }];
        assert_eq!(Periods::of(own, SECS(30), SECS(10)).0[0], Period { priority: -5, secs: 2 });
    }

    #[test]
    fn each_pod_belongs_to_the_highest_period_that_is_not_above_it() {
        let by = [(100, 10), (1000, 20), (10, 30)].map(|(priority, secs)| Period { priority, secs });
        let periods = Periods::of(by.to_vec(), SECS(0), SECS(0));
        let groups = periods.groups(&[5, 10, 99, 1000, 999, CRITICAL, -1]);
        let shown: Vec<(i32, i64, Vec<usize>)> =
            groups.into_iter().map(|(p, pods)| (p.priority, p.secs, pods)).collect();
        assert_eq!(shown, [(10, 30, vec![0, 1, 2, 6]), (100, 10, vec![4]), (1000, 20, vec![3, 5])]);
        assert_eq!(periods.groups(&[1]).len(), 1);
    }
}
