//! `/metrics/resource`: CPU, memory and swap of node, pods and containers.

use std::io::{self, Write};

use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_host::cgroup::usage::Usage;
use rubelet_host::proc;

use crate::stats::ground::{Ground, Pod, child_of};
use crate::stats::{Inner, Stats};

const CONTAINER: &[&str] = &["container", "namespace", "pod"];
const POD: &[&str] = &["namespace", "pod"];

const NODE_CPU: Family = Family::counter(
    "node_cpu_usage_seconds_total",
    Stability::Stable,
    "CPU time that the node has used, in seconds of one CPU",
    &[],
);
const NODE_MEMORY: Family =
    Family::gauge("node_memory_working_set_bytes", Stability::Stable, "Working set of the node in bytes", &[]);
const NODE_SWAP: Family =
    Family::gauge("node_swap_usage_bytes", Stability::Alpha, "Swap that the node uses, in bytes", &[]);
const CONTAINER_CPU: Family = Family::counter(
    "container_cpu_usage_seconds_total",
    Stability::Stable,
    "CPU time that the container has used, in seconds of one CPU",
    CONTAINER,
);
const CONTAINER_MEMORY: Family = Family::gauge(
    "container_memory_working_set_bytes",
    Stability::Stable,
    "Working set of the container in bytes",
    CONTAINER,
);
const CONTAINER_SWAP: Family =
    Family::gauge("container_swap_usage_bytes", Stability::Alpha, "Swap that the container uses, in bytes", CONTAINER);
const CONTAINER_SWAP_LIMIT: Family = Family::gauge(
    "container_swap_limit_bytes",
    Stability::Alpha,
    "Swap that the container may use, in bytes",
    CONTAINER,
);
const CONTAINER_START: Family = Family::gauge(
    "container_start_time_seconds",
    Stability::Stable,
    "When the container started, in seconds since 1970",
    CONTAINER,
);
const POD_CPU: Family = Family::counter(
    "pod_cpu_usage_seconds_total",
    Stability::Stable,
    "CPU time that the pod has used, in seconds of one CPU",
    POD,
);
const POD_MEMORY: Family =
    Family::gauge("pod_memory_working_set_bytes", Stability::Stable, "Working set of the pod in bytes", POD);
const POD_SWAP: Family =
    Family::gauge("pod_swap_usage_bytes", Stability::Alpha, "Swap that the pod uses, in bytes", POD);
const ERROR: Family =
    Family::gauge("resource_scrape_error", Stability::Stable, "1 when the node's use could not be read, else 0", &[]);

/// All families of the page.
pub const FAMILIES: &[&Family] = &[
    &NODE_CPU,
    &NODE_MEMORY,
    &NODE_SWAP,
    &CONTAINER_CPU,
    &CONTAINER_MEMORY,
    &CONTAINER_SWAP,
    &CONTAINER_SWAP_LIMIT,
    &CONTAINER_START,
    &POD_CPU,
    &POD_MEMORY,
    &POD_SWAP,
    &ERROR,
];

/// The page, ready to be written. Writing blocks on the kernel.
pub struct ResourcePage {
    stats: Stats,
    ground: Ground,
}

impl Stats {
    /// `/metrics/resource`.
    pub async fn resource_page(&self) -> ResourcePage {
        ResourcePage { stats: self.clone(), ground: Ground::survey(&self.inner, false, false).await }
    }
}

/// One reading, and when it was taken.
struct Taken<'g> {
    labels: [&'g str; 3],
    usage: Usage,
    at_millis: i64,
    started_at_secs: f64,
}

