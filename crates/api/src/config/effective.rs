//! Which fields do something already.

use serde_json::{Map, Value};

use super::KubeletConfiguration;
use super::draft::Draft;

/// Fields that have an effect, by dotted path; a path stands for all below it. The way to add a field is to make it
/// work and to add it here.
const EFFECTIVE: &[&str] = &[
    "address",
    "allowedUnsafeSysctls",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupRoot",
    "cgroupsPerQOS",
    "clusterDNS",
    "clusterDomain",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "crashLoopBackOff",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "fileCheckFrequency",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReserved",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "maxPods",
    "memoryManagerPolicy",
    "memorySwap",
    "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podLogsDir",
    "podPidsLimit",
    "podsPerCore",
    "port",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "providerID",
    "readOnlyPort",
    "registerNode",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "resolvConf",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "seccompDefault",
    "serializeImagePulls",
    "serverTLSBootstrap",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodPath",
    "staticPodURL",
    "staticPodURLHeader",
    "syncFrequency",
    "systemCgroups",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumeStatsAggPeriod",
];

/// Fields that have no effect upstream either.
const WITHOUT_EFFECT_ANYWHERE: &[&str] = &[
    "hairpinMode",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "streamingConnectionIdleTimeout",
    "kind",
    "apiVersion",
];

/// What does not exist yet can be switched off.
const OFF_IS_EFFECTIVE: &[&str] = &["enableControllerAttachDetach"];

/// The fields, by dotted path, that say something else than their default and have no effect yet. To be logged once
/// each.
pub fn not_effective(config: &KubeletConfiguration) -> Vec<String> {
    let (ours, default) = (config.to_value(), Draft::of_nothing().to_value());
    let mut all = Vec::new();
    if let (Value::Object(ours), Value::Object(default)) = (&ours, &default) {
        differing(ours, default, "", &mut all);
    }
    all.sort();
    all
}

fn differing(ours: &Map<String, Value>, default: &Map<String, Value>, above: &str, all: &mut Vec<String>) {
    for (name, value) in ours {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let covers = |list: &[&str]| list.contains(&path.as_str());
        if covers(EFFECTIVE) || covers(WITHOUT_EFFECT_ANYWHERE) || default.get(name) == Some(value) {
            continue;
        }
        if covers(OFF_IS_EFFECTIVE) && *value == Value::Bool(false) {
            continue;
        }
        let mut opened = EFFECTIVE.iter().chain(OFF_IS_EFFECTIVE);
        let is_opened = opened.any(|one| one.strip_prefix(path.as_str()).is_some_and(|r| r.starts_with('.')));
        match (value, default.get(name)) {
            (Value::Object(ours), default) if is_opened => {
                let none = Map::new();
                let default = default.and_then(Value::as_object).unwrap_or(&none);
                differing(ours, default, &path, all);
            }
            _ => all.push(path),
        }
    }
}

#[cfg(test)]
pub(super) fn known_paths() -> impl Iterator<Item = &'static str> {
    EFFECTIVE.iter().chain(WITHOUT_EFFECT_ANYWHERE).chain(OFF_IS_EFFECTIVE).copied()
}
