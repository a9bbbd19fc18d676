//! What the API shows of a pod: rendered from the record each time, never kept in pieces.

mod conditions;
mod containers;
mod mounts;
mod phase;
mod resources;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use rubelet_api::v1;

use self::phase::Phase;
use super::record::PodRecord;
use super::stage::{Stage, StopCause};
use crate::node::NodeFacts;
use crate::now::{Now, Wall};
use crate::render;
use crate::resources::qos::qos_class;

/// Exit code of a container whose end nobody saw.
const LOST: i32 = 137;
/// Reason of a container whose end nobody saw.
const LOST_REASON: &str = "ContainerStatusUnknown";
/// Reason of a container that was removed so that all start over.
const RESTARTING: &str = "RestartingAllContainers";

/// Everything that the parts of a status are rendered from.
#[derive(Clone, Copy)]
struct View<'a> {
    record: &'a PodRecord,
    node: &'a NodeFacts,
    now: Now,
    /// What was shown last.
    old: Option<&'a v1::PodStatus>,
}

/// The container statuses of a pod.
struct Statuses {
    init: Vec<v1::ContainerStatus>,
    regular: Vec<v1::ContainerStatus>,
    ephemeral: Vec<v1::ContainerStatus>,
}

/// What the pod as a whole amounts to.
struct Verdict {
    /// What follows from the containers and from why the pod ends; conditions say this.
    computed: Phase,
    /// What is told: an end is told when nothing lives any more.
    shown: Phase,
    reason: Option<String>,
    message: Option<String>,
}

impl PodRecord {
    /// What the API shows of the pod.
    pub(super) fn status(&self, node: &NodeFacts, now: Now) -> v1::PodStatus {
        let view = View { record: self, node, now, old: self.published.as_deref() };
        if let (None, Some(old)) = (&self.observed, view.old) {
            // Nobody has looked yet: what was known holds.
            return old.clone();
        }
        if let Some(StopCause::Rejected { reason, message }) = self.stage.stop_cause() {
            return view.rejected(reason, message);
        }
        let mut statuses = view.statuses();
        if node.settings.gates.resource_health_status {
            for status in &mut statuses.regular {
                status.allocated_resources_status = self.devices.get(&status.name).cloned();
            }
        }
        let verdict = view.verdict(&statuses);
        if view.is_over() {
            containers::finish(self, &mut statuses);
        }
        view.status(statuses, verdict)
    }
}

