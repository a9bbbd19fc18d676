//! Numbers and durations in their ranges.

use super::{Moment, Rules};
use crate::duration::Duration;
use crate::gates::Gate;

/// A number that must be within limits, both included.
struct Range {
    field: &'static str,
    flag: &'static str,
    value: i64,
    least: i64,
    most: i64,
}

impl Rules<'_> {
    fn not_negative(&mut self, field: &'static str, flag: &str, value: i64) {
        if value < 0 {
            self.invalid(field, format!("{field} (--{flag}) {value} must not be a negative number"));
        }
    }

    fn within(&mut self, range: &Range) {
        let Range { field, flag, value, least, most } = *range;
        if !(least..=most).contains(&value) {
            let words = format!("{field} (--{flag}) {value} must be between {least} and {most}, inclusive");
            self.invalid(field, words);
        }
    }

    /// `zero`: whether 0 is valid too, and what the message calls the least.
    fn port(&mut self, field: &'static str, flag: &str, value: i32, zero: Option<i32>) {
        if (value != 0 || zero.is_none()) && !(1..=65535).contains(&value) {
            let least = zero.unwrap_or(1);
            self.invalid(field, format!("{field} (--{flag}) {value} must be between {least} and 65535, inclusive"));
        }
    }
}

/// From the lease to the pulls.
pub(super) fn first(rules: &mut Rules<'_>) {
    let config = rules.config;
    if config.node.lease_duration_seconds <= 0 {
        rules.invalid("nodeLeaseDurationSeconds", "nodeLeaseDurationSeconds must be greater than 0");
    }
    if !config.resources.system_cgroups.is_empty() && config.resources.cgroup_root.is_empty() {
        let words = "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified";
        rules.invalid("systemCgroups", words);
    }
    rules.not_negative("eventBurst", "event-burst", config.node.event_burst.into());
    rules.not_negative("eventRecordQPS", "event-qps", config.node.event_record_qps.into());
    rules.port("healthzPort", "healthz-port", config.server.healthz_port, Some(1));
    quota_period(rules);
    images(rules);
    let network = &config.network;
    let (drop, masquerade) = (network.iptables_drop_bit.into(), network.iptables_masquerade_bit.into());
    let range = Range { field: "iptablesDropBit", flag: "iptables-drop-bit", value: drop, least: 0, most: 31 };
    rules.within(&range);
    let field = "iptablesMasqueradeBit";
    rules.within(&Range { field, flag: "iptables-masquerade-bit", value: masquerade, least: 0, most: 31 });
    rules.not_negative("kubeAPIBurst", "kube-api-burst", config.node.kube_api_burst.into());
    rules.not_negative("kubeAPIQPS", "kube-api-qps", config.node.kube_api_qps.into());
    let most_images = config.images.node_status_max;
    if most_images < -1 {
        let words = format!("nodeStatusMaxImages (--node-status-max-images) {most_images} must be -1 or greater");
        rules.invalid("nodeStatusMaxImages", words);
    }
    rules.not_negative("maxOpenFiles", "max-open-files", config.host.max_open_files);
    rules.not_negative("maxPods", "max-pods", config.node.max_pods.into());
    let value = config.host.oom_score_adj.into();
    rules.within(&Range { field: "oomScoreAdj", flag: "oom-score-adj", value, least: -1000, most: 1000 });
    rules.not_negative("podsPerCore", "pods-per-core", config.node.pods_per_core.into());
    rules.port("port", "port", config.server.port, None);
    rules.port("readOnlyPort", "read-only-port", config.server.read_only_port, Some(0));
    pulls(rules);
}

fn quota_period(rules: &mut Rules<'_>) {
    let period = rules.config.resources.cpu_cfs_quota_period;
    let said = format!("cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {{{period}}}");
    let default = Duration::millis(100);
    if !rules.gates.is_on(Gate::CustomCPUCFSQuotaPeriod) {
        if period != default {
            rules.invalid("cpuCFSQuotaPeriod", format!("{said} requires feature gate CustomCPUCFSQuotaPeriod"));
        }
    } else if !(Duration::millis(1)..=Duration::seconds(1)).contains(&period) {
        rules.invalid("cpuCFSQuotaPeriod", format!("{said} must be between 1ms and 1sec, inclusive"));
    }
}

fn images(rules: &mut Rules<'_>) {
    let images = &rules.config.images;
    let (high, low) = (images.gc_high_threshold_percent, images.gc_low_threshold_percent);
    let (least_age, most_age) = (images.minimum_gc_age, images.maximum_gc_age);
    let (high_field, low_field) = ("imageGCHighThresholdPercent", "imageGCLowThresholdPercent");
    let (high_flag, low_flag) = ("image-gc-high-threshold", "image-gc-low-threshold");
    rules.within(&Range { field: high_field, flag: high_flag, value: high.into(), least: 0, most: 100 });
    rules.within(&Range { field: low_field, flag: low_flag, value: low.into(), least: 0, most: 100 });
    if low >= high {
        let words = format!("{low_field} (--{low_flag}) {low} must be less than {high_field} (--{high_flag}) {high}");
        rules.invalid(low_field, words);
    }
    if least_age < Duration::ZERO {
        rules.invalid("imageMinimumGCAge", format!("imageMinimumGCAge {least_age} must not be negative"));
    }
    if most_age < Duration::ZERO {
        rules.invalid("imageMaximumGCAge", format!("imageMaximumGCAge {most_age} must not be negative"));
    }
    if most_age > Duration::ZERO && most_age <= least_age {
        let words = format!("imageMaximumGCAge {most_age} must be greater than imageMinimumGCAge {least_age}");
        rules.invalid("imageMaximumGCAge", words);
    }
}

