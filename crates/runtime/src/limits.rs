//! CRI's resources of a container, as values of its cgroup.

use rubelet_host::cgroup::Values;
use rubelet_proto::cri::LinuxContainerResources;

/// Zero and empty mean: as it is. A memory limit without one for swap leaves no room for swap, as with containerd.
pub(crate) fn values(resources: &LinuxContainerResources) -> Values {
    let set = |value: i64| (value != 0).then_some(value);
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|v| *v != 0);
    let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
    let memory = set(resources.memory_limit_in_bytes);
    Values {
        cpu_shares: unsigned(resources.cpu_shares),
        cpu_weight: unsigned(resources.cpu_shares).map(weight),
        cpu_quota_us: set(resources.cpu_quota),
        cpu_period_us: unsigned(resources.cpu_period),
        memory_limit_bytes: memory,
        memory_swap_limit_bytes: set(resources.memory_swap_limit_in_bytes).or(memory),
        pids_max: None,
        hugetlb: resources
            .hugepage_limits
            .iter()
            .filter_map(|l| Some((page_bytes(&l.page_size)?, limit(l.limit))))
            .collect(),
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        unified: resources.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect(),
    }
}

/// The weight of version 2 for shares, as runc 1.3 has it for containers: 1024 become 100, the ends of both ranges meet.
pub(crate) fn weight(shares: u64) -> u64 {
    const MOST: u64 = 262_144;
    match shares {
        0 => 0,
        1..=2 => 1,
        MOST.. => 10_000,
        _ => {
            let log = u32::try_from(shares).map_or(18.0, f64::from).log2();
            let power = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Between 1 and 10000.
            10.0_f64.powf(power).ceil().clamp(1.0, 10_000.0) as u64
        }
    }
}

/// `later` over `earlier`: what an update does not say stays. So the record of a container tells all that holds.
pub(crate) fn merge(earlier: &LinuxContainerResources, later: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &str, new: &str| if new.is_empty() { old.to_owned() } else { new.to_owned() };
    let mut unified = earlier.unified.clone();
    unified.extend(later.unified.clone());
    let hugepages = if later.hugepage_limits.is_empty() { &earlier.hugepage_limits } else { &later.hugepage_limits };
    LinuxContainerResources {
        cpu_period: number(earlier.cpu_period, later.cpu_period),
        cpu_quota: number(earlier.cpu_quota, later.cpu_quota),
        cpu_shares: number(earlier.cpu_shares, later.cpu_shares),
        memory_limit_in_bytes: number(earlier.memory_limit_in_bytes, later.memory_limit_in_bytes),
        oom_score_adj: number(earlier.oom_score_adj, later.oom_score_adj),
        cpuset_cpus: text(&earlier.cpuset_cpus, &later.cpuset_cpus),
        cpuset_mems: text(&earlier.cpuset_mems, &later.cpuset_mems),
        hugepage_limits: hugepages.clone(),
        unified,
        memory_swap_limit_in_bytes: number(earlier.memory_swap_limit_in_bytes, later.memory_swap_limit_in_bytes),
    }
}

fn limit(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// `2MB`, `1GB`, `64KB`, as the kernel names its page sizes.
fn page_bytes(name: &str) -> Option<u64> {
    let digits = name.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match name.get(digits.len()..)? {
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use rubelet_proto::cri::HugepageLimit;

    use super::*;

    #[test]
    fn weights_as_recorded() {
        for (shares, want) in [(2, 1), (3, 2), (256, 35), (512, 59), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight(shares), want, "{shares} shares");
        }
    }

    #[test]
    fn nothing_said_is_nothing_written() {
        assert_eq!(values(&LinuxContainerResources::default()), Values::default());
    }

    #[test]
    fn what_is_said_is_written() {
        let page = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
        let odd = HugepageLimit { page_size: "2 pages".into(), limit: 1 };
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 102,
            memory_limit_in_bytes: 4096,
            cpuset_cpus: "0".into(),
            hugepage_limits: vec![page, odd],
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let want = Values {
            cpu_shares: Some(102),
            cpu_weight: Some(17),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(4096),
            memory_swap_limit_bytes: Some(4096),
            hugetlb: vec![(2 << 20, 4 << 20)],
            cpuset_cpus: Some("0".into()),
            unified: vec![("memory.oom.group".into(), "1".into())],
            ..Values::default()
        };
        assert_eq!(values(&resources), want);
        let more = LinuxContainerResources { memory_limit_in_bytes: 8192, ..Default::default() };
        let merged = merge(&resources, &more);
        assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes, merged.hugepage_limits.len()), (102, 8192, 2));
    }
}
