//! What the agent counts, where plans and outcomes pass. What is there anyway is read when somebody asks: it has no counter.
//!
//! Fields that are [`Plain`] are told from the beginning, the others once they were counted, as upstream does it.

use std::io;

use jiff::Timestamp;
use rubelet_api::counted;
use rubelet_api::metrics::{
    Counter, Family, Gauge, Histogram, Labelled, Names, Plain, SECONDS, Stability, Text, Value,
};

use Stability::{Alpha, Beta, Internal};

/// kubelet 1.36: how long pods take to start.
const STARTS: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// kubelet 1.36: how long pulls take.
const PULLS: &[f64] = &[
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
    3600.0,
];
/// kubelet 1.36: how old a status may get on its way.
const SYNCS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
/// kubelet 1.36: how long storage takes.
const STORAGE: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
/// kubelet 1.36: how long drivers of resource claims take.
const CLAIMS: &[f64] = &[
    0.1,
    0.153_412_740_463_439_1,
    0.235_354_689_365_025_24,
    0.361_064_078_764_099_46,
    0.553_918_298_061_075_2,
    0.849_781_240_983_936,
    1.303_672_689_737_678,
    1.999_999_999_999_999_3,
    3.068_254_809_268_780_5,
    4.707_093_787_300_502_5,
    7.221_281_575_281_985,
    11.078_365_961_221_499,
    16.995_624_819_678_714,
    26.073_453_794_753_54,
    39.999_999_999_999_97,
];
const FEW: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
/// kubelet 1.36: how long certificates lived.
const LIVES: &[f64] =
    &[60.0, 3600.0, 14_400.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0, 31_104_000.0, 124_416_000.0];

const fn counts(name: &'static str, help: &'static str, labels: Names) -> Family {
    Family::counter(name, Alpha, help, labels)
}

const fn shows(name: &'static str, help: &'static str, labels: Names) -> Family {
    Family::gauge(name, Alpha, help, labels)
}

const fn times(name: &'static str, help: &'static str, labels: Names, bounds: &'static [f64]) -> Family {
    Family::histogram(name, Alpha, help, labels, bounds)
}

/// A moment, told as the seconds that are left until then.
#[derive(Debug)]
pub struct Until(Gauge);

impl Until {
    /// From now on it is this one.
    pub fn set(&self, at: Timestamp) {
        self.0.set(at.as_second() as f64);
    }
}

impl Value for Until {
    fn zero(family: &Family) -> Self {
        Self(Gauge::zero(family))
    }

    fn tell(&self, text: &mut Text<'_>, family: &Family, labels: &[&str]) -> io::Result<()> {
        text.sample(family, labels, self.0.get() - Timestamp::now().as_second() as f64)
    }
}

