//! The Node object: what the node says of itself.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::meta::Time;
use rubelet_api::v1;

use super::addresses::{AddressRules, AddressSight, addresses};
use super::{NodeFacts, Registered, amounts, conditions};
use crate::admit::affinity::ARCH;
use crate::evict::Pressures;
use crate::now::Wall;

/// kubelet 1.36: names of one image that are reported.
const IMAGE_NAMES_MAX: usize = 5;

const OS: &str = "linux";
const ATTACHED_BY_CONTROLLER: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// For the controller of an external cloud: the address that the node was given.
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// How the node presents itself, from flags and configuration.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// Name of the Node object.
    pub name: String,
    /// `--node-labels`.
    pub labels: BTreeMap<String, String>,
    /// `registerWithTaints`.
    pub taints: Vec<v1::Taint>,
    /// `providerID`; empty for none.
    pub provider_id: String,
    /// `--node-ip` and `--cloud-provider=external`.
    pub addresses: AddressRules,
    /// `enableControllerAttachDetach`.
    pub is_attached_by_controller: bool,
    /// `nodeStatusMaxImages`; `None` for any number.
    pub images_max: Option<usize>,
    /// `port`.
    pub port: i32,
    /// The agent's version, with `v`.
    pub version: String,
    /// What the agent can do that the scheduler has to know; sorted.
    pub declared_features: Vec<String>,
}

/// What the machine says of itself that does not change before it is booted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemFacts {
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

/// An image of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSight {
    pub id: String,
    /// Names with digest.
    pub digests: Vec<String>,
    /// Names with tag.
    pub tags: Vec<String>,
    pub bytes: u64,
}

/// What is true of the node now.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub facts: &'a NodeFacts,
    pub system: &'a SystemFacts,
    pub addresses: &'a AddressSight,
    /// What the runtime listed.
    pub images: &'a [ImageSight],
    pub pressures: Pressures,
    pub is_shutting_down: bool,
    /// Why volumes can't be used yet.
    pub storage_problem: Option<&'a str>,
    /// Attachable volumes that pods use; `None` as long as it is not known.
    pub volumes_in_use: Option<&'a [String]>,
}

/// Something that happened to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    pub type_: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl NodeEvent {
    /// kubelet 1.36: the node's status became what the reason says.
    pub(super) fn status(node: &str, reason: &'static str) -> Self {
        Self { type_: "Normal", reason, message: format!("Node {node} status is now: {reason}") }
    }
}

/// The Node object as it should be, and what follows from the difference.
#[derive(Clone, Debug)]
pub struct Refreshed {
    pub node: v1::Node,
    pub events: Vec<NodeEvent>,
    /// What could not be said, in words.
    pub problem: Option<String>,
}

/// The labels that the node gives itself. kubelet 1.36: those of the command line win.
#[must_use]
pub fn labels(presence: &Presence) -> BTreeMap<String, String> {
    let mut labels = default_labels(&presence.name);
    labels.extend(presence.labels.clone());
    labels
}

