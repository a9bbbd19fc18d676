//! A node that was registered before: what of its Node object has to be as it would be made now.

use rubelet_api::gather::Gather;
use rubelet_api::{Quantity, v1};

use super::amounts::is_extended;
use crate::resources::hugepages;

const ATTACHED_BY_CONTROLLER: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// kubelet 1.36: the labels that are brought up to date; others of the command line only count for a new node.
const LABELS: [&str; 12] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// `known` with what must be as in `wanted`, the object of a node that registers for the first time.
///
/// kubelet 1.36: taints stay as they are. `forgets_extended`: nobody on this node remembers resources that others count, so that
/// there are none of them until they are told of anew.
#[must_use]
pub fn reconciled(wanted: &v1::Node, known: &v1::Node, forgets_extended: bool) -> v1::Node {
    let mut node = known.clone();
    annotation(wanted, &mut node);
    labels(wanted, &mut node);
    let wanted = wanted.status.clone().unwrap_or_default();
    let status = node.status.get_or_insert_default();
    let capacity = status.capacity.get_or_insert_with(|| wanted.capacity.clone().unwrap_or_default());
    let allocatable = status.allocatable.get_or_insert_with(|| wanted.allocatable.clone().unwrap_or_default());
    if forgets_extended {
        let names: Vec<String> = capacity.keys().filter(|name| is_extended(name)).cloned().collect();
        for name in names {
            capacity.insert(name.clone(), Quantity("0".to_owned()));
            allocatable.insert(name, Quantity("0".to_owned()));
        }
    }
    let pages = |amounts: Option<std::collections::BTreeMap<String, Quantity>>| -> std::collections::BTreeMap<_, _> {
        amounts.into_iter().flatten().filter(|(name, _)| name.starts_with(hugepages::PREFIX)).into_map()
    };
    for (known, wanted) in [(capacity, pages(wanted.capacity)), (allocatable, pages(wanted.allocatable))] {
        known.retain(|name, _| !name.starts_with(hugepages::PREFIX) || wanted.contains_key(name));
        known.extend(wanted);
    }
    node
}

fn annotation(wanted: &v1::Node, node: &mut v1::Node) {
    let wanted = wanted.metadata.annotations.as_ref().and_then(|a| a.get(ATTACHED_BY_CONTROLLER));
    match wanted {
        Some(value) => {
            let annotations = node.metadata.annotations.get_or_insert_default();
            annotations.insert(ATTACHED_BY_CONTROLLER.to_owned(), value.clone());
        }
        None => {
            if let Some(annotations) = &mut node.metadata.annotations {
                annotations.remove(ATTACHED_BY_CONTROLLER);
            }
        }
    }
}

fn labels(wanted: &v1::Node, node: &mut v1::Node) {
    let labels = node.metadata.labels.get_or_insert_default();
    for key in LABELS {
        match wanted.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str) {
            None => {}
            // An empty label is no label.
            Some("") => drop(labels.remove(key)),
            Some(value) => drop(labels.insert(key.to_owned(), value.to_owned())),
        }
    }
}