counted! {
    /// Pods: who comes, how fast, and who has to go.
    pub struct PodCounts {
        /// From first seeing a pod until it runs.
        pub start: Plain<Histogram> = times("kubelet_pod_start_duration_seconds", "From when the agent saw a pod first until it ran, in seconds", &[], STARTS);
        /// From a pod's creation until it runs, without pulls.
        pub start_sli: Labelled<Histogram> = times("kubelet_pod_start_sli_duration_seconds", "From the creation of a pod until all its containers ran, in seconds, without pulls of images; not of static pods", &[], STARTS);
        pub start_total: Labelled<Histogram> = times("kubelet_pod_start_total_duration_seconds", "From the creation of a pod until all its containers ran, in seconds, with pulls of images; not of static pods", &[], STARTS);
        /// The same of the first pod with a network of its own.
        pub first_start: Plain<Gauge> = Family::gauge("kubelet_first_network_pod_start_sli_duration_seconds", Internal, "How long the first pod with a network of its own took to start, in seconds, without pulls of images", &[]);
        pub worker_start: Plain<Histogram> = times("kubelet_pod_worker_start_duration_seconds", "From seeing a pod until its worker began, in seconds", &[], SECONDS);
        /// By what a decision was about.
        pub decisions: Labelled<Histogram> = times("kubelet_pod_worker_duration_seconds", "How long it took to decide about one pod once, in seconds", &["operation_type"], SECONDS);
        pub status_sync: Plain<Histogram> = times("kubelet_pod_status_sync_duration_seconds", "From the change of a pod's status until the API server has it, in seconds", &[], SYNCS);
        pub containers: Plain<Histogram> = times("kubelet_containers_per_pod_count", "Containers in the specifications of pods", &[], FEW);
        pub started: Plain<Counter> = counts("kubelet_started_pods_total", "Sandboxes that were started", &[]);
        pub start_errors: Plain<Counter> = counts("kubelet_started_pods_errors_total", "Sandboxes that could not be started", &[]);
        pub started_with_users: Plain<Counter> = counts("kubelet_started_user_namespaced_pods_total", "Sandboxes with a user namespace that were started", &[]);
        pub start_with_users_errors: Plain<Counter> = counts("kubelet_started_user_namespaced_pods_errors_total", "Sandboxes with a user namespace that could not be started", &[]);
        /// Wanted again under its UID while it was still there.
        pub restarted: Labelled<Counter> = counts("kubelet_restarted_pods_total", "Pods that were wanted anew under a UID that was still there", &["static"]);
        /// Found in the runtime, wanted by nobody.
        pub orphaned: Plain<Counter> = counts("kubelet_orphaned_runtime_pods_total", "Pods that were found in the runtime and that no source wanted", &[]);
        pub rejections: Labelled<Counter> = counts("kubelet_admission_rejections_total", "Pods that were not let in, by reason", &["reason"]);
        pub evictions: Labelled<Counter> = counts("kubelet_evictions", "Pods that had to go because the node ran out of something", &["eviction_signal"]);
        /// How old figures are that pods have to go by.
        pub figures_age: Labelled<Histogram> = times("kubelet_eviction_stats_age_seconds", "How old the figures were by which a pod had to go, in seconds", &["eviction_signal"], SECONDS);
        pub resize_took: Labelled<Histogram> = times("kubelet_pod_resize_duration_milliseconds", "From when a pod was granted other sizes until it had them, or until that failed, in milliseconds", &["success"], SECONDS);
        /// By what made them be looked at again.
        pub resizes_accepted: Labelled<Counter> = counts("kubelet_pod_deferred_accepted_resizes_total", "Other sizes that could be given after all", &["retry_trigger"]);
        pub resizes_infeasible: Labelled<Counter> = counts("kubelet_pod_infeasible_resizes_total", "Other sizes that can never be given here", &["reason_detail"]);
        pub preemptions: Labelled<Counter> = counts("kubelet_preemptions", "Pods that had to make room for critical ones", &["preemption_signal"]);
        pub mirrors: Plain<Gauge> = shows("kubelet_mirror_pods", "Pods at the API server that stand for static ones", &[]);
    }
}

counted! {
    /// Containers, sandboxes and cgroups.
    pub struct ContainerCounts {
        pub started: Labelled<Counter> = counts("kubelet_started_containers_total", "Containers that were started", &["container_type"]);
        pub start_errors: Labelled<Counter> = counts("kubelet_started_containers_errors_total", "Containers that could not be made or started", &["code", "container_type"]);
        pub http_fallbacks: Plain<Counter> = counts("kubelet_lifecycle_handler_http_fallbacks_total", "Hooks over HTTPS that went over HTTP after all", &[]);
        pub terminated: Labelled<Counter> = counts("kubelet_terminated_containers_total", "Containers that ended, by kind, exit code and reason", &["container_type", "exit_code", "reason"]);
        pub resizes: Labelled<Counter> = counts("kubelet_container_requested_resizes_total", "Other sizes that were wanted of containers that are there, by what changes", &["operation", "requirement", "resource"]);
        pub early_sleeps: Plain<Counter> = counts("kubelet_sleep_action_terminated_early_total", "Hooks that were cut off while they slept", &[]);
        pub sandbox: Labelled<Histogram> = times("kubelet_run_podsandbox_duration_seconds", "How long it took to start a sandbox, in seconds", &["runtime_handler"], SECONDS);
        pub sandbox_errors: Labelled<Counter> = counts("kubelet_run_podsandbox_errors_total", "Sandboxes that the runtime could not start", &["runtime_handler"]);
        pub cgroup: Labelled<Histogram> = times("kubelet_cgroup_manager_duration_seconds", "How long it took to make, change or remove a pod's cgroup, in seconds", &["operation_type"], SECONDS);
    }
}

