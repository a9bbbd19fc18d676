//! The summary of one pod after another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_api::stats::{
    ContainerStats, FsStats, PodReference, PodStats, ProcessStats, PvcReference, SwapStats, Time, VolumeStats,
};
use rubelet_api::v1;
use rubelet_host::cgroup::usage::{Pressures, Reader, Usage};
use rubelet_host::disk::{self, FileSystem, Use};
use rubelet_host::proc;
use tokio::time::Instant;

use super::disks::BUDGET;
use super::drivers;
use super::figures::image_file_systems;
use super::ground::{Container, Ground, Pod, child_of};
use super::summary::{fs_stats, network_stats, or_none_felt, rate, usage_stats};
use super::{Inner, now};

/// Volumes of a pod that are looked for on the disk.
const PLUGINS_MAX: usize = 100;

/// Reads pods; what they share is read once.
pub(super) struct Pods<'a> {
    inner: &'a Inner,
    ground: &'a Ground,
    reader: Option<Reader<'a>>,
    is_cpu_and_memory_only: bool,
    node_fs: Option<FileSystem>,
    container_fs: Option<FileSystem>,
    /// Files that may still be counted for this answer.
    budget: usize,
    has_swap: bool,
}

impl<'a> Pods<'a> {
    pub(super) fn new(inner: &'a Inner, ground: &'a Ground, is_cpu_and_memory_only: bool) -> Self {
        let (_, containers) = image_file_systems(ground.image_fs.as_ref());
        Self {
            inner,
            ground,
            reader: inner.top.as_ref().map(|top| top.reader()),
            is_cpu_and_memory_only,
            node_fs: disk::file_system(&inner.hands.root_dir).ok(),
            container_fs: containers.map(|one| one.file_system),
            budget: BUDGET,
            has_swap: proc::memory().is_ok_and(|memory| memory.swap_total > 0),
        }
    }

    pub(super) fn stats(&mut self, pod: &Pod) -> PodStats {
        let time = now();
        let children = self.children(pod);
        let mut stats = PodStats {
            pod_ref: PodReference { name: pod.name.clone(), namespace: pod.namespace.clone(), uid: pod.uid.clone() },
            start_time: Time(pod.started_at),
            containers: pod.containers.iter().map(|one| self.container(pod, &children, one)).collect(),
            ..PodStats::default()
        };
        if let Some((usage, pressures)) = pod.cgroup.as_deref().and_then(|cgroup| self.read(cgroup)) {
            let (cgroup, pressures) = (pod.cgroup.as_deref().unwrap_or_default(), or_none_felt(pressures));
            stats.usage = usage_stats(&usage, &pressures, time, rate(self.inner, cgroup, &usage));
            // kubelet 1.36: of a pod only the use of swap.
            stats.usage.swap = stats.usage.swap.map(|swap| SwapStats { swap_available_bytes: None, ..swap });
            stats.process_stats = Some(ProcessStats { process_count: usage.processes });
        }
        if !self.is_cpu_and_memory_only {
            stats.network = self.network(pod, time);
            let mut local = self.volumes(pod, &mut stats.volumes);
            for container in &stats.containers {
                local += used(container.rootfs.as_ref());
                local += used(container.logs.as_ref());
            }
            local += self.own_files(pod);
            stats.ephemeral_storage = self.node_fs.map(|fs| fs_stats(&fs, Some(local), time));
        }
        stats
    }

    fn children(&mut self, pod: &Pod) -> Vec<String> {
        match (&mut self.reader, &pod.cgroup) {
            (Some(reader), Some(cgroup)) => reader.open(cgroup).children(),
            (None, _) | (_, None) => Vec::new(),
        }
    }

    fn read(&mut self, cgroup: &str) -> Option<(Usage, Pressures)> {
        let mut opened = self.reader.as_mut()?.open(cgroup);
        let (mut usage, pressures) = (opened.usage()?, opened.pressure()?);
        if !self.has_swap {
            usage.swap_bytes = Some(0);
        }
        Some((usage, pressures))
    }

    fn container(&mut self, pod: &Pod, children: &[String], container: &Container) -> ContainerStats {
        let time = now();
        let told = self.ground.told.get(&container.id).copied().unwrap_or_default();
        let cgroup =
            pod.cgroup.as_ref().zip(child_of(children, &container.id)).map(|(pod, own)| format!("{pod}/{own}"));
        let read = cgroup.as_deref().and_then(|cgroup| self.read(cgroup));
        // Where the cgroup is not known, the runtime's own numbers.
        let (usage, pressures) = read.unwrap_or((told.usage, Pressures::default()));
        let mut usage_stats = usage_stats(&usage, &pressures, time, rate(self.inner, &container.id, &usage));
        if let Some(swap) = &mut usage_stats.swap
            && !self.has_swap
        {
            swap.swap_available_bytes = Some(0);
        }
        let mut stats = ContainerStats {
            name: container.name.clone(),
            start_time: Time(container.started_at),
            usage: usage_stats,
            ..ContainerStats::default()
        };
        if !self.is_cpu_and_memory_only {
            let layer = told.layer_bytes.map(|bytes| Use { bytes, inodes: told.layer_inodes.unwrap_or(0) });
            stats.rootfs = self.container_fs.zip(layer).map(|(fs, layer)| fs_stats(&fs, Some(layer), time));
            let logs = disk::files_in(&self.inner.log_dir(pod).join(&container.name));
            stats.logs = self.node_fs.map(|fs| fs_stats(&fs, Some(logs), time));
        }
        stats
    }

