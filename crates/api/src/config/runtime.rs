//! The container runtime and how containers run.

use std::collections::BTreeMap;

use super::field::section;
use crate::duration::Duration;

section! {
    /// The container runtime and how containers run.
    Runtime as "KubeletConfiguration" {
        /// Socket of the runtime.
        "containerRuntimeEndpoint" endpoint: always String = "unix:///run/containerd/containerd.sock";
        /// Socket for images; the runtime's when empty.
        "imageServiceEndpoint" image_endpoint: plain String;
        /// How long a request may take, except those that wait for something.
        "runtimeRequestTimeout" request_timeout: plain Duration = "2m0s";
        /// Whether containers without a seccomp profile get the runtime's.
        "seccompDefault" seccomp_default: pointer bool = false;
        /// Unsafe sysctls that pods may set.
        "allowedUnsafeSysctls" allowed_unsafe_sysctls: plain Vec<String>;
        /// Back-off of containers that fail.
        "crashLoopBackOff" crash_loop_back_off: always CrashLoopBackOff;
        /// Feature gates by name.
        "featureGates" feature_gates: plain BTreeMap<String, bool>;
    }
}

section! {
    /// Back-off of containers that fail.
    CrashLoopBackOff as "crashLoopBackOff" {
        /// The longest; none with its gate off.
        "maxContainerRestartPeriod" max_container_restart_period: pointer Option<Duration>;
    }
}
