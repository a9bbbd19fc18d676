//! The pod's conditions.

use rubelet_api::v1;

use super::phase::{Phase, has_regular_started};
use super::{Statuses, Verdict, View, time};
use crate::pod::record::SandboxRecord;
use crate::pod::restart::{AfterExit, after_exit};
use crate::pod::spec::{self, Role};
use crate::pod::stage::StopCause;

/// Types that are ours to set; others' stay as they came.
const OWN: [&str; 9] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    "PodResizePending",
    "PodResizeInProgress",
    "DisruptionTarget",
];

/// One condition before its time is known.
struct Said {
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Said {
    const TRUE: Self = Self { status: "True", reason: None, message: None };
    const FALSE: Self = Self { status: "False", reason: None, message: None };

    fn new(status: &'static str, reason: &'static str) -> Self {
        Self { status, reason: Some(reason), message: None }
    }

    fn with(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    fn of(is_true: bool) -> Self {
        if is_true { Self::TRUE } else { Self::FALSE }
    }
}

/// All conditions in upstream's order: others' first, then ours.
pub(super) fn all(view: &View<'_>, statuses: &Statuses, verdict: &Verdict) -> Vec<v1::PodCondition> {
    let pod = &view.record.pod;
    let given = || pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut conditions: Vec<_> = given().filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
    conditions.extend(disruption(view));
    conditions.extend(resizes(view, verdict));
    let containers_ready = containers_ready(view, statuses, verdict.computed);
    let ready = match containers_ready.status {
        "True" => gates(view, &conditions),
        _ => Said { message: containers_ready.message.clone(), ..containers_ready },
    };
    let mut say = |type_, said| conditions.push(condition(view, type_, said));
    say("PodReadyToStartContainers", Said::of(has_sandbox(view)));
    say("Initialized", initialized(view, statuses, verdict.computed));
    say("Ready", ready);
    say("ContainersReady", containers_ready);
    say("PodScheduled", Said::TRUE);
    if view.node.settings.gates.restart_all_containers_on_container_exits && may_restart_all(view) {
        say("AllContainersRestarting", restarting(view, verdict.computed));
    }
    conditions
}

/// The condition with the time since when its status is what it is.
fn condition(view: &View<'_>, type_: &str, said: Said) -> v1::PodCondition {
    let old = view.old.and_then(|o| o.conditions.as_ref()?.iter().find(|c| c.type_ == type_));
    let since = old.filter(|o| o.status == said.status).and_then(|o| o.last_transition_time.clone());
    v1::PodCondition {
        type_: type_.to_owned(),
        status: said.status.to_owned(),
        reason: said.reason.map(str::to_owned),
        message: said.message,
        last_transition_time: Some(since.unwrap_or_else(|| time(view.now.wall))),
        last_probe_time: None,
        observed_generation: view.record.pod.metadata.generation.filter(|g| *g != 0),
    }
}

/// kubelet 1.36: pods that the node ends for its own sake say so; it stays.
fn disruption(view: &View<'_>) -> Option<v1::PodCondition> {
    const TYPE: &str = "DisruptionTarget";
    let known = |s: &v1::PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == TYPE).cloned();
    match view.record.stage.stop_cause().and_then(StopCause::disruption) {
        Some(message) => Some(condition(view, TYPE, Said::new("True", "TerminationByKubelet").with(message))),
        None => view.old.and_then(known).or_else(|| view.record.pod.status.as_ref().and_then(known)),
    }
}

/// A resize that waits, and one that is under way. kubelet 1.36: they are there or not, never false; a pod that ended has none.
fn resizes(view: &View<'_>, verdict: &Verdict) -> Vec<v1::PodCondition> {
    let resize = &view.record.resize;
    let both = [("PodResizePending", &resize.pending), ("PodResizeInProgress", &resize.progress)];
    let is_over = verdict.computed.is_end() || view.record.stage.stop_cause().is_some();
    let held = both.into_iter().filter_map(|(type_, held)| Some((type_, held.as_ref().filter(|_| !is_over)?)));
    held.map(|(type_, held)| v1::PodCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: held.reason.map(str::to_owned),
        message: held.message.clone(),
        last_transition_time: Some(time(held.since)),
        last_probe_time: Some(time(held.checked)),
        observed_generation: Some(held.generation).filter(|g| *g != 0),
    })
    .collect()
}

