//! Pods that another runtime runs: two runtimes never run the same node's pods.

use std::collections::BTreeSet;

use rubelet_host::cgroup::Driver;

use crate::hands::Hands;
use crate::roster::survey::Surveyed;

/// Looks for pod cgroups with living processes that the runtime does not know, whichever driver named them: another runtime may
/// have been configured with another driver.
///
/// # Errors
/// The UIDs of such pods, for the message.
pub(crate) fn refuse_foreign_pods(hands: &Hands, surveyed: &Surveyed) -> Result<(), String> {
    let Some(tree) = &hands.cgroups else { return Ok(()) };
    let ours: BTreeSet<&str> = surveyed.uids().map(rubelet_api::ids::PodUid::as_str).collect();
    let mut foreign = BTreeSet::new();
    for tree in [Driver::Cgroupfs, Driver::Systemd].map(|driver| tree.named_by(driver)) {
        foreign.extend(
            tree.list_pods().into_iter().filter(|uid| !ours.contains(uid.as_str()) && tree.pod_has_processes(uid)),
        );
    }
    if foreign.is_empty() { Ok(()) } else { Err(foreign.into_iter().collect::<Vec<_>>().join(", ")) }
}
