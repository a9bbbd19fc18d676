//! What is said once at start about settings that do not do what one may think.

use rubelet_api::config::{KubeletConfiguration, Warning, not_effective};
use rubelet_api::gates::{Gate, Gates};

use crate::flags::Given;

/// Something to be logged once, when the configuration is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Remark {
    /// The user may want to change something.
    Warning { words: String, about: String },
    /// Good to know.
    Info { words: String, about: String },
}

impl Remark {
    /// Logs it.
    pub(crate) fn log(&self) {
        match self {
            Self::Warning { words, about } => tracing::warn!(about = about.as_str(), "{words}"),
            Self::Info { words, about } => tracing::info!(about = about.as_str(), "{words}"),
        }
    }
}

/// Gates that switch something here. The way to add one is to make it work and to add it here.
const EFFECTIVE_GATES: [Gate; 36] = [
    Gate::AllAlpha,
    Gate::AllBeta,
    Gate::AllowDNSOnlyNodeCSR,
    Gate::AllowParsingUserUIDFromCertAuth,
    Gate::ChangeContainerStatusOnKubeletRestart,
    // Without it there is no projection.
    Gate::ClusterTrustBundle,
    Gate::ClusterTrustBundleProjection,
    Gate::CPUManagerPolicyAlphaOptions,
    Gate::CPUManagerPolicyBetaOptions,
    Gate::CPUManagerPolicyOptions,
    Gate::ComponentFlagz,
    Gate::ComponentStatusz,
    Gate::ContainerCheckpoint,
    Gate::ContainerRestartRules,
    Gate::ContainerStopSignals,
    Gate::CustomCPUCFSQuotaPeriod,
    Gate::DisableCPUQuotaWithExclusiveCPUs,
    Gate::EnvFiles,
    Gate::ExtendWebSocketsToKubelet,
    Gate::GracefulNodeShutdown,
    Gate::GracefulNodeShutdownBasedOnPodPriority,
    Gate::HostnameOverride,
    Gate::KubeletCrashLoopBackOffMax,
    Gate::KubeletRegistrationGetOnExistsOnly,
    Gate::LoggingAlphaOptions,
    Gate::LoggingBetaOptions,
    Gate::NodeDeclaredFeatures,
    Gate::NodeLogQuery,
    Gate::PodLevelResources,
    Gate::PodCertificateRequest,
    Gate::PodLogsQuerySplitStreams,
    Gate::PreventStaticPodAPIReferences,
    Gate::ReduceDefaultCrashLoopBackOffDecay,
    Gate::RestartAllContainersOnContainerExits,
    Gate::RotateKubeletServerCertificate,
    Gate::UserNamespacesHostNetworkSupport,
];

/// Flags without a field that do nothing yet.
const FLAGS_WITHOUT_EFFECT_YET: [&str; 5] = [
    "experimental-mounter-path",
    "housekeeping-interval",
    "maximum-dead-containers",
    "maximum-dead-containers-per-container",
    "minimum-container-ttl-duration",
];

/// All remarks: those of reading the files, and a line for each kind of setting that has no effect.
pub(super) fn all(warnings: Vec<Warning>, config: &KubeletConfiguration, gates: &Gates, given: &Given) -> Vec<Remark> {
    let mut all: Vec<Remark> =
        warnings.into_iter().map(|Warning { words, about }| Remark::Warning { words, about }).collect();
    let lines = [
        ("These fields have no effect in this version of rubelet yet", not_effective(config)),
        ("These feature gates have no effect in this version of rubelet yet", idle_gates(config, gates)),
        ("These flags have no effect in this version of rubelet yet", idle_flags(given)),
    ];
    for (words, names) in lines {
        if !names.is_empty() {
            all.push(Remark::Warning { words: words.to_owned(), about: names.join(", ") });
        }
    }
    let ignored: Vec<&str> = given.without_effect().collect();
    if !ignored.is_empty() {
        let words = "These flags are accepted for old command lines and do nothing".to_owned();
        all.push(Remark::Info { words, about: ignored.join(", ") });
    }
    all
}

/// Gates that were switched by name away from their default and switch nothing here.
fn idle_gates(config: &KubeletConfiguration, gates: &Gates) -> Vec<String> {
    let said = |gate: Gate| config.runtime.feature_gates.contains_key(gate.name());
    gates
        .iter()
        .filter(|(gate, on)| said(*gate) && *on != gate.default() && !EFFECTIVE_GATES.contains(gate))
        .map(|(gate, on)| format!("{gate}={on}"))
        .collect()
}

fn idle_flags(given: &Given) -> Vec<String> {
    let names = FLAGS_WITHOUT_EFFECT_YET.into_iter().filter(|name| given.value(name).is_some());
    names.map(|name| format!("--{name}")).collect()
}