fn pulls(rules: &mut Rules<'_>) {
    let config = rules.config;
    rules.not_negative("registryBurst", "registry-burst", config.images.registry_burst.into());
    rules.not_negative("registryPullQPS", "registry-qps", config.images.registry_pull_qps.into());
    match config.images.max_parallel_pulls {
        Some(most) if most < 1 => {
            rules.invalid("maxParallelImagePulls", format!("maxParallelImagePulls {most} must be a positive number"));
        }
        Some(most) if most > 1 && config.images.serialize_pulls => {
            let words = "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false";
            rules.invalid("maxParallelImagePulls", words);
        }
        Some(_) | None => {}
    }
    if config.server.tls_bootstrap && !rules.gates.is_on(Gate::RotateKubeletServerCertificate) {
        let words = "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate";
        rules.invalid("serverTLSBootstrap", words);
    }
    if config.pods.run_once {
        let words = "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set";
        rules.invalid("runOnce", words);
    }
}

/// Swap and the longest back-off.
pub(super) fn swap_and_back_off(rules: &mut Rules<'_>) {
    let swap = &rules.config.resources.memory_swap.swap_behavior;
    if !matches!(swap.as_str(), "" | "NoSwap" | "LimitedSwap") {
        let said = crate::quote::quoted(swap);
        let words = format!(r#"memorySwap.swapBehavior {said} must be one of: "", "LimitedSwap" or "NoSwap""#);
        rules.invalid("memorySwap.swapBehavior", words);
    }
    let field = "crashLoopBackOff.maxContainerRestartPeriod";
    let most = rules.config.runtime.crash_loop_back_off.max_container_restart_period;
    let is_on = rules.gates.is_on(Gate::KubeletCrashLoopBackOffMax);
    match (is_on, most) {
        (true, None) => rules.invalid(
            field,
            "FeatureGate KubeletCrashLoopBackOffMax is enabled, CrashLoopBackOff.MaxContainerRestartPeriod must be set",
        ),
        (true, Some(most)) if !(1000..=300_000).contains(&(most.nanos / 1_000_000)) => {
            let seconds = most.nanos as f64 / 1e9;
            rules.invalid(
                field,
                format!(
                    "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set between 1s and 300s"
                ),
            );
        }
        (false, Some(_)) => rules.invalid(
            field,
            "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set",
        ),
        (true, Some(_)) | (false, None) => {}
    }
}

/// What depends on the machine; upstream stops at the first.
pub(super) fn host(rules: &mut Rules<'_>) {
    const IDS: i64 = 65536;
    let config = rules.config;
    let v1 = rules.surroundings.has_cgroup_v1 == Some(true);
    if config.host.fail_cgroup_v1 && v1 {
        let words = "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release";
        rules.refuse("failCgroupV1", Moment::Validation, words.to_owned());
        return;
    }
    if v1 && config.resources.single_process_oom_kill == Some(false) {
        let words = "singleProcessOOMKill must not be explicitly set to false when using cgroup v1";
        rules.invalid("singleProcessOOMKill", words);
        return;
    }
    let Some(ids) = config.resources.user_namespaces.as_ref().and_then(|one| one.ids_per_pod) else { return };
    let field = "userNamespaces.idsPerPod";
    if ids < IDS {
        rules.invalid(field, format!("{field} must not be less than {IDS}"));
    } else if ids % IDS != 0 {
        rules.invalid(field, format!("{field} must be a multiple of {IDS}"));
    } else if ids > u32::MAX.into() {
        rules.invalid(field, format!("{field} must not be more than {}", u32::MAX));
    }
}

/// From throttling to the rotation of logs.
pub(super) fn last(rules: &mut Rules<'_>) {
    let config = rules.config;
    match config.resources.memory_throttling_factor {
        Some(factor) if factor <= 0.0 || factor > 1.0 => {
            let words = format!("memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0");
            rules.invalid("memoryThrottlingFactor", words);
        }
        None if rules.gates.is_on(Gate::MemoryQoS) => {
            let words = "memoryThrottlingFactor is required when MemoryQoS feature flag is enabled";
            rules.invalid("memoryThrottlingFactor", words);
        }
        Some(_) | None => {}
    }
    super::texts::memory_reservation(rules);
    if config.runtime.endpoint.is_empty() {
        let words = "the containerRuntimeEndpoint was not specified or empty";
        rules.invalid("containerRuntimeEndpoint", words);
    }
    if config.server.enable_system_log_query && !config.server.enable_system_log_handler {
        let words = "enableSystemLogHandler is required for enableSystemLogQuery";
        rules.invalid("enableSystemLogQuery", words);
    }
    let logs = &config.logs;
    if logs.container_max_workers < 1 {
        rules.invalid("containerLogMaxWorkers", "containerLogMaxWorkers must be greater than or equal to 1");
    }
    if logs.container_monitor_interval < Duration::seconds(3) {
        let words = "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s";
        rules.invalid("containerLogMonitorInterval", words);
    }
    if logs.container_max_files <= 1 {
        rules.invalid("containerLogMaxFiles", "containerLogMaxFiles must be greater than 1");
    }
}
