//! Holding all pods, and those for whom something is kept, to their part of the machine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::quote::quoted;
use rubelet_core::node::{NodeFacts, NodeLimits};
use rubelet_core::resources::cpu_shares;
use rubelet_host::cgroup::{Lack, Tree, Values};
use rubelet_host::chain;

use crate::events::Events;
use crate::hands::Hands;
use crate::life::Life;

/// The cgroup of all pods.
const PODS: &str = "kubepods";
/// kubelet 1.36: how often a limit that the kernel refuses is tried again.
const AGAIN: Duration = Duration::from_secs(60);
const DONE: &str = "NodeAllocatableEnforced";
const FAILED: &str = "FailedNodeAllocatableEnforcement";

/// For whom something is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// `systemReserved`.
    System,
    /// `kubeReserved`.
    Kube,
}

impl Whose {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Kube => "Kube",
        }
    }
}

/// A cgroup of others that is held to what is kept for them.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub whose: Whose,
    /// `systemReservedCgroup` or `kubeReservedCgroup`, as written.
    pub cgroup: String,
    /// `…-reserved-compressible`: only of what can be had later, too.
    pub is_compressible: bool,
    /// `None`: nothing is kept, which is a mistake here.
    pub limits: Option<NodeLimits>,
}

/// Makes `kubepods` and its QoS levels.
///
/// # Errors
/// The operation and the file it failed on.
pub(crate) fn make_levels(hands: &Hands, node: &NodeFacts) -> Result<(), String> {
    let Some(tree) = &hands.cgroups else { return Ok(()) };
    let shares = cpu_shares(node.machine.pods_limits.cpu_milli.unwrap_or(node.machine.cpu_milli));
    tree.ensure_levels(shares).map_err(|e| chain(&e))
}

/// Holds all pods together to their limits. Pods that use more already are told of, and it is tried until it works.
pub(crate) fn hold_pods(hands: &Arc<Hands>, node: &NodeFacts, life: &Life) {
    let (name, limits) = (node.name.clone(), node.machine.pods_limits.clone());
    if tell(&hands.events, &name, try_pods(hands, &limits)) {
        return;
    }
    let hands = hands.clone();
    life.spawn(async move {
        loop {
            tokio::time::sleep(AGAIN).await;
            let (trying, limits) = (hands.clone(), limits.clone());
            let outcome = rubelet_host::task::blocking(move || try_pods(&trying, &limits)).await;
            if tell(&hands.events, &name, outcome.unwrap_or_else(|e| Err(e.to_string()))) {
                return;
            }
        }
    });
}

fn try_pods(hands: &Hands, limits: &NodeLimits) -> Result<(), String> {
    let Some(tree) = &hands.cgroups else { return Ok(()) };
    tree.ensure(PODS, &values(limits)).map_err(|e| chain(&e))
}

fn tell(events: &Events, name: &str, outcome: Result<(), String>) -> bool {
    match outcome {
        Ok(()) => {
            events.tell_of_node(name, "Normal", DONE, "Updated Node Allocatable limit across pods");
            true
        }
        Err(err) => {
            let message = format!("Failed to update Node Allocatable Limits [\"{PODS}\"]: {err}");
            events.tell_of_node(name, "Warning", FAILED, &message);
            tracing::warn!(err, "All pods together are not held to what is not reserved; trying again in a minute");
            false
        }
    }
}

/// Holds the cgroups of others to what is kept for them.
///
/// # Errors
/// The first that cannot be, in upstream's words.
pub(crate) fn hold_others(hands: &Hands, node: &NodeFacts, all: &[Reservation]) -> Result<(), String> {
    let Some(tree) = hands.cgroups.as_ref().map(Tree::top) else { return Ok(()) };
    for one in all {
        let whose = one.whose.as_str();
        if let Err(problem) = hold(&tree, one) {
            let kind = if one.is_compressible { " Compressible" } else { "" };
            let cgroup = quoted(&one.cgroup);
            let message = format!("Failed to enforce {whose} Reserved{kind} Cgroup Limits on {cgroup}: {problem}");
            hands.events.tell_of_node(&node.name, "Warning", FAILED, &message);
            return Err(message);
        }
        let message = format!("Updated limits on {} reserved cgroup {}", whose.to_lowercase(), one.cgroup);
        hands.events.tell_of_node(&node.name, "Normal", DONE, &message);
    }
    Ok(())
}

fn hold(tree: &Tree, one: &Reservation) -> Result<(), String> {
    let parts = tree.components_of(&one.cgroup);
    let name = format!("[{}]", parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(" "));
    let Some(limits) = &one.limits else { return Err(format!("{name} cgroup is not configured properly")) };
    let path = parts.join("/");
    match tree.lack(&path).map_err(|e| chain(&e))? {
        None => tree.update(&path, &values(limits)).map_err(|e| chain(&e)),
        Some(Lack::Paths(missing)) => {
            let missing: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
            Err(format!("cgroup {name} has some missing paths: {}", missing.join(", ")))
        }
        Some(Lack::Controllers(missing)) => {
            Err(format!("cgroup {name} has some missing controllers: {}", missing.join(", ")))
        }
        Some(Lack::Unreadable { path, kind }) => {
            let why = match kind {
                io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                other => other.to_string(),
            };
            Err(format!("could not read controllers for cgroup {name}: open {}: {why}", path.display()))
        }
    }
}

fn values(limits: &NodeLimits) -> Values {
    Values {
        cpu_shares: limits.cpu_milli.map(cpu_shares),
        memory_limit_bytes: limits.memory_bytes,
        pids_max: limits.pids,
        hugetlb: limits.huge_pages.clone(),
        ..Values::default()
    }
}
