//! Amounts of the machine and what is kept of them.

use std::collections::BTreeMap;
use std::path::Path;

use rubelet_agent::reserve::{Reservation, Whose};
use rubelet_api::config::KubeletConfiguration;
use rubelet_api::quantity::Amount;
use rubelet_core::node::Machine;
use rubelet_core::node::NodeLimits;
use rubelet_core::resources::allocatable::{NodeAmounts, Reserved, allocatable, pods_limits};
use rubelet_core::resources::cpus::CpuSet;
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
        pids: proc::pids_max().unwrap_or(0),
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
    check(config, capacity, reserved.eviction)?;
    let is_enforced = config.resources.enforce_node_allocatable.iter().any(|on| on == "pods");
    Ok(Machine {
        cpu_milli: capacity.cpu_milli,
        memory_bytes: capacity.memory_bytes,
        ephemeral_storage_bytes: capacity.ephemeral_storage_bytes,
        allocatable_cpu_milli: left.cpu_milli,
        allocatable_memory_bytes: left.memory_bytes,
        allocatable_ephemeral_storage_bytes: left.ephemeral_storage_bytes,
        pods_limits: pods_limits(capacity, reserved, huge.clone(), is_enforced),
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

/// Whose cgroup is held to what is kept for him, in the order in which it is done (kubelet 1.36).
pub(super) fn reservations(config: &KubeletConfiguration, huge_page_sizes: &[u64]) -> Vec<Reservation> {
    let resources = &config.resources;
    let all = [("", false), ("-compressible", true)].into_iter().flat_map(|(suffix, is_compressible)| {
        let of = |name: &str, whose, cgroup: &str, amounts: &BTreeMap<String, String>| {
            let is_on = resources.enforce_node_allocatable.contains(&format!("{name}-reserved{suffix}"));
            let limits = (!amounts.is_empty()).then(|| limits(amounts, is_compressible, huge_page_sizes));
            is_on.then(|| Reservation { whose, cgroup: cgroup.to_owned(), is_compressible, limits })
        };
        let system = of("system", Whose::System, &resources.system_reserved_cgroup, &resources.system_reserved);
        [system, of("kube", Whose::Kube, &resources.kube_reserved_cgroup, &resources.kube_reserved)]
    });
    all.flatten().collect()
}

/// kubelet 1.36: what is not named is not limited, but for huge pages, of which there are none to have.
fn limits(amounts: &BTreeMap<String, String>, is_compressible: bool, huge_page_sizes: &[u64]) -> NodeLimits {
    let named = |name: &str| amounts.get(name).map(|text| amount(Some(text)));
    let rest = |name: &str| named(name).filter(|_| !is_compressible).map(|a| a.units());
    NodeLimits {
        cpu_milli: named("cpu").map(|a| a.milli()),
        memory_bytes: rest("memory"),
        pids: rest("pid"),
        huge_pages: huge_page_sizes.iter().map(|size| (*size, 0)).collect(),
    }
}

/// kubelet 1.36: nobody can keep more than there is.
fn check(config: &KubeletConfiguration, capacity: NodeAmounts, eviction: NodeAmounts) -> Result<(), String> {
    let resources = &config.resources;
    let has_storage = config.pods.local_storage_capacity_isolation;
    let rows = [
        ("cpu", shown(capacity.cpu_milli, "m"), 0),
        ("ephemeral-storage", in_bytes(capacity.ephemeral_storage_bytes), eviction.ephemeral_storage_bytes),
        ("memory", in_bytes(capacity.memory_bytes), eviction.memory_bytes),
    ];
    let problems = rows.into_iter().filter(|(name, ..)| has_storage || *name != "ephemeral-storage").filter_map(
        |(name, capacity, eviction)| {
            let kept = amount(resources.system_reserved.get(name)).plus(amount(resources.kube_reserved.get(name)));
            let kept = kept.plus(in_bytes(eviction));
            let is_too_much = kept > capacity;
            is_too_much.then(|| {
                format!("Resource {name:?} has a reservation of {kept} but capacity of {capacity}. Expected capacity >= reservation.")
            })
        },
    );
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("invalid Node Allocatable configuration. {}", problems.join(" ")))
    }
}

fn in_bytes(bytes: i64) -> Amount {
    if bytes % 1024 == 0 { shown(bytes / 1024, "Ki") } else { shown(bytes, "") }
}

