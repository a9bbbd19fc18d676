//! `/metrics/cadvisor`: what cAdvisor tells of the machine, the cgroups above pods, pods and containers. Read when it is asked
//! for: each file of the kernel once, for all families.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rubelet_api::gather::Gather;
use rubelet_api::metrics::Text;
use rubelet_host::cgroup::usage::{Detail, Reader};
use rubelet_host::disk::{self, FileSystem};
use rubelet_host::proc::{self, BlockDevice, Interface};
use rubelet_host::{cgroup, mount};

use super::resource::now_millis;
use crate::stats::ground::{Ground, Pod, child_of};
use crate::stats::{Inner, Stats};

mod families;
mod tell;
#[cfg(test)]
mod tests;

pub use families::FAMILIES;

/// Names of the labels that every row has.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One cgroup at a moment.
struct Row {
    /// Its labels, as they stand in the text.
    labels: Box<[u8]>,
    at_millis: i64,
    /// In a place of its own, so that a list that grows moves little.
    detail: Option<Box<Detail>>,
    files: Option<Files>,
    /// Of its network, where it has one of its own.
    interfaces: Vec<Interface>,
    /// What its writable layer takes, where the runtime tells it.
    layer_bytes: Option<u64>,
    is_root: bool,
}

/// What processes have open.
#[derive(Clone, Copy, Default)]
struct Files {
    all: u64,
    sockets: u64,
    /// Of the oldest process; −1: no limit.
    max: Option<i64>,
}

/// A file system of the machine, by the name of its device.
struct Disk {
    name: String,
    fs: FileSystem,
    device: Option<BlockDevice>,
}

/// The page, ready to be written.
pub struct CadvisorPage {
    stats: Stats,
    ground: Ground,
}

impl Stats {
    /// `/metrics/cadvisor`.
    pub async fn cadvisor_page(&self) -> CadvisorPage {
        CadvisorPage { stats: self.clone(), ground: Ground::survey(&self.inner, true, false).await }
    }
}

impl CadvisorPage {
    /// Reads and writes. Blocks on the kernel and on the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let inner = &*self.stats.inner;
        let devices = proc::block_devices();
        let page = Page {
            rows: rows(inner, &self.ground),
            disks: disks(&devices),
            names: devices.into_iter().map(|one| ((one.major, one.minor), format!("/dev/{}", one.name))).into_map(),
            now_secs: jiff::Timestamp::now().as_second(),
        };
        page.tell(&mut Text::new(out))
    }
}

/// All that stands on the page.
struct Page {
    rows: Vec<Row>,
    disks: Vec<Disk>,
    /// Devices by their numbers.
    names: BTreeMap<(u32, u32), String>,
    now_secs: i64,
}

/// The machine, the cgroups above pods, pods and containers; what is gone meanwhile is left out.
fn rows(inner: &Inner, ground: &Ground) -> Vec<Row> {
    let Some(top) = &inner.top else { return Vec::new() };
    let mut rows = Rows { reader: top.reader(), rows: Vec::new(), ground };
    rows.add("", ["", "", "", "", ""], true);
    let named: Vec<String> = inner.settings.cgroups.named().map(|(_, cgroup)| cgroup.to_owned()).collect();
    let levels = inner.hands.cgroups.iter().flat_map(|tree| cgroup::LEVELS.map(|level| tree.name_of(level)));
    for cgroup in named.into_iter().chain(levels.flatten()) {
        rows.add(&cgroup, ["", "", "", "", ""], false);
    }
    for pod in &ground.pods {
        rows.add_pod(pod);
    }
    rows.rows
}

/// Rows in the making.
struct Rows<'a> {
    reader: Reader<'a>,
    rows: Vec<Row>,
    ground: &'a Ground,
}

