//! Where pods come from and where they leave things.

use std::collections::BTreeMap;

use super::field::section;
use crate::duration::Duration;

section! {
    /// Where pods come from and where they leave things.
    Pods as "KubeletConfiguration" {
        /// Directory or file of static pods; none when empty.
        "staticPodPath" static_pod_path: plain String;
        /// URL of static pods; none when empty.
        "staticPodURL" static_pod_url: plain String;
        /// Headers for that URL; may hold secrets.
        "staticPodURLHeader" static_pod_url_header: plain BTreeMap<String, Vec<String>>;
        /// How often the path is read again.
        "fileCheckFrequency" file_check_frequency: plain Duration = "20s";
        /// How often the URL is read again.
        "httpCheckFrequency" http_check_frequency: plain Duration = "20s";
        /// How often every pod is looked at again.
        "syncFrequency" sync_frequency: plain Duration = "1m0s";
        /// Directory of the containers' logs.
        "podLogsDir" logs_dir: plain String = "/var/log/pods";
        /// Directory of volume plugins.
        "volumePluginDir" volume_plugin_dir: plain String = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/";
        /// How often the use of volumes is measured; negative: never.
        "volumeStatsAggPeriod" volume_stats_period: plain Duration = "1m0s";
        /// How changes of ConfigMaps and Secrets are noticed: `Get`, `Cache`, `Watch`.
        "configMapAndSecretChangeDetectionStrategy" change_detection: plain String = "Watch";
        /// Whether volumes are attached by the controller of the cluster.
        "enableControllerAttachDetach" enable_controller_attach_detach: pointer bool = true;
        /// Whether local storage is counted and limited.
        "localStorageCapacityIsolation" local_storage_capacity_isolation: pointer bool = true;
        /// Removed upstream; only false is valid.
        "runOnce" run_once: plain bool;
    }
}
