//! Amounts of the machine and what is kept of them.

use std::collections::BTreeMap;
use std::path::Path;

use rubelet_api::config::KubeletConfiguration;
use rubelet_api::quantity::Amount;
use rubelet_core::node::Machine;
use rubelet_core::resources::allocatable::{NodeAmounts, Reserved, allocatable, pods_limit};
use rubelet_host::{chain, proc};

/// The machine with what is left of it for pods.
///
/// # Errors
/// A file of the kernel that cannot be read.
pub(super) fn machine(config: &KubeletConfiguration, root_dir: &Path) -> Result<Machine, String> {
    let memory = proc::memory().map_err(|e| chain(&e))?;
    let huge_pages = proc::huge_pages().map_err(|e| chain(&e))?;
    let disk = root_dir.ancestors().find_map(|dir| proc::disk(dir).ok()).unwrap_or_default();
    let huge: Vec<(u64, i64)> =
        huge_pages.iter().map(|p| (p.size_bytes, whole(p.size_bytes.saturating_mul(p.count)))).collect();
    let capacity = NodeAmounts {
        cpu_milli: i64::from(proc::cpu_count().map_err(|e| chain(&e))?) * 1000,
        memory_bytes: whole(memory.total),
        ephemeral_storage_bytes: whole(disk.capacity),
    };
    let mut reserved = Reserved {
        system: amounts(&config.resources.system_reserved),
        kube: amounts(&config.resources.kube_reserved),
        eviction: thresholds(&config.eviction.hard.0, capacity),
        huge_pages_bytes: huge.iter().map(|(_, bytes)| bytes).sum(),
    };
    if let Some(cpus) = cpus_in(&config.resources.reserved_system_cpus) {
        // kubelet 1.36: the list stands in place of both reservations.
        (reserved.system.cpu_milli, reserved.kube.cpu_milli) = (cpus * 1000, 0);
    }
    let left = allocatable(capacity, reserved);
    let limit = pods_limit(capacity, reserved);
    let is_enforced = config.resources.enforce_node_allocatable.iter().any(|on| on == "pods");
    Ok(Machine {
        cpu_milli: capacity.cpu_milli,
        memory_bytes: capacity.memory_bytes,
        ephemeral_storage_bytes: capacity.ephemeral_storage_bytes,
        allocatable_cpu_milli: left.cpu_milli,
        allocatable_memory_bytes: left.memory_bytes,
        allocatable_ephemeral_storage_bytes: left.ephemeral_storage_bytes,
        pods_memory_limit_bytes: is_enforced.then_some(limit.memory_bytes),
        pods_cpu_milli: if is_enforced { limit.cpu_milli } else { capacity.cpu_milli },
        huge_page_sizes: huge_pages.iter().map(|p| p.size_bytes).collect(),
        huge_pages: huge.into_iter().filter(|(_, bytes)| *bytes > 0).collect(),
        swap_bytes: whole(memory.swap_total),
        has_swap_control: has_swap_control(),
        has_apparmor: proc::has_apparmor(),
        has_selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        thermal_throttle_paths: thermal_throttle_paths(),
        kernel: proc::kernel_version(&proc::kernel_release()),
    })
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn amount(text: Option<&String>) -> Amount {
    // Checked with the configuration.
    text.and_then(|text| Amount::parse(text).ok()).unwrap_or(Amount::ZERO)
}

fn amounts(map: &BTreeMap<String, String>) -> NodeAmounts {
    NodeAmounts {
        cpu_milli: amount(map.get("cpu")).milli(),
        memory_bytes: amount(map.get("memory")).units(),
        ephemeral_storage_bytes: amount(map.get("ephemeral-storage")).units(),
    }
}

/// The hard thresholds in bytes; shares are of the capacity.
fn thresholds(hard: &BTreeMap<String, String>, capacity: NodeAmounts) -> NodeAmounts {
    let bytes = |signal: &str, whole: i64| {
        let Some(text) = hard.get(signal) else { return 0 };
        match text.strip_suffix('%').map(str::parse::<f64>) {
            Some(Ok(percent)) => share(whole, percent),
            Some(Err(_)) => 0,
            None => amount(Some(text)).units(),
        }
    };
    NodeAmounts {
        cpu_milli: 0,
        memory_bytes: bytes("memory.available", capacity.memory_bytes),
        ephemeral_storage_bytes: bytes("nodefs.available", capacity.ephemeral_storage_bytes),
    }
}

/// kubelet 1.36: a share is cut to whole bytes.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "as upstream computes it, in float64 and cut"
)]
fn share(whole: i64, percent: f64) -> i64 {
    (whole as f64 * (percent / 100.0)) as i64
}

/// How many CPUs a list such as `0-3,8` names; `None` for an empty one.
fn cpus_in(list: &str) -> Option<i64> {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<i64>().ok()?, last.trim().parse::<i64>().ok()?);
        Some((last - first + 1).max(0))
    };
    (!list.trim().is_empty()).then(|| list.split(',').filter_map(count).sum())
}

fn has_swap_control() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    // The root of version 2 has no such file, its first level does.
    let v2 = || {
        let children = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        children.map(|entry| entry.path().join("memory.swap.max")).any(|path| path.exists())
    };
    v1.exists() || v2()
}

fn thermal_throttle_paths() -> Vec<String> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut paths: Vec<(u32, String)> = cpus
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            let path = entry.path().join("thermal_throttle");
            path.exists().then(|| (number, path.display().to_string()))
        })
        .collect();
    paths.sort_unstable();
    paths.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(cpus_in(""), None);
        assert_eq!(cpus_in("0-3,8"), Some(5));
        assert_eq!(cpus_in("1"), Some(1));
    }

    #[test]
    fn thresholds_are_bytes_or_shares() {
        let hard = [("memory.available", "100Mi"), ("nodefs.available", "10%")];
        let hard = hard.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let capacity = NodeAmounts { cpu_milli: 4000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 1001 };
        let got = thresholds(&hard, capacity);
        assert_eq!((got.memory_bytes, got.ephemeral_storage_bytes), (100 << 20, 100));
    }
}
