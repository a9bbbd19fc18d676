//! `/metrics`, the agent's part of it: counters, and what is read while it is written.

use std::io::{self, Write};
use std::sync::Arc;

use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_host::cgroup::Version;
use rubelet_host::proc::{self, Own};

use super::{
    AllocationCounts, ContainerCounts, Metrics, NodeCounts, PodCounts, ProbeCounts, StorageCounts, certificates, pods,
    volumes,
};
use crate::picture::Shown;
use crate::stats::Stats;
use crate::stats::ground::Ground;

const NODE: Family = Family::gauge("kubelet_node_name", Stability::Alpha, "The node's name; always 1", &["node"]);
const CGROUP_VERSION: Family =
    Family::gauge("kubelet_cgroup_version", Stability::Alpha, "Version of cgroups on the node", &[]);
const CLAIMS_IN_USE: Family = Family::gauge(
    "dra_resource_claims_in_use",
    Stability::Alpha,
    "Resource claims that drivers have prepared on the node, by driver, and of all drivers together (<any>)",
    &["driver_name"],
);
const PROVIDER: Family = Family::gauge(
    "kubelet_metrics_provider",
    Stability::Alpha,
    "Where figures of pods come from: cadvisor is the kernel itself, cri the runtime",
    &["provider"],
);
const LOGS: Family = Family::gauge(
    "kubelet_container_log_filesystem_used_bytes",
    Stability::Alpha,
    "What the logs of a container take, in bytes",
    &["container", "namespace", "pod", "uid"],
);

const CLAIM: &[&str] = &["namespace", "persistentvolumeclaim"];

const fn of_claim(name: &'static str, help: &'static str) -> Family {
    Family::gauge(name, Stability::Alpha, help, CLAIM)
}

const VOLUME_AVAILABLE: Family = of_claim("kubelet_volume_stats_available_bytes", "Free space of a claim's volume");
const VOLUME_CAPACITY: Family = of_claim("kubelet_volume_stats_capacity_bytes", "Size of a claim's volume");
const VOLUME_INODES: Family = of_claim("kubelet_volume_stats_inodes", "Inodes of a claim's volume");
const VOLUME_INODES_FREE: Family = of_claim("kubelet_volume_stats_inodes_free", "Free inodes of a claim's volume");
const VOLUME_INODES_USED: Family = of_claim("kubelet_volume_stats_inodes_used", "Inodes in use of a claim's volume");
const VOLUME_USED: Family = of_claim("kubelet_volume_stats_used_bytes", "Space in use of a claim's volume");

const fn of_process(name: &'static str, help: &'static str) -> Family {
    Family::gauge(name, Stability::Unsaid, help, &[])
}

const fn process_total(name: &'static str, help: &'static str) -> Family {
    Family::counter(name, Stability::Unsaid, help, &[])
}

const CPU: Family = process_total("process_cpu_seconds_total", "CPU time of this process in seconds");
const FILES_MAX: Family = of_process("process_max_fds", "Files that this process may open");
const RECEIVED: Family =
    process_total("process_network_receive_bytes_total", "Bytes that came into the network of this process");
const SENT: Family =
    process_total("process_network_transmit_bytes_total", "Bytes that left the network of this process");
const FILES: Family = of_process("process_open_fds", "Files that this process has open");
const RESIDENT: Family = of_process("process_resident_memory_bytes", "Memory of this process in RAM, in bytes");
const STARTED: Family =
    of_process("process_start_time_seconds", "When this process was started, in seconds since 1970");
const VIRTUAL: Family = of_process("process_virtual_memory_bytes", "Addresses of this process, in bytes");
const VIRTUAL_MAX: Family =
    of_process("process_virtual_memory_max_bytes", "Addresses that this process may have, in bytes");
/// kubelet 1.36: on the page of probes it has a stability.
const PROBES_STARTED: Family = Family::gauge(
    "process_start_time_seconds",
    Stability::Alpha,
    "When this process was started, in seconds since 1970",
    &[],
);

const READ: &[&Family] = &[
    &NODE,
    &CGROUP_VERSION,
    &CLAIMS_IN_USE,
    &PROVIDER,
    &LOGS,
    &VOLUME_AVAILABLE,
    &VOLUME_CAPACITY,
    &VOLUME_INODES,
    &VOLUME_INODES_FREE,
    &VOLUME_INODES_USED,
    &VOLUME_USED,
    &CPU,
    &FILES_MAX,
    &RECEIVED,
    &SENT,
    &FILES,
    &RESIDENT,
    &STARTED,
    &VIRTUAL,
    &VIRTUAL_MAX,
];

/// Every family that the agent tells on `/metrics`.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let counted = [
        PodCounts::FAMILIES,
        ContainerCounts::FAMILIES,
        StorageCounts::FAMILIES,
        NodeCounts::FAMILIES,
        AllocationCounts::FAMILIES,
        rubelet_cri::RuntimeCounts::FAMILIES,
        rubelet_apiserver::ClientCounts::FAMILIES,
        rubelet_volumes::csi::CsiCounts::FAMILIES,
    ];
    counted.into_iter().chain([certificates::FAMILIES, pods::FAMILIES, volumes::FAMILIES, READ]).flatten().copied()
}

