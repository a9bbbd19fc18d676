//! The conditions of the node: reasons, messages, and since when.

use rubelet_api::meta::Time;
use rubelet_api::v1;

use super::object::{NodeEvent, Sight, second};
use crate::now::Wall;

/// What one of the pressures is called when it is on and when it is off.
struct Words {
    type_: &'static str,
    on: Side,
    off: Side,
}

struct Side {
    reason: &'static str,
    message: &'static str,
    event: &'static str,
}

const MEMORY: Words = Words {
    type_: "MemoryPressure",
    on: Side {
        reason: "KubeletHasInsufficientMemory",
        message: "kubelet has insufficient memory available",
        event: "NodeHasInsufficientMemory",
    },
    off: Side {
        reason: "KubeletHasSufficientMemory",
        message: "kubelet has sufficient memory available",
        event: "NodeHasSufficientMemory",
    },
};
const DISK: Words = Words {
    type_: "DiskPressure",
    on: Side { reason: "KubeletHasDiskPressure", message: "kubelet has disk pressure", event: "NodeHasDiskPressure" },
    off: Side {
        reason: "KubeletHasNoDiskPressure",
        message: "kubelet has no disk pressure",
        event: "NodeHasNoDiskPressure",
    },
};
const PIDS: Words = Words {
    type_: "PIDPressure",
    on: Side {
        reason: "KubeletHasInsufficientPID",
        message: "kubelet has insufficient PID available",
        event: "NodeHasInsufficientPID",
    },
    off: Side {
        reason: "KubeletHasSufficientPID",
        message: "kubelet has sufficient PID available",
        event: "NodeHasSufficientPID",
    },
};

const READY: &str = "Ready";

/// Brings the conditions up to date; others' conditions stay. kubelet 1.36: a condition that was not there yet is told of, but for
/// `Ready`.
pub(super) fn fill(status: &mut v1::NodeStatus, node: &str, sight: &Sight<'_>, now: Wall, events: &mut Vec<NodeEvent>) {
    let now = second(now);
    let problems = problems(status, sight);
    let conditions = status.conditions.get_or_insert_default();
    let pressures = sight.pressures;
    for (words, is_on) in [(MEMORY, pressures.memory), (DISK, pressures.disk), (PIDS, pressures.pids)] {
        let side = if is_on { words.on } else { words.off };
        let new = new(words.type_, is_on, side.reason, side.message, &now);
        if put(conditions, new, &now) != Put::Same {
            events.push(NodeEvent::status(node, side.event));
        }
    }
    let ready = match problems {
        None => new(READY, true, "KubeletReady", "kubelet is posting ready status", &now),
        Some(problems) => new(READY, false, "KubeletNotReady", &problems, &now),
    };
    let is_ready = ready.status == "True";
    if put(conditions, ready, &now) == Put::Turned {
        events.push(NodeEvent::status(node, if is_ready { "NodeReady" } else { "NodeNotReady" }));
    }
}

/// Whether a node says that it is ready.
#[must_use]
pub fn is_ready(node: &v1::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == READY && c.status == "True")
}

fn new(type_: &str, is_on: bool, reason: &str, message: &str, now: &Time) -> v1::NodeCondition {
    v1::NodeCondition {
        type_: type_.to_owned(),
        status: if is_on { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

#[derive(PartialEq, Eq)]
enum Put {
    New,
    Turned,
    Same,
}

/// Replaces the condition of the same type; since when it holds stays if it held before.
fn put(conditions: &mut Vec<v1::NodeCondition>, mut new: v1::NodeCondition, now: &Time) -> Put {
    let Some(known) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        conditions.push(new);
        return Put::New;
    };
    let is_same = known.status == new.status;
    new.last_transition_time = known.last_transition_time.take().filter(|_| is_same).or_else(|| Some(now.clone()));
    *known = new;
    if is_same { Put::Same } else { Put::Turned }
}

/// Why the node is not ready, in upstream's order.
fn problems(status: &v1::NodeStatus, sight: &Sight<'_>) -> Option<String> {
    let facts = sight.facts;
    let mut all: Vec<String> = Vec::new();
    all.extend(facts.runtime.problem.clone());
    all.extend(facts.runtime.network_problem.clone());
    all.extend(sight.storage_problem.map(str::to_owned));
    all.extend(sight.is_shutting_down.then(|| "node is shutting down".to_owned()));
    let required = ["cpu", "memory", "pods", "ephemeral-storage"];
    let required = if facts.settings.local_storage_isolation { &required[..] } else { &required[..3] };
    let has = |name: &str| status.capacity.as_ref().is_some_and(|c| c.contains_key(name));
    let missing: Vec<&str> = required.iter().copied().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        all.push(format!("missing node capacity for resources: {}", missing.join(", ")));
    }
    let mut distinct: Vec<String> = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    match distinct.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