impl Rows<'_> {
    /// A cgroup with its container, image, name, namespace and pod.
    fn add(&mut self, cgroup: &str, [container, image, name, namespace, pod]: [&str; 5], is_root: bool) -> bool {
        let Some(detail) = self.reader.open(cgroup).detail() else { return false };
        let id = format!("/{cgroup}");
        let interfaces = if is_root { proc::interfaces(std::process::id()).unwrap_or_default() } else { Vec::new() };
        let files = files(&detail.pids);
        self.rows.push(Row {
            labels: Text::rendered(&LABELS, &[container, &id, image, name, namespace, pod]),
            at_millis: now_millis(),
            detail: Some(Box::new(detail)),
            files: Some(files),
            interfaces: interfaces.into_iter().filter(crate::stats::is_told).collect(),
            layer_bytes: None,
            is_root,
        });
        true
    }

    fn add_pod(&mut self, pod: &Pod) {
        let Some(cgroup) = &pod.cgroup else { return };
        self.add(cgroup, ["", "", "", &pod.namespace, &pod.name], false);
        let children = self.reader.open(cgroup).children();
        if let Some(sandbox) = &pod.sandbox {
            // cAdvisor: the network of a pod is at its pause container, which has no name in the pod.
            let own = child_of(&children, &sandbox.id).map(|child| format!("{cgroup}/{child}"));
            let labels = ["", &sandbox.image, &sandbox.id, &pod.namespace, &pod.name];
            let has_row = own.as_ref().is_some_and(|own| self.add(own, labels, false));
            let interfaces = sandbox.pid.filter(|_| !pod.is_host_network).and_then(proc::interfaces);
            let told = interfaces.into_iter().flatten().filter(|one| one.name != "lo").collect::<Vec<_>>();
            if has_row && let Some(row) = self.rows.last_mut() {
                row.interfaces = told;
            } else if !told.is_empty() {
                // A runtime whose sandboxes have no cgroup of their own.
                let id = format!("/{cgroup}");
                let labels = ["", &*id, &sandbox.image, &sandbox.id, &pod.namespace, &pod.name];
                self.rows.push(Row {
                    labels: Text::rendered(&LABELS, &labels),
                    at_millis: now_millis(),
                    detail: None,
                    files: None,
                    interfaces: told,
                    layer_bytes: None,
                    is_root: false,
                });
            }
        }
        for container in &pod.containers {
            let Some(child) = child_of(&children, &container.id) else { continue };
            let own = format!("{cgroup}/{child}");
            let labels = [&*container.name, &container.image, &container.id, &pod.namespace, &pod.name];
            if self.add(&own, labels, false)
                && let Some(row) = self.rows.last_mut()
            {
                row.layer_bytes = self.ground.told.get(&container.id).and_then(|told| told.layer_bytes);
            }
        }
    }
}

fn files(pids: &[u32]) -> Files {
    let mut files = Files { max: pids.first().and_then(|pid| proc::open_files_max(*pid)), ..Files::default() };
    for pid in pids {
        let (all, sockets) = proc::open_files(*pid);
        files.all += all;
        files.sockets += sockets;
    }
    files
}

/// cAdvisor: file systems on block devices, each once, and those in memory by the place of their mount.
fn disks(devices: &[BlockDevice]) -> Vec<Disk> {
    let mut disks: BTreeMap<String, Disk> = BTreeMap::new();
    let told = mount::each(|one| {
        let is_block = one.source.starts_with("/dev/");
        let is_told = is_block && (one.fs_type.starts_with("ext") || matches!(&*one.fs_type, "xfs" | "btrfs" | "vfat"));
        let name = match one.fs_type.as_str() {
            "tmpfs" if !one.target.starts_with("/var/lib") => one.target.display().to_string(),
            _ if is_told => one.source.clone(),
            _ => return,
        };
        if disks.contains_key(&name) {
            return;
        }
        let Ok(fs) = disk::file_system(&one.target) else { return };
        let device = disk::device(&one.target).filter(|_| is_block);
        let device = device.and_then(|numbers| devices.iter().find(|one| (one.major, one.minor) == numbers)).cloned();
        disks.insert(name.clone(), Disk { name, fs, device });
    });
    if let Err(error) = told {
        tracing::debug!(err = %error, "the machine's file systems are not told");
    }
    disks.into_values().collect()
}