/// Whether containers can be started in a sandbox: the newest is ready, the only ready one, in the right network, with an address.
fn has_sandbox(view: &View<'_>) -> bool {
    let SandboxRecord { awaited, .. } = &view.record.sandbox;
    let sandboxes = view.record.observed.as_ref().map(|o| o.sandboxes.as_slice()).unwrap_or_default();
    let is_host_network = crate::render::is_host_network(&view.record.pod);
    awaited.is_some()
        || sandboxes.first().is_some_and(|newest| {
            newest.is_ready
                && sandboxes.iter().filter(|s| s.is_ready).count() == 1
                && newest.is_host_network == is_host_network
                && (is_host_network || !newest.ips.is_empty())
        })
}

fn initialized(view: &View<'_>, statuses: &Statuses, phase: Phase) -> Said {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for wanted in spec::inits(&view.record.pod) {
        match statuses.init.iter().find(|s| s.name == wanted.name()) {
            None => unknown.push(wanted.name()),
            Some(status) => {
                let is_done = match wanted.role {
                    Role::Sidecar => status.started == Some(true),
                    Role::Init | Role::Regular | Role::Ephemeral => status.ready,
                };
                if !is_done {
                    incomplete.push(wanted.name());
                }
            }
        }
    }
    if phase == Phase::Succeeded && unknown.is_empty() {
        return Said::new("True", "PodCompleted");
    }
    if has_regular_started(&statuses.regular) {
        return Said::TRUE;
    }
    match message(&[("unknown", &unknown), ("incomplete", &incomplete)]) {
        Some(message) => Said::new("False", "ContainersNotInitialized").with(message),
        None => Said::TRUE,
    }
}

fn containers_ready(view: &View<'_>, statuses: &Statuses, phase: Phase) -> Said {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for wanted in spec::wanted(&view.record.pod).filter(|w| w.role != Role::Init) {
        let of = if wanted.role == Role::Sidecar { &statuses.init } else { &statuses.regular };
        match of.iter().find(|s| s.name == wanted.name()) {
            None => unknown.push(wanted.name()),
            Some(status) if !status.ready => unready.push(wanted.name()),
            Some(_) => {}
        }
    }
    if phase == Phase::Succeeded && unknown.is_empty() {
        return Said::new("False", "PodCompleted");
    }
    if phase == Phase::Failed {
        return Said::new("False", "PodFailed");
    }
    match message(&[("unknown", &unknown), ("unready", &unready)]) {
        Some(message) => Said::new("False", "ContainersNotReady").with(message),
        None => Said::TRUE,
    }
}

fn message(kinds: &[(&str, &Vec<&str>)]) -> Option<String> {
    let parts: Vec<String> = kinds
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("containers with {kind} status: [{}]", names.join(" ")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Readiness gates: conditions of others that a ready pod must have.
fn gates(view: &View<'_>, others: &[v1::PodCondition]) -> Said {
    let wanted = view.record.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let trouble: Vec<String> = wanted
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match others.iter().find(|c| c.type_ == *name) {
                None => Some(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
                Some(c) if c.status != "True" => {
                    Some(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status))
                }
                Some(_) => None,
            }
        })
        .collect();
    if trouble.is_empty() { Said::TRUE } else { Said::new("False", "ReadinessGatesNotReady").with(trouble.join(", ")) }
}

/// Whether an exit of some container may restart all.
fn may_restart_all(view: &View<'_>) -> bool {
    let rules = |w: spec::Wanted<'_>| {
        w.spec.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers")
    };
    spec::wanted(&view.record.pod).any(rules)
}

fn restarting(view: &View<'_>, phase: Phase) -> Said {
    match phase {
        Phase::Succeeded => Said::new("False", "PodCompleted"),
        Phase::Failed => Said::new("False", "PodFailed"),
        Phase::Pending | Phase::Running if is_restarting_all(view) => {
            Said::new("True", "RestartAllContainersStarted").with("container exited with restart policy rule")
        }
        Phase::Pending | Phase::Running => Said::FALSE,
    }
}

fn is_restarting_all(view: &View<'_>) -> bool {
    let record = view.record;
    let demands = |w: spec::Wanted<'_>| {
        let code = record.newest(w.name()).and_then(|c| crate::pod::container::exit_code(&c.state));
        code.is_some_and(|code| after_exit(&record.pod, &w, code) == AfterExit::RestartAll)
    };
    record.restart_all.is_some() || spec::wanted(&record.pod).any(demands)
}