counted! {
    /// Images and volumes.
    pub struct StorageCounts {
        pub ensured: Labelled<Counter> = counts("kubelet_image_manager_ensure_image_requests_total", "How often an image was wanted, by policy and by what had to be done", &["present_locally", "pull_policy", "pull_required"]);
        pub pulls: Labelled<Histogram> = times("kubelet_image_pull_duration_seconds", "How long pulls of images took, in seconds, by size", &["image_size_in_bytes"], PULLS);
        /// By what was found.
        pub must_pull_checks: Labelled<Counter> = counts("kubelet_imagemanager_image_mustpull_checks_total", "How often it was asked whether a pod may have an image that is here, by what was found", &["result"]);
        pub intents: Plain<Gauge> = shows("kubelet_imagemanager_ondisk_pullintents", "Notes on the disk of pulls that have begun", &[]);
        pub records: Plain<Gauge> = shows("kubelet_imagemanager_ondisk_pulledrecords", "Records on the disk of images that were pulled", &[]);
        pub intents_percent: Plain<Gauge> = shows("kubelet_imagemanager_inmemory_pullintents_usage_percent", "How much is in use of the room in memory for notes of pulls that have begun, in percent", &[]);
        pub records_percent: Plain<Gauge> = shows("kubelet_imagemanager_inmemory_pulledrecords_usage_percent", "How much is in use of the room in memory for records of images that were pulled, in percent", &[]);
        pub collected: Labelled<Counter> = counts("kubelet_image_garbage_collected_total", "Images that were removed because nobody used them", &["reason"]);
        pub image_volumes: Plain<Counter> = Family::counter("kubelet_image_volume_requested_total", Beta, "Volumes that are images, wanted", &[]);
        pub image_volumes_mounted: Plain<Counter> = Family::counter("kubelet_image_volume_mounted_succeed_total", Beta, "Volumes that are images, mounted", &[]);
        pub image_volume_errors: Plain<Counter> = Family::counter("kubelet_image_volume_mounted_errors_total", Beta, "Volumes that are images and could not be mounted", &[]);
        pub operations: Labelled<Histogram> = times("storage_operation_duration_seconds", "How long it took to mount or unmount, in seconds", &["migrated", "operation_name", "status", "volume_plugin"], STORAGE);
        /// kubelet 1.36: from the wish on, with all that was waited for.
        pub overall: Labelled<Histogram> = times("volume_operation_total_seconds", "From when a pod was seen first until it had a volume, in seconds", &["operation_name", "plugin_name"], STORAGE);
        /// By how it was found out.
        pub collection: Labelled<Histogram> = times("kubelet_volume_metric_collection_duration_seconds", "How long it took to find out what a volume holds, in seconds", &["metric_source"], SECONDS);
        pub plugin_asked: Labelled<Histogram> = times("kubelet_credential_provider_plugin_duration", "How long programs took that were asked for credentials, in seconds", &["plugin_name"], SECONDS);
        /// kubelet 1.36: those that are there, and those that have registered.
        pub plugins: Labelled<Gauge> = shows("plugin_manager_total_plugins", "Sockets of plugins in the registry", &["socket_path", "state"]);
        pub plugin_errors: Labelled<Counter> = counts("kubelet_credential_provider_plugin_errors_total", "Programs that were asked for credentials in vain", &["plugin_name"]);
    }
}