/// Every family of `/metrics/probes`.
pub fn probe_families() -> impl Iterator<Item = &'static Family> {
    ProbeCounts::FAMILIES.iter().copied().chain([&PROBES_STARTED])
}

/// The agent's part of `/metrics`, ready to be written.
pub struct MetricsPage {
    stats: Stats,
    ground: Ground,
}

/// `/metrics/probes`, ready to be written.
pub struct ProbesPage {
    metrics: Arc<Metrics>,
}

impl Stats {
    /// `/metrics`.
    pub async fn metrics_page(&self) -> MetricsPage {
        MetricsPage { stats: self.clone(), ground: Ground::survey(&self.inner, false, false).await }
    }

    /// `/metrics/probes`.
    pub fn probes_page(&self) -> ProbesPage {
        ProbesPage { metrics: self.inner.hands.metrics.clone() }
    }
}

impl ProbesPage {
    /// Writes.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = Text::new(out);
        self.metrics.probes.tell(&mut text)?;
        let own = proc::own().unwrap_or_default();
        text.single(&PROBES_STARTED, own.started_at_secs)
    }
}

impl MetricsPage {
    /// Reads and writes. Blocks on the kernel and on the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let inner = &*self.stats.inner;
        let mut text = Text::new(out);
        inner.hands.metrics.tell(&mut text)?;
        inner.hands.drivers.counts().tell(&mut text)?;
        let all = inner.picture.all();
        pods::tell(&all, &mut text)?;
        let on_disk = |shown: &Shown| rubelet_volumes::plugins(&inner.hands.pod_dir(&shown.uid));
        volumes::tell(&all, on_disk, &mut text)?;
        text.head(&NODE)?;
        text.sample(&NODE, &[&inner.node_name()], 1.0)?;
        if let Some(top) = &inner.top {
            let version = match top.version() {
                Version::V1 => 1.0,
                Version::V2 => 2.0,
            };
            text.single(&CGROUP_VERSION, version)?;
        }
        text.head(&CLAIMS_IN_USE)?;
        for (driver, count) in inner.hands.claims.in_use() {
            text.sample(&CLAIMS_IN_USE, &[&driver], count as f64)?;
        }
        text.head(&PROVIDER)?;
        text.sample(&PROVIDER, &["cadvisor"], 1.0)?;
        self.logs(&mut text)?;
        self.volumes(&mut text)?;
        process(&mut text)
    }

    fn logs(&self, text: &mut Text<'_>) -> io::Result<()> {
        let mut is_first = true;
        for (pod, container) in self.ground.pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)))
        {
            if std::mem::take(&mut is_first) {
                text.head(&LOGS)?;
            }
            let dir = self.stats.inner.log_dir(pod).join(&container.name);
            let used = rubelet_host::disk::files_in(&dir);
            text.sample(&LOGS, &[&container.name, &pod.namespace, &pod.name, &pod.uid], used.bytes as f64)?;
        }
        Ok(())
    }

    /// kubelet 1.36: volumes are told of by their claims, each once.
    fn volumes(&self, text: &mut Text<'_>) -> io::Result<()> {
        let claims = self.stats.inner.claims(&self.ground);
        let number = |value: Option<u64>| value.map(|value| value as f64);
        let told: [(&Family, Of<rubelet_api::stats::FsStats, Option<u64>>); 6] = [
            (&VOLUME_AVAILABLE, |fs| fs.available_bytes),
            (&VOLUME_CAPACITY, |fs| fs.capacity_bytes),
            (&VOLUME_INODES, |fs| fs.inodes),
            (&VOLUME_INODES_FREE, |fs| fs.inodes_free),
            (&VOLUME_INODES_USED, |fs| fs.inodes_used),
            (&VOLUME_USED, |fs| fs.used_bytes),
        ];
        for (family, of) in told {
            let mut is_first = true;
            for ((namespace, claim), fs) in &claims {
                let Some(value) = number(of(fs)) else { continue };
                if std::mem::take(&mut is_first) {
                    text.head(family)?;
                }
                text.sample(family, &[namespace, claim], value)?;
            }
        }
        Ok(())
    }
}

/// Where a figure stands in what was read.
type Of<T, V> = fn(&T) -> V;

fn process(text: &mut Text<'_>) -> io::Result<()> {
    let Some(own) = proc::own() else { return Ok(()) };
    let of: [(&Family, Of<Own, f64>); 9] = [
        (&CPU, |own| own.cpu_seconds),
        (&FILES_MAX, |own| own.open_files_max as f64),
        (&RECEIVED, |own| own.network_received_bytes as f64),
        (&SENT, |own| own.network_sent_bytes as f64),
        (&FILES, |own| own.open_files as f64),
        (&RESIDENT, |own| own.resident_bytes as f64),
        (&STARTED, |own| own.started_at_secs),
        (&VIRTUAL, |own| own.virtual_bytes as f64),
        // Prometheus' clients in Go: as a number without sign.
        (&VIRTUAL_MAX, |own| own.virtual_max_bytes.map_or(u64::MAX as f64, |max| max as f64)),
    ];
    of.iter().try_for_each(|(family, of)| text.single(family, of(&own)))
}
