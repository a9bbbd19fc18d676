//! Pods that another runtime runs: two runtimes never run the same node's pods.

use std::collections::BTreeSet;

use crate::hands::Hands;
use crate::roster::survey::Surveyed;

/// Looks for pod cgroups with living processes that the runtime does not know.
///
/// # Errors
/// The UIDs of such pods, for the message.
pub(crate) fn refuse_foreign_pods(hands: &Hands, surveyed: &Surveyed) -> Result<(), String> {
    let Some(tree) = &hands.cgroups else { return Ok(()) };
    let ours: BTreeSet<&str> = surveyed.uids().map(rubelet_api::ids::PodUid::as_str).collect();
    let foreign: Vec<String> = tree
        .list_pods()
        .into_iter()
        .filter(|uid| !ours.contains(uid.as_str()) && tree.pod_has_processes(uid))
        .collect();
    if foreign.is_empty() { Ok(()) } else { Err(foreign.join(", ")) }
}