counted! {
    /// The node and its view of the runtime.
    pub struct NodeCounts {
        pub relist: Plain<Histogram> = times("kubelet_pleg_relist_duration_seconds", "How long it took to list what the runtime has, in seconds", &[], SECONDS);
        pub relist_interval: Plain<Histogram> = times("kubelet_pleg_relist_interval_seconds", "From one list of what the runtime has to the next, in seconds", &[], SECONDS);
        pub look: Plain<Histogram> = times("kubelet_pleg_pod_relist_duration_seconds", "How long it took to look at what was new of one pod, in seconds", &[], SECONDS);
        /// Seconds since 1970.
        pub last_seen: Plain<Gauge> = shows("kubelet_pleg_last_seen_seconds", "When the runtime was listed last, in seconds since 1970", &[]);
        pub streams: Plain<Counter> = counts("kubelet_evented_pleg_connection_success_count", "Streams of events that the runtime opened", &[]);
        pub device_registrations: Labelled<Counter> = counts("kubelet_device_plugin_registration_total", "Registrations of device plugins, by resource", &["resource_name"]);
        pub device_alloc: Labelled<Histogram> = times("kubelet_device_plugin_alloc_duration_seconds", "How long device plugins took to give devices to a container, in seconds, by resource", &["resource_name"], SECONDS);
        pub claim_operations: Labelled<Histogram> = times("dra_operations_duration_seconds", "How long it took to have the resource claims of a pod prepared or taken back, in seconds", &["is_error", "operation_name"], CLAIMS);
        pub claim_calls: Labelled<Histogram> = times("dra_grpc_operations_duration_seconds", "How long drivers of resource claims took for a call, in seconds", &["driver_name", "grpc_status_code", "method_name"], CLAIMS);
        pub stream_errors: Plain<Counter> = counts("kubelet_evented_pleg_connection_error_count", "Streams of events that the runtime broke or refused", &[]);
        /// From an event in the runtime until it arrived.
        pub event_age: Plain<Histogram> = times("kubelet_evented_pleg_connection_latency_seconds", "How old events of the runtime are when they arrive, in seconds", &[], SECONDS);
        pub shutdown_began: Plain<Gauge> = shows("kubelet_graceful_shutdown_start_time_seconds", "When the last shutdown of the node began, in seconds since 1970", &[]);
        pub shutdown_ended: Plain<Gauge> = shows("kubelet_graceful_shutdown_end_time_seconds", "When the last shutdown of the node ended, in seconds since 1970", &[]);
        pub before_start: Plain<Gauge> = shows("kubelet_node_startup_pre_kubelet_duration_seconds", "From the start of the machine until that of the agent, in seconds", &[]);
        pub before_registration: Plain<Gauge> = shows("kubelet_node_startup_pre_registration_duration_seconds", "From the start of the agent until it began to register the node, in seconds", &[]);
        pub registration: Plain<Gauge> = shows("kubelet_node_startup_registration_duration_seconds", "How long it took to register the node, in seconds", &[]);
        pub after_registration: Plain<Gauge> = shows("kubelet_node_startup_post_registration_duration_seconds", "From the registration of the node until it was ready, in seconds", &[]);
        pub startup: Plain<Gauge> = shows("kubelet_node_startup_duration_seconds", "From the start of the machine until the node was ready, in seconds", &[]);
        /// Only where certificates are renewed.
        pub client_ttl: Labelled<Until> = shows("kubelet_certificate_manager_client_ttl_seconds", "How long the certificate is still good that the node shows to the API server, in seconds; negative when its time is over", &[]);
        pub client_renewal_errors: Labelled<Counter> = counts("kubelet_certificate_manager_client_expiration_renew_errors", "How often the certificate that the node shows to the API server could not be renewed", &[]);
        pub server_ttl: Labelled<Until> = shows("kubelet_certificate_manager_server_ttl_seconds", "How long the servers' certificate is still good, in seconds; negative when its time is over", &[]);
        pub server_rotation: Labelled<Histogram> = times("kubelet_certificate_manager_server_rotation_seconds", "How long the servers' certificates were good for which there is a new one, in seconds", &[], LIVES);
        pub server_renewal_errors: Labelled<Counter> = counts("kubelet_server_expiration_renew_errors", "How often the servers' certificate could not be renewed", &[]);
    }
}

counted! {
    /// Probes: a page of their own.
    pub struct ProbeCounts {
        pub made: Labelled<Counter> = Family::counter("prober_probe_total", Beta, "Probes of containers, by kind and by what came of them", &["container", "namespace", "pod", "pod_uid", "probe_type", "result"]);
        pub took: Labelled<Histogram> = times("prober_probe_duration_seconds", "How long probes took, in seconds", &["container", "namespace", "pod", "probe_type"], SECONDS);
    }
}
