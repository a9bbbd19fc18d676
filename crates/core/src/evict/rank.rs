//! Who goes first.

use std::cmp::{Ordering, Reverse};

use rubelet_api::v1;

use super::observe::{Candidate, Measured};
use super::threshold::{Layout, Resource, Signal};
use crate::resources::sum::{Sum, get};

/// What can be freed on the node before a pod has to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reclaim {
    /// Containers that have ended and are kept.
    Containers,
    /// Images that no container uses.
    Images,
}

/// What of the node may relieve a shortage, in this order.
pub fn reclaims(layout: Layout, signal: Signal) -> &'static [Reclaim] {
    use Reclaim::{Containers, Images};
    use Signal as S;
    let is_node_fs = matches!(signal, S::NodeFsAvailable | S::NodeFsInodesFree);
    let is_image_fs = matches!(signal, S::ImageFsAvailable | S::ImageFsInodesFree);
    match (signal.resource(), layout) {
        (Resource::Memory | Resource::Pids, _) => &[],
        (_, Layout::Single) => &[Containers, Images],
        (_, Layout::ImageFs) if is_node_fs => &[],
        (_, Layout::ImageFs) => &[Containers, Images],
        (_, Layout::Split) if is_image_fs => &[Images],
        (_, Layout::Split) => &[Containers],
    }
}

/// What a pod has on the disk that the signal is about.
fn measured(layout: Layout, signal: Signal) -> Measured {
    let all = Measured { rootfs: true, logs: true, volumes: true };
    let is_node_fs = matches!(signal, Signal::NodeFsAvailable | Signal::NodeFsInodesFree);
    let is_image_fs = matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree);
    match layout {
        Layout::Single => all,
        Layout::ImageFs if is_node_fs => Measured { rootfs: false, ..all },
        Layout::ImageFs => Measured { rootfs: true, ..Measured::default() },
        Layout::Split if is_image_fs => Measured::default(),
        Layout::Split => all,
    }
}

/// Orders pods: the first one goes first.
///
/// kubelet 1.36: pods whose use is unknown; those that use more than they asked for; lower priority; then more use beyond the
/// request. Processes are not asked for.
pub(super) fn rank(candidates: &mut [Candidate<'_>], layout: Layout, signal: Signal, pod_level: bool) {
    candidates.sort_by(|a, b| {
        let key = |c: &Candidate<'_>| key(c, layout, signal, pod_level);
        compare(&key(a), &key(b), signal.resource())
    });
}

struct Key {
    /// `None`: use unknown.
    usage: Option<Beyond>,
    priority: i32,
}

struct Beyond {
    exceeds: bool,
    /// Use without request.
    excess: i64,
}

fn key(candidate: &Candidate<'_>, layout: Layout, signal: Signal, pod_level: bool) -> Key {
    let request = |name: &str| get(&Sum::requests(pod_level).of(candidate.pod), name).units();
    let beyond = candidate.usage.map(|usage| {
        let disk = usage.disk(candidate.pod, measured(layout, signal));
        let (used, asked, less) = match signal.resource() {
            Resource::Memory => (usage.memory.unwrap_or(0), request("memory"), request("memory")),
            Resource::EphemeralStorage => (disk.bytes, request("ephemeral-storage"), request("ephemeral-storage")),
            // kubelet 1.36 takes the request in bytes off the number of files.
            Resource::Inodes => (disk.inodes, 0, request("ephemeral-storage")),
            Resource::Pids => (usage.processes.unwrap_or(0), 0, 0),
        };
        Beyond { exceeds: used > asked, excess: used.saturating_sub(less) }
    });
    Key { usage: beyond, priority: priority(candidate.pod) }
}

fn compare(a: &Key, b: &Key, resource: Resource) -> Ordering {
    let by_known = a.usage.is_some().cmp(&b.usage.is_some());
    let by_priority = a.priority.cmp(&b.priority);
    let (excess, exceeds) = match (&a.usage, &b.usage) {
        (Some(a), Some(b)) => (Reverse(a.excess).cmp(&Reverse(b.excess)), b.exceeds.cmp(&a.exceeds)),
        _ => (by_known, by_known),
    };
    match resource {
        Resource::Pids => by_priority.then(excess),
        Resource::Memory | Resource::EphemeralStorage | Resource::Inodes => exceeds.then(by_priority).then(excess),
    }
}

fn priority(pod: &v1::Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}