    fn network(&self, pod: &Pod, time: Time) -> Option<rubelet_api::stats::NetworkStats> {
        let pid = pod.sandbox.as_ref().filter(|_| !pod.is_host_network)?.pid?;
        let all: Vec<_> = proc::interfaces(pid)?.into_iter().filter(|one| one.name != "lo").collect();
        (!all.is_empty()).then(|| network_stats(&all, "eth0", time))
    }

    /// kubelet 1.36: `etc-hosts` and logs of the pod itself count as its storage.
    fn own_files(&self, pod: &Pod) -> Use {
        let mut sum = disk::files_in(&self.inner.log_dir(pod));
        let hosts = self.inner.root_dir().join("pods").join(&pod.uid).join("etc-hosts");
        sum += disk::file(&hosts).unwrap_or_default();
        sum
    }

    /// Adds the pod's volumes that are on the disk; says what of them counts as its ephemeral storage.
    fn volumes(&mut self, pod: &Pod, found: &mut Vec<VolumeStats>) -> Use {
        let mut local = Use::default();
        let Some(age_max) = self.inner.settings.volumes_age_max else { return local };
        let dir = self.inner.root_dir().join("pods").join(&pod.uid).join("volumes");
        let wanted = pod.manifest.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for plugin in names_in(&dir) {
            for name in names_in(&dir.join(&plugin)) {
                let path = dir.join(&plugin).join(&name);
                let ground = self.ground;
                let by_driver = ground.volumes.get(&(pod.uid.clone(), name.clone()));
                let own_name = by_driver.map_or(name.as_str(), |known| known.volume.as_str());
                let Some(volume) = wanted.into_iter().flatten().find(|volume| volume.name == own_name) else {
                    continue;
                };
                // kubelet 1.36: a volume of a driver that does not tell is not told of.
                let stats = match (plugin.as_str(), by_driver) {
                    ("kubernetes.io~csi", Some(known)) => known.usage.map(drivers::fs_stats),
                    ("kubernetes.io~csi", None) => None,
                    _ => self.volume(&path, &plugin, volume, age_max),
                };
                let Some(stats) = stats else { continue };
                if is_local(volume) {
                    local += used(Some(&stats));
                }
                let ephemeral = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name, volume.name));
                let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone()).or(ephemeral);
                let claim = claim.map(|name| PvcReference { name, namespace: pod.namespace.clone() });
                found.push(VolumeStats { fs: stats, name: volume.name.clone(), pvc_ref: claim });
            }
        }
        local
    }

    /// kubelet 1.36: files are counted in what the node wrote itself; of a file system of its own, the whole is told.
    fn volume(&mut self, path: &Path, plugin: &str, volume: &v1::Volume, age_max: Duration) -> Option<FsStats> {
        let since = Instant::now();
        let fs = disk::file_system(path).ok()?;
        let is_memory = volume.empty_dir.as_ref().and_then(|dir| dir.medium.as_deref()).is_some_and(|m| !m.is_empty());
        let is_counted = matches!(
            plugin,
            "kubernetes.io~configmap"
                | "kubernetes.io~secret"
                | "kubernetes.io~projected"
                | "kubernetes.io~downward-api"
        ) || (plugin == "kubernetes.io~empty-dir" && !is_memory);
        let part = if is_counted {
            Some(self.inner.kept().disks.used(path, age_max, Instant::now(), &mut self.budget)?)
        } else {
            None
        };
        // kubelet 1.36: files are counted, or the file system is asked.
        let source = if is_counted { "du" } else { "statfs" };
        self.inner.hands.metrics.storage.collection.of(&[source]).took(since.elapsed());
        Some(fs_stats(&fs, part, now()))
    }
}

impl Inner {
    /// Where the logs of a pod are.
    pub(crate) fn log_dir(&self, pod: &Pod) -> PathBuf {
        self.hands.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    /// Volumes that are claimed, by namespace and name of the claim.
    pub(crate) fn claims(&self, ground: &Ground) -> BTreeMap<(String, String), FsStats> {
        let mut pods = Pods::new(self, ground, false);
        let mut claims = BTreeMap::new();
        for pod in ground.pods.iter().filter(|pod| has_claim(pod)) {
            let mut found = Vec::new();
            pods.volumes(pod, &mut found);
            let of_claims = found.into_iter().filter_map(|volume| {
                let claim = volume.pvc_ref?;
                Some(((claim.namespace, claim.name), volume.fs))
            });
            claims.extend(of_claims);
        }
        claims
    }
}

fn has_claim(pod: &Pod) -> bool {
    let volumes = pod.manifest.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().any(|volume| volume.persistent_volume_claim.is_some())
}

fn used(stats: Option<&FsStats>) -> Use {
    let number = |of: fn(&FsStats) -> Option<u64>| stats.and_then(of).unwrap_or(0);
    Use { bytes: number(|stats| stats.used_bytes), inodes: number(|stats| stats.inodes_used) }
}

/// kubelet 1.36: what counts against the pod's ephemeral storage.
fn is_local(volume: &v1::Volume) -> bool {
    let is_disk = |dir: &v1::EmptyDirVolumeSource| dir.medium.as_deref().unwrap_or_default().is_empty();
    volume.empty_dir.as_ref().is_some_and(is_disk) || volume.config_map.is_some()
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).take(PLUGINS_MAX);
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
