//! Who may have CPUs and memory for himself, from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rubelet_agent::allocation::{AllocationSettings, MACHINE_ROOT};
use rubelet_api::gates::Gate;
use rubelet_api::gather::Gather;
use rubelet_api::quantity::Amount;
use rubelet_core::resources::cpus::options;
use rubelet_core::resources::memory;

use super::amounts;
use crate::assemble::Assembled;

/// # Errors
/// A policy that is not there.
pub(super) fn settings(assembled: &Assembled, memory_bytes: i64) -> Result<AllocationSettings, String> {
    let (config, gates) = (&assembled.config, &assembled.gates);
    let resources = &config.resources;
    Ok(AllocationSettings {
        static_cpus: resources.cpu_manager_policy == "static",
        cpu_options: resources.cpu_manager_policy_options.clone(),
        cpu_option_gates: options::Gates {
            alpha: gates.is_on(Gate::CPUManagerPolicyAlphaOptions),
            beta: gates.is_on(Gate::CPUManagerPolicyBetaOptions),
        },
        reserved_cpus: resources.reserved_system_cpus.clone(),
        reserved_cpu_milli: amounts::reserved_cpu(config).milli(),
        lifts_quota: gates.is_on(Gate::DisableCPUQuotaWithExclusiveCPUs),
        memory_policy: memory::Policy::of(&resources.memory_manager_policy)?,
        reserved_memory: resources.reserved_memory.clone(),
        kept_memory: kept(assembled, memory_bytes),
        topology_policy: resources.topology_manager_policy.clone(),
        topology_scope: resources.topology_manager_scope.clone(),
        topology_options: resources.topology_manager_policy_options.clone(),
        machine_root: PathBuf::from(MACHINE_ROOT),
    })
}

/// kubelet 1.36: reservations for the system and for the agents, then hard thresholds.
fn kept(assembled: &Assembled, memory_bytes: i64) -> Vec<BTreeMap<String, Amount>> {
    let resources = &assembled.config.resources;
    let of = |map: &BTreeMap<String, String>| {
        let amounts = map.iter().filter_map(|(name, text)| Some((name.clone(), Amount::parse(text).ok()?)));
        amounts.into_map()
    };
    let eviction = amounts::memory_threshold(&assembled.config, memory_bytes);
    let eviction = BTreeMap::from([(memory::MEMORY.to_owned(), Amount::bytes(eviction))]);
    vec![of(&resources.system_reserved), of(&resources.kube_reserved), eviction]
}
