//! CPU time: shares and quota of cgroup v1; whoever writes cgroup v2 converts.

/// Fewest shares that the kernel takes; what a cgroup without a request gets.
pub const SHARES_MIN: u64 = 2;
/// Most shares that the kernel takes.
pub const SHARES_MAX: u64 = 262_144;
/// Shortest quota that the kernel takes, in microseconds.
pub const QUOTA_US_MIN: i64 = 1000;
/// The kernel's usual period, in microseconds.
pub const PERIOD_US: i64 = 100_000;

/// `cpu.shares` for a request in thousandths of a CPU. kubelet 1.36: 1024 for a CPU, between 2 and 262144.
pub fn cpu_shares(milli: i64) -> u64 {
    let shares = u64::try_from(i128::from(milli) * 1024 / 1000).unwrap_or(0);
    shares.clamp(SHARES_MIN, SHARES_MAX)
}

/// `cpu.cfs_quota_us` for a limit in thousandths of a CPU and a period in microseconds; 0 without a limit.
pub fn cpu_quota(milli: i64, period_us: i64) -> i64 {
    if milli == 0 {
        return 0;
    }
    let quota = i128::from(milli) * i128::from(period_us) / 1000;
    i64::try_from(quota).unwrap_or(i64::MAX).max(QUOTA_US_MIN)
}

#[cfg(test)]
mod tests {
    use super::{cpu_quota, cpu_shares};

    #[test]
    fn shares_follow_the_request_within_the_kernels_bounds() {
        for (milli, shares) in
            [(0, 2), (1, 2), (2, 2), (100, 102), (250, 256), (1000, 1024), (256_000, 262_144), (300_000, 262_144)]
        {
            assert_eq!(cpu_shares(milli), shares, "{milli}m");
        }
    }

    #[test]
    fn quota_is_the_limits_part_of_the_period_but_never_below_a_millisecond() {
        for (milli, period, quota) in
            [(0, 100_000, 0), (1, 100_000, 1000), (250, 100_000, 25_000), (2000, 100_000, 200_000), (500, 5000, 2500)]
        {
            assert_eq!(cpu_quota(milli, period), quota, "{milli}m of {period}");
        }
    }
}
