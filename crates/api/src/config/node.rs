//! The node towards the cluster.

use super::field::section;
use crate::duration::Duration;

section! {
    /// The node towards the cluster.
    Node as "KubeletConfiguration" {
        /// Events per second; 0: no limit.
        "eventRecordQPS" event_record_qps: pointer i32 = 50;
        /// Events at once beyond that.
        "eventBurst" event_burst: plain i32 = 100;
        /// Requests per second to the API server.
        "kubeAPIQPS" kube_api_qps: pointer i32 = 50;
        /// Requests at once beyond that.
        "kubeAPIBurst" kube_api_burst: plain i32 = 100;
        /// Content type of requests to the API server.
        "contentType" content_type: plain String = "application/vnd.kubernetes.protobuf";
        /// How often the status is computed.
        "nodeStatusUpdateFrequency" status_update_frequency: plain Duration = "10s";
        /// How often an unchanged status is reported.
        "nodeStatusReportFrequency" status_report_frequency: plain Duration;
        /// How long the lease holds, in seconds.
        "nodeLeaseDurationSeconds" lease_duration_seconds: plain i32 = 40;
        /// Whether the node registers itself.
        "registerNode" register: pointer bool = true;
        /// Its taints when it does.
        "registerWithTaints" register_with_taints: plain Vec<Taint>;
        /// Name of the machine at its provider.
        "providerID" provider_id: plain String;
        /// Most pods.
        "maxPods" max_pods: plain i32 = 110;
        /// Most pods per core; 0: no such limit.
        "podsPerCore" pods_per_core: plain i32;
        /// Addresses of pods, standalone only.
        "podCIDR" pod_cidr: plain String;
        /// Time for all pods when the machine shuts down.
        "shutdownGracePeriod" shutdown_grace_period: plain Duration;
        /// How much of it is for critical pods.
        "shutdownGracePeriodCriticalPods" shutdown_grace_period_critical_pods: plain Duration;
        /// The same by priority.
        "shutdownGracePeriodByPodPriority" shutdown_grace_period_by_pod_priority: plain Vec<ShutdownGracePeriod>;
    }
}

section! {
    /// A taint of a node.
    Taint as "Taint" {
        /// Its key.
        "key" key: always String;
        /// Its value.
        "value" value: plain String;
        /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
        "effect" effect: always String;
        /// Only an API server may say this.
        "timeAdded" time_added: pointer Option<String>;
    }
}

section! {
    /// Time for pods of at least a priority.
    ShutdownGracePeriod as "ShutdownGracePeriodByPodPriority" {
        /// The least priority.
        "priority" priority: always i32;
        /// Seconds.
        "shutdownGracePeriodSeconds" seconds: always i64;
    }
}
