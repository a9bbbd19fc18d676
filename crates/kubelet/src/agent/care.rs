//! What the agent does for the node as a whole, from the configuration.

use rubelet_agent::care::Care;
use rubelet_agent::pressure::Figures;
use rubelet_agent::rotation::Rotation;
use rubelet_agent::shutdown::Shutdown;
use rubelet_api::config::KubeletConfiguration;
use rubelet_api::gates::{Gate, Gates};
use rubelet_api::quantity::Amount;
use rubelet_core::collect::images::Policy;
use rubelet_core::collect::logs;
use rubelet_core::evict::Rules;
use rubelet_core::shutdown::{Period, Periods};
use rubelet_host::dbus::logind::Places;

use crate::assemble::Assembled;

/// # Errors
/// A threshold that the configuration's check let through and that is none, in words.
pub(super) fn care(assembled: &Assembled) -> Result<Care, String> {
    let (config, gates) = (&assembled.config, &assembled.gates);
    Ok(Care {
        eviction: eviction(config, gates)?,
        figures: Figures::Machine,
        kernel_tells_of_memory: config.resources.kernel_memcg_notification,
        images: images(config),
        rotation: rotation(config)?,
        shutdown: shutdown(assembled),
        tells_of_oom: true,
    })
}

fn eviction(config: &KubeletConfiguration, gates: &Gates) -> Result<Rules, String> {
    let holds_pods = config.resources.enforce_node_allocatable.iter().any(|on| on == "pods");
    let rules = Rules::of(&config.eviction, holds_pods)?;
    Ok(Rules {
        local_storage: config.pods.local_storage_capacity_isolation,
        pod_level: gates.is_on(Gate::PodLevelResources),
        ..rules
    })
}

fn images(config: &KubeletConfiguration) -> Policy {
    let images = &config.images;
    Policy {
        high_percent: i64::from(images.gc_high_threshold_percent),
        low_percent: i64::from(images.gc_low_threshold_percent),
        age_min: images.minimum_gc_age.to_std(),
        age_max: images.maximum_gc_age.to_std(),
    }
}

/// kubelet 1.36: a negative size is no rotation.
fn rotation(config: &KubeletConfiguration) -> Result<Option<Rotation>, String> {
    let logs = &config.logs;
    let size = Amount::parse(&logs.container_max_size).map_err(|e| format!("containerLogMaxSize: {e}"))?;
    // The others are positive: the configuration was checked.
    let positive = |number: i32| usize::try_from(number).unwrap_or(1);
    Ok(u64::try_from(size.units()).ok().map(|bytes_max| Rotation {
        policy: logs::Policy { bytes_max, files_max: positive(logs.container_max_files) },
        at_once: positive(logs.container_max_workers),
        period: logs.container_monitor_interval.to_std(),
    }))
}

/// kubelet 1.36: without a grace period, or with the gate off, pods are left alone.
fn shutdown(assembled: &Assembled) -> Option<Shutdown> {
    let (node, gates) = (&assembled.config.node, &assembled.gates);
    let by_priority = node.shutdown_grace_period_by_pod_priority.iter();
    let by_priority = by_priority.map(|one| Period { priority: one.priority, secs: one.seconds });
    let has_priorities = gates.is_on(Gate::GracefulNodeShutdownBasedOnPodPriority);
    let periods = Periods::of(
        by_priority.filter(|_| has_priorities).collect(),
        node.shutdown_grace_period.to_std(),
        node.shutdown_grace_period_critical_pods.to_std(),
    );
    (gates.is_on(Gate::GracefulNodeShutdown) && !periods.is_off()).then(|| Shutdown {
        periods,
        logind: Places::default(),
        state: assembled.flags.root_dir.join("graceful_node_shutdown_state"),
    })
}