fn shown(number: i64, suffix: &str) -> Amount {
    // A number and a suffix are a quantity.
    Amount::parse(&format!("{number}{suffix}")).unwrap_or(Amount::ZERO)
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
        pids: amount(map.get("pid")).units(),
    }
}

/// CPU that is kept for the system and for the agents together.
pub(super) fn reserved_cpu(config: &KubeletConfiguration) -> Amount {
    match cpus_in(&config.resources.reserved_system_cpus) {
        Some(cpus) => shown(cpus, ""),
        None => {
            let of = |map: &BTreeMap<String, String>| amount(map.get("cpu"));
            of(&config.resources.system_reserved).plus(of(&config.resources.kube_reserved))
        }
    }
}

/// Memory in bytes below which pods have to go at once.
pub(super) fn memory_threshold(config: &KubeletConfiguration, memory_bytes: i64) -> i64 {
    thresholds(&config.eviction.hard.0, NodeAmounts { memory_bytes, ..NodeAmounts::default() }).memory_bytes
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
        pids: 0,
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
    // Checked with the configuration.
    let count = || CpuSet::parse(list).map_or(0, |cpus| i64::try_from(cpus.len()).unwrap_or(i64::MAX));
    (!list.trim().is_empty()).then(count)
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

    fn config(text: &str) -> KubeletConfiguration {
        let text = format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{text}");
        let draft = rubelet_api::config::Draft::from_file("c", text.as_bytes()).unwrap();
        draft.finish(rubelet_api::config::Surroundings { has_cgroup_v1: None }).unwrap().config
    }

    #[test]
    fn nobody_keeps_more_than_there_is() {
        let capacity =
            NodeAmounts { cpu_milli: 2000, memory_bytes: 8 << 30, ephemeral_storage_bytes: 10 << 30, pids: 100 };
        let check = |text: &str, eviction| check(&config(text), capacity, eviction);
        let none = NodeAmounts::default();
        assert_eq!(check("systemReserved: {cpu: '2', memory: 8Gi, pid: '1000'}", none), Ok(()));
        assert_eq!(
            check("systemReserved: {cpu: 1500m}\nkubeReserved: {cpu: 501m, memory: 7Gi}", none).unwrap_err(),
            "invalid Node Allocatable configuration. Resource \"cpu\" has a reservation of 2001m but capacity of 2. \
             Expected capacity >= reservation."
        );
        let eviction = NodeAmounts { memory_bytes: 100 << 20, ..none };
        assert_eq!(
            check("kubeReserved: {memory: 8Gi, ephemeral-storage: 11Gi}", eviction).unwrap_err(),
            "invalid Node Allocatable configuration. Resource \"ephemeral-storage\" has a reservation of 11Gi but \
             capacity of 10Gi. Expected capacity >= reservation. Resource \"memory\" has a reservation of 8292Mi but \
             capacity of 8Gi. Expected capacity >= reservation."
        );
        assert_eq!(
            check("localStorageCapacityIsolation: false\nkubeReserved: {ephemeral-storage: 11Gi}", none),
            Ok(())
        );
    }

    #[test]
    fn who_is_held_to_what() {
        let text = "enforceNodeAllocatable: [kube-reserved, system-reserved-compressible]\n\
                    systemReservedCgroup: /system\nkubeReservedCgroup: /kube\n\
                    systemReserved: {cpu: 500m, memory: 1Gi}\nkubeReserved: {memory: 2Gi, pid: '300'}\n";
        let all = reservations(&config(text), &[2 << 20]);
        let rows: Vec<_> =
            all.iter().map(|r| (r.whose, r.cgroup.as_str(), r.is_compressible, r.limits.clone().unwrap())).collect();
        let limits = |cpu_milli, memory_bytes, pids| NodeLimits {
            cpu_milli,
            memory_bytes,
            pids,
            huge_pages: vec![(2 << 20, 0)],
        };
        assert_eq!(
            rows,
            [
                (Whose::Kube, "/kube", false, limits(None, Some(2 << 30), Some(300))),
                (Whose::System, "/system", true, limits(Some(500), None, None)),
            ]
        );
        assert_eq!(reservations(&config(""), &[]).len(), 0);
    }

    #[test]
    fn thresholds_are_bytes_or_shares() {
        let hard = [("memory.available", "100Mi"), ("nodefs.available", "10%")];
        let hard = hard.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let capacity = NodeAmounts { cpu_milli: 4000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 1001, pids: 0 };
        let got = thresholds(&hard, capacity);
        assert_eq!((got.memory_bytes, got.ephemeral_storage_bytes), (100 << 20, 100));
    }
}