impl View<'_> {
    /// kubelet 1.36: of a pod that was never let in nothing is told but why.
    fn rejected(&self, reason: &str, message: &str) -> v1::PodStatus {
        const WORDS: &str = "Pod was rejected: ";
        let message = if message.starts_with(WORDS) { message.to_owned() } else { format!("{WORDS}{message}") };
        v1::PodStatus {
            phase: Some(Phase::Failed.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            ..self.frame()
        }
    }

    /// What every status has.
    fn frame(&self) -> v1::PodStatus {
        let pod = &self.record.pod;
        let of_old = self.old.and_then(|o| o.start_time.as_ref()).map(|t| t.0);
        v1::PodStatus {
            observed_generation: pod.metadata.generation.filter(|g| *g != 0),
            qos_class: Some(qos_class(pod).as_str().to_owned()),
            start_time: Some(time(of_old.or(self.record.started_at).unwrap_or(self.now.wall))),
            ..Default::default()
        }
    }

    fn status(&self, statuses: Statuses, verdict: Verdict) -> v1::PodStatus {
        let conditions = conditions::all(self, &statuses, &verdict);
        let pod_level = self.node.settings.gates.pod_level_resources;
        let host_ips: &[IpAddr] = if self.node.settings.has_api_server { &self.node.ips } else { &[] };
        let ips = self.pod_ips(host_ips);
        v1::PodStatus {
            phase: Some(verdict.shown.as_str().to_owned()),
            reason: verdict.reason,
            message: verdict.message,
            conditions: Some(conditions),
            init_container_statuses: listed(statuses.init),
            container_statuses: listed(statuses.regular),
            ephemeral_container_statuses: listed(statuses.ephemeral),
            host_ip: host_ips.first().map(ToString::to_string),
            host_ips: listed(host_ips.iter().map(|ip| v1::HostIP { ip: ip.to_string() }).collect()),
            pod_ip: ips.first().cloned(),
            pod_ips: listed(ips.into_iter().map(|ip| v1::PodIP { ip }).collect()),
            resources: Some(resources::of_pod(self.record.actual(), pod_level)),
            allocated_resources: resources::allocated_to_pod(&self.record.pod, pod_level),
            // What others wrote, and what no part of ours knows.
            nominated_node_name: self.given().and_then(|s| s.nominated_node_name.clone()),
            resource_claim_statuses: self.given().and_then(|s| s.resource_claim_statuses.clone()),
            extended_resource_claim_status: self.given().and_then(|s| s.extended_resource_claim_status.clone()),
            ..self.frame()
        }
    }

    /// The status that came with the pod.
    fn given(&self) -> Option<&v1::PodStatus> {
        self.record.pod.status.as_ref()
    }

    /// Nothing lives in it, and nothing ever will.
    fn is_over(&self) -> bool {
        match &self.record.stage {
            Stage::Cleaning(_) | Stage::Gone => true,
            Stage::Queued { .. } | Stage::Active | Stage::Stopping(_) => false,
        }
    }

    /// Addresses of the pod, the node's family first. kubelet 1.36: at most one of each family; a pod in the host's network has the
    /// node's, as far as those are told at all; a pod that ended keeps them.
    fn pod_ips(&self, host_ips: &[IpAddr]) -> Vec<String> {
        let own = if render::is_host_network(&self.record.pod) { host_ips } else { &self.record.sandbox.ips };
        if own.is_empty() && self.record.stage.stop_cause().is_some() {
            let old = self.old.and_then(|o| o.pod_ips.as_deref()).unwrap_or_default();
            return old.iter().map(|ip| ip.ip.clone()).collect();
        }
        let is_six_first = self.node.ips.first().is_some_and(IpAddr::is_ipv6);
        let first_of = |six: bool| own.iter().find(|ip| ip.is_ipv6() == six);
        [first_of(is_six_first), first_of(!is_six_first)].into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Phase, reason and message. kubelet 1.36: a phase that ends stays; an end is told only after everything was stopped; a pod that
    /// was told to go has failed unless all its containers succeeded, static pods excepted.
    fn verdict(&self, statuses: &Statuses) -> Verdict {
        let ended = [self.old, self.given()].into_iter().flatten().find_map(|s| Some((s, Phase::ended(s)?)));
        let is_over = self.is_over();
        let by_containers = phase::of(self, statuses, is_over);
        // kubelet 1.36: of a pod that was told to go before its containers had ended, conditions say what they came to.
        let is_cut_short = self.record.stage.stop_cause() == Some(&StopCause::Withdrawn)
            && is_over
            && !by_containers.is_end()
            && !self.record.source.is_static();
        if let Some((status, phase)) = ended {
            let (reason, message) = (status.reason.clone(), status.message.clone());
            let computed = if is_cut_short { by_containers } else { phase };
            return Verdict { computed, shown: phase, reason, message };
        }
        if is_cut_short {
            return Verdict { computed: by_containers, shown: Phase::Failed, reason: None, message: None };
        }
        let (computed, reason, message) = match self.record.stage.stop_cause() {
            Some(StopCause::Failed { reason, message, .. } | StopCause::Rejected { reason, message }) => {
                (Phase::Failed, Some(reason.clone()), Some(message.clone()))
            }
            Some(cause @ StopCause::ShutDown) => {
                let (reason, message) = cause.told().unzip();
                (Phase::Failed, reason.map(str::to_owned), message.map(str::to_owned))
            }
            Some(StopCause::Completed { has_failed }) if is_over && !by_containers.is_end() => {
                (if *has_failed { Phase::Failed } else { Phase::Succeeded }, None, None)
            }
            Some(StopCause::Completed { .. } | StopCause::Withdrawn) | None => (by_containers, None, None),
        };
        if !computed.is_end() || is_over {
            return Verdict { computed, shown: computed, reason, message };
        }
        let before = self.old.and_then(|o| Phase::parse(o.phase.as_deref()?));
        Verdict { computed, shown: before.unwrap_or(Phase::Running), reason: None, message: None }
    }
}

/// An empty list does not show.
fn listed<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Whole seconds, as the API shows times.
fn time(at: Wall) -> rubelet_api::meta::Time {
    rubelet_api::meta::Time(Wall::from_second(at.as_second()).unwrap_or(at))
}