impl ResourcePage {
    /// Reads and writes.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let inner = &*self.stats.inner;
        let mut text = Text::new(out);
        let node = inner.node_usage();
        let at = Some(now_millis());
        if let Some(node) = &node {
            single(&mut text, &NODE_CPU, node.cpu_nanos.map(seconds), at)?;
            single(&mut text, &NODE_MEMORY, node.working_set_bytes.map(|n| n as f64), at)?;
            single(&mut text, &NODE_SWAP, node.swap_bytes.map(|n| n as f64), at)?;
        }
        let (pods, containers) = read(inner, &self.ground);
        let told = [
            (&CONTAINER_CPU, of_cpu as Of),
            (&CONTAINER_MEMORY, of_memory),
            (&CONTAINER_SWAP, of_swap),
            (&CONTAINER_SWAP_LIMIT, of_swap_limit),
        ];
        for (family, of) in told {
            all(&mut text, family, &containers, of)?;
        }
        if !containers.is_empty() {
            text.head(&CONTAINER_START)?;
            for one in &containers {
                text.sample(&CONTAINER_START, &one.labels, one.started_at_secs)?;
            }
        }
        for (family, of) in [(&POD_CPU, of_cpu as Of), (&POD_MEMORY, of_memory), (&POD_SWAP, of_swap)] {
            all(&mut text, family, &pods, of)?;
        }
        text.single(&ERROR, if node.is_some() { 0.0 } else { 1.0 })
    }
}

type Of = fn(&Usage) -> Option<f64>;

fn of_cpu(usage: &Usage) -> Option<f64> {
    usage.cpu_nanos.map(seconds)
}

fn of_memory(usage: &Usage) -> Option<f64> {
    usage.working_set_bytes.map(|bytes| bytes as f64)
}

fn of_swap(usage: &Usage) -> Option<f64> {
    usage.swap_bytes.map(|bytes| bytes as f64)
}

fn of_swap_limit(usage: &Usage) -> Option<f64> {
    usage.swap_limit_bytes.map(|bytes| bytes as f64)
}

fn all(text: &mut Text<'_>, family: &Family, taken: &[Taken<'_>], of: Of) -> io::Result<()> {
    let mut is_first = true;
    for one in taken {
        let Some(value) = of(&one.usage) else { continue };
        if std::mem::take(&mut is_first) {
            text.head(family)?;
        }
        // Families of pods have fewer labels: they are the last two.
        text.sample_at(family, &one.labels[3 - family.labels.len()..], value, Some(one.at_millis))?;
    }
    Ok(())
}

fn single(text: &mut Text<'_>, family: &Family, value: Option<f64>, at_millis: Option<i64>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    text.head(family)?;
    text.sample_at(family, &[], value, at_millis)
}

/// Pods and containers; what is gone meanwhile is left out.
fn read<'g>(inner: &Inner, ground: &'g Ground) -> (Vec<Taken<'g>>, Vec<Taken<'g>>) {
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    let Some(top) = &inner.top else { return (pods, containers) };
    let has_swap = proc::memory().is_ok_and(|memory| memory.swap_total > 0);
    let mut reader = top.reader();
    let mut name = String::new();
    let mut take = |name: &str, labels: [&'g str; 3], started_at_secs: f64, into: &mut Vec<Taken<'g>>| {
        let mut opened = reader.open(name);
        let at_millis = now_millis();
        if let Some(mut usage) = opened.usage() {
            if !has_swap {
                (usage.swap_bytes, usage.swap_limit_bytes) = (Some(0), Some(0));
            }
            into.push(Taken { labels, usage, at_millis, started_at_secs });
        }
    };
    for pod in &ground.pods {
        let Some(cgroup) = &pod.cgroup else { continue };
        take(cgroup, ["", &pod.namespace, &pod.name], 0.0, &mut pods);
        let children = children_of(top, pod);
        for container in &pod.containers {
            let Some(child) = child_of(&children, &container.id) else { continue };
            name.clear();
            name.push_str(cgroup);
            name.push('/');
            name.push_str(child);
            let started = container.started_at.as_millisecond() as f64 / 1000.0;
            take(&name, [&container.name, &pod.namespace, &pod.name], started, &mut containers);
        }
    }
    (pods, containers)
}

/// Names of the cgroups below a pod's.
pub(super) fn children_of(top: &rubelet_host::cgroup::Tree, pod: &Pod) -> Vec<String> {
    let Some(cgroup) = &pod.cgroup else { return Vec::new() };
    top.reader().open(cgroup).children()
}

pub(super) fn now_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