/// The labels of every node.
#[must_use]
pub fn default_labels(name: &str) -> BTreeMap<String, String> {
    [
        ("beta.kubernetes.io/arch", ARCH),
        ("beta.kubernetes.io/os", OS),
        ("kubernetes.io/arch", ARCH),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", OS),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into_map()
}

/// The taints that the node gives itself when it registers.
#[must_use]
pub fn taints(presence: &Presence) -> Vec<v1::Taint> {
    let mut taints = presence.taints.clone();
    if presence.addresses.is_cloud_external {
        taints.push(v1::Taint {
            key: UNINITIALIZED.to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
    }
    taints
}

/// What decides about pods before the Node object was seen.
#[must_use]
pub fn unseen(presence: &Presence) -> Registered {
    Registered { labels: labels(presence), taints: taints(presence), ..Registered::default() }
}

/// What of a Node object decides about pods; `None`: there is none.
#[must_use]
pub fn seen(node: Option<&v1::Node>, presence: &Presence) -> Registered {
    let Some(node) = node else { return Registered { is_seen: true, ..unseen(presence) } };
    let status = node.status.as_ref();
    let allocatable = status.and_then(|s| s.allocatable.as_ref());
    let attached = status.and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
    Registered {
        is_seen: true,
        uid: node.metadata.uid.clone().filter(|_| node.metadata.deletion_timestamp.is_none()),
        addresses: status.and_then(|s| s.addresses.clone()).unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        taints: node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
        extended: amounts::extended(allocatable),
        volumes_attached: attached.iter().map(|volume| volume.name.clone()).collect(),
    }
}

/// The Node object of a node that registers for the first time.
#[must_use]
pub fn initial(presence: &Presence, sight: &Sight<'_>, now: Wall) -> Refreshed {
    let (labels, taints) = (labels(presence), taints(presence));
    let annotations = presence
        .is_attached_by_controller
        .then(|| BTreeMap::from([(ATTACHED_BY_CONTROLLER.to_owned(), "true".to_owned())]));
    let provider_id = Some(presence.provider_id.clone()).filter(|id| !id.is_empty());
    let mut node = v1::Node::default();
    node.metadata.name = Some(presence.name.clone());
    node.metadata.labels = Some(labels);
    node.metadata.annotations = annotations;
    let taints = (!taints.is_empty()).then_some(taints);
    node.spec = Some(v1::NodeSpec { taints, provider_id, ..v1::NodeSpec::default() });
    refreshed(presence, sight, &node, now)
}

/// The Node object that is known, with everything that the node says as it is now.
#[must_use]
pub fn refreshed(presence: &Presence, sight: &Sight<'_>, known: &v1::Node, now: Wall) -> Refreshed {
    let mut node = known.clone();
    let mut events = Vec::new();
    restore_labels(&mut node);
    let mut status = node.status.take().unwrap_or_default();
    let problem = place(presence, sight, &mut node, &mut status);
    amounts::fill(&mut status, sight.facts);
    let before = status.node_info.take();
    let booted = before.map(|info| info.boot_id).filter(|id| !id.is_empty() && *id != sight.system.boot_id);
    if booted.is_some() {
        let message = format!("Node {} has been rebooted, boot id: {}", presence.name, sight.system.boot_id);
        events.push(NodeEvent { type_: "Warning", reason: "Rebooted", message });
    }
    status.node_info = Some(system_info(presence, sight));
    status.daemon_endpoints = Some(v1::NodeDaemonEndpoints {
        kubelet_endpoint: (presence.port > 0).then_some(v1::DaemonEndpoint { port: presence.port }),
    });
    status.images = some(images(presence, sight.images));
    status.runtime_handlers = some(handlers(sight.facts));
    let has_policy = sight.facts.runtime.has_supplemental_groups_policy;
    status.features = Some(v1::NodeFeatures { supplemental_groups_policy: Some(has_policy) });
    status.declared_features = some(presence.declared_features.clone());
    if let Some(volumes) = sight.volumes_in_use {
        status.volumes_in_use = some(volumes.to_vec());
    }
    conditions::fill(&mut status, &presence.name, sight, now, &mut events);
    node.status = Some(status);
    Refreshed { node, events, problem }
}

/// Whole seconds: what the API keeps.
pub(super) fn second(now: Wall) -> Time {
    Time(Wall::from_second(now.as_second()).unwrap_or(now))
}

/// What is empty is not said.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// kubelet 1.36: put back whenever somebody removes or changes them.
fn restore_labels(node: &mut v1::Node) {
    let labels = node.metadata.labels.get_or_insert_default();
    for (key, value) in [("kubernetes.io/os", OS), ("kubernetes.io/arch", ARCH)] {
        if labels.get(key).map(String::as_str) != Some(value) {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
}

/// Addresses, and what the cloud's controller is told of them.
fn place(presence: &Presence, sight: &Sight<'_>, node: &mut v1::Node, status: &mut v1::NodeStatus) -> Option<String> {
    let rules = &presence.addresses;
    let known = status.addresses.take().unwrap_or_default();
    let found = addresses(rules, sight.addresses, &presence.name, &known);
    let provided = rules.provided();
    match (&found, provided) {
        (Err(_), Some(_)) => {}
        (Ok(_), Some(text)) => {
            let annotations = node.metadata.annotations.get_or_insert_default();
            annotations.insert(PROVIDED_IP.to_owned(), text);
        }
        (Ok(_) | Err(_), None) => {
            if let Some(annotations) = &mut node.metadata.annotations {
                annotations.remove(PROVIDED_IP);
            }
        }
    }
    match found {
        Ok(found) => {
            status.addresses = some(found);
            None
        }
        Err(problem) => {
            status.addresses = some(known);
            Some(problem)
        }
    }
}

fn system_info(presence: &Presence, sight: &Sight<'_>) -> v1::NodeSystemInfo {
    let (system, facts) = (sight.system, sight.facts);
    let swap = facts.machine.swap_bytes;
    v1::NodeSystemInfo {
        architecture: ARCH.to_owned(),
        boot_id: system.boot_id.clone(),
        container_runtime_version: format!("{}://{}", facts.runtime.name, facts.runtime.version),
        kernel_version: system.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: presence.version.clone(),
        machine_id: system.machine_id.clone(),
        operating_system: OS.to_owned(),
        os_image: system.os_image.clone(),
        swap: (swap > 0).then_some(v1::NodeSwapStatus { capacity: Some(swap) }),
        system_uuid: system.system_uuid.clone(),
    }
}

/// kubelet 1.36: the largest first, of each the names with digest first.
fn images(presence: &Presence, seen: &[ImageSight]) -> Vec<v1::ContainerImage> {
    let mut seen: Vec<&ImageSight> = seen.iter().collect();
    seen.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| b.id.cmp(&a.id)));
    let most = presence.images_max.unwrap_or(seen.len());
    let image = |seen: &ImageSight| {
        let names = seen.digests.iter().chain(&seen.tags).take(IMAGE_NAMES_MAX).cloned();
        v1::ContainerImage { names: some(names.collect()), size_bytes: i64::try_from(seen.bytes).ok() }
    };
    seen.into_iter().take(most).map(image).collect()
}

fn handlers(facts: &NodeFacts) -> Vec<v1::NodeRuntimeHandler> {
    let mut all: Vec<_> = facts.runtime.handlers.iter().collect();
    // In whatever order the runtime lists them: it is no change.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let handler = |one: &super::HandlerFacts| v1::NodeRuntimeHandler {
        name: Some(one.name.clone()),
        features: Some(v1::NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(one.recursive_read_only_mounts),
            user_namespaces: Some(one.user_namespaces),
        }),
    };
    all.into_iter().map(handler).collect()
}

/// Whether the scheduler is told to leave the node alone.
#[must_use]
pub fn is_unschedulable(node: &v1::Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

/// What is told when the node is cordoned or let in again.
#[must_use]
pub fn schedulable_event(node: &str, is_unschedulable: bool) -> NodeEvent {
    NodeEvent::status(node, if is_unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" })
}
