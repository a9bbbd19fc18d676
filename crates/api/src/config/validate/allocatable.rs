//! What is kept from pods.

use std::collections::BTreeSet;

use super::Rules;
use crate::quote::quoted;

const FIELD: &str = "enforceNodeAllocatable";
const NAME: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";

/// On whom reservations are enforced.
pub(super) fn enforcement(rules: &mut Rules<'_>) {
    let config = rules.config;
    let said = &config.resources.enforce_node_allocatable;
    for group in ["system", "kube"] {
        let (plain, compressible) = (format!("{group}-reserved"), format!("{group}-reserved-compressible"));
        if said.contains(&plain) && said.contains(&compressible) {
            let words = format!(r#"both "{plain}" and "{compressible}" cannot be specified together in {NAME}"#);
            rules.invalid(FIELD, words);
        }
    }
    let mut seen = BTreeSet::new();
    for value in said {
        if !seen.insert(value) {
            rules.invalid(FIELD, format!("duplicated enforcements {} in {NAME}", quoted(value)));
            continue;
        }
        let (group, cgroup) = match value.as_str() {
            "pods" => ("", ""),
            "system-reserved" | "system-reserved-compressible" => ("system", &*config.resources.system_reserved_cgroup),
            "kube-reserved" | "kube-reserved-compressible" => ("kube", &*config.resources.kube_reserved_cgroup),
            "none" => {
                if said.len() > 1 {
                    let words = format!(r#"{NAME} may not contain additional enforcements when "none" is specified"#);
                    rules.invalid(FIELD, words);
                }
                continue;
            }
            other => {
                let words = format!(
                    r#"option {} specified for {NAME}. Valid options are "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible" or "none""#,
                    quoted(other)
                );
                rules.invalid(FIELD, words);
                continue;
            }
        };
        if !group.is_empty() && cgroup.is_empty() {
            let words = format!(
                r#"{group}ReservedCgroup (--{group}-reserved-cgroup) must be specified when "{group}-reserved" or "{group}-reserved-compressible" included in {NAME}"#
            );
            rules.invalid(FIELD, words);
        }
        if !config.resources.cgroups_per_qos {
            let words = format!(
                "cgroupsPerQOS (--cgroups-per-qos) must be set to true when {} contained in {NAME}",
                quoted(value)
            );
            rules.invalid("cgroupsPerQOS", words);
        }
    }
}

/// CPUs and memory that are kept.
pub(super) fn reserved(rules: &mut Rules<'_>) {
    let resources = &rules.config.resources;
    let cpus = &resources.reserved_system_cpus;
    if !cpus.is_empty() {
        if !resources.system_reserved_cgroup.is_empty() || !resources.kube_reserved_cgroup.is_empty() {
            let words = "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)";
            rules.invalid("reservedSystemCPUs", words);
        }
        if let Err(error) = cpu_set(cpus) {
            let words = format!("unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: {error}");
            rules.invalid("reservedSystemCPUs", words);
        }
    }
    let mut seen = BTreeSet::new();
    for one in &resources.reserved_memory {
        for (resource, amount) in &one.limits {
            let node = one.numa_node;
            if resource != "memory" && !resource.starts_with("hugepages-") {
                let words = format!(
                    "the limit type {} for NUMA node {node} is not supported, only [memory hugepages-<HugePageSize>] is accepted",
                    quoted(resource)
                );
                rules.invalid("reservedMemory", words);
            }
            if amount.amount().is_zero() {
                let words =
                    format!("reserved memory may not be zero for NUMA node {node} and resource {}", quoted(resource));
                rules.invalid("reservedMemory", words);
            }
            if !seen.insert((node, resource)) {
                let words = format!(
                    "the reserved memory has a duplicate value for NUMA node {node} and resource {}",
                    quoted(resource)
                );
                rules.invalid("reservedMemory", words);
            }
        }
    }
}

/// Whether this is a list of CPUs, as `0-3,8`.
fn cpu_set(text: &str) -> Result<(), String> {
    let number = |one: &str| {
        let digits = one.strip_prefix(['-', '+']).unwrap_or(one);
        match one.parse::<i64>() {
            Ok(number) => Ok(number),
            Err(_) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Err(format!("strconv.Atoi: parsing {}: value out of range", quoted(one)))
            }
            Err(_) => Err(format!("strconv.Atoi: parsing {}: invalid syntax", quoted(one))),
        }
    };
    for range in text.split(',') {
        match range.split_once('-') {
            None => drop(number(range)?),
            Some((start, end)) => {
                let (start, end) = (number(start)?, number(end)?);
                if start > end {
                    return Err(format!("invalid range {} ({start} > {end})", quoted(range)));
                }
            }
        }
    }
    Ok(())
}
