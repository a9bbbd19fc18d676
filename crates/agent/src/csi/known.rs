//! What the cluster is told of a driver: an entry in the CSINode, an annotation and labels of the Node.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::groups::storage_v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use rubelet_api::meta::{ObjectMeta, OwnerReference};
use rubelet_api::v1;
use rubelet_apiserver::{Client, Error, Patch, Path};
use rubelet_volumes::csi::NodeFacts;
use serde_json::{Value, json};

/// kubelet 1.36: the driver's names for the node, as JSON.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// kubelet 1.36: plugins of old whose volumes drivers have.
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,\
     kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
/// Changes by others that are taken in before giving up.
const TRIES: usize = 5;

/// Adds a driver, or brings its entry up to date.
pub(super) async fn add(client: &Client, node: &str, driver: &str, info: &NodeFacts) -> Result<(), String> {
    if info.node_id.is_empty() {
        return Err(format!("driver {driver} has no name for this node"));
    }
    label(client, node, driver, info).await?;
    let entry = entry(driver, info);
    change(client, node, |drivers| {
        drivers.retain(|d| d.name != driver);
        drivers.push(entry.clone());
    })
    .await
}

/// Takes a driver out.
pub(super) async fn remove(client: &Client, node: &str, driver: &str) -> Result<(), String> {
    change(client, node, |drivers| drivers.retain(|d| d.name != driver)).await
}

/// Changes how many volumes of a driver the node takes; a driver that is not there stays away.
pub(super) async fn limit(client: &Client, node: &str, driver: &str, info: &NodeFacts) -> Result<(), String> {
    let allocatable = entry(driver, info).allocatable;
    change(client, node, |drivers| {
        for known in drivers.iter_mut().filter(|d| d.name == driver) {
            known.allocatable.clone_from(&allocatable);
        }
    })
    .await
}

fn entry(driver: &str, info: &NodeFacts) -> CSINodeDriver {
    let keys: Vec<String> = segments(info).into_keys().collect();
    CSINodeDriver {
        name: driver.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: (!keys.is_empty()).then_some(keys),
        allocatable: i32::try_from(info.max_volumes_per_node)
            .ok()
            .filter(|max| *max > 0)
            .map(|count| VolumeNodeResources { count: Some(count) }),
    }
}

/// Where the node is, by the driver's labels.
fn segments(info: &NodeFacts) -> BTreeMap<String, String> {
    info.accessible_topology.as_ref().map(|t| t.segments.clone()).unwrap_or_default()
}

async fn change(client: &Client, node: &str, edit: impl Fn(&mut Vec<CSINodeDriver>)) -> Result<(), String> {
    let path = Path::to_cluster::<CSINode>(node);
    for _ in 0..TRIES {
        let answer = match client.get::<CSINode>(&path).await {
            Ok(mut known) => {
                let before = known.spec.drivers.clone();
                edit(&mut known.spec.drivers);
                if known.spec.drivers == before {
                    return Ok(());
                }
                client.update(&path, &known).await
            }
            Err(error) if error.is_not_found() => {
                let mut drivers = Vec::new();
                edit(&mut drivers);
                if drivers.is_empty() {
                    return Ok(());
                }
                let made = CSINode { metadata: metadata(client, node).await?, spec: CSINodeSpec { drivers } };
                client.create(&Path::all::<CSINode>(), &made).await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() || error.is_already_exists() => {}
            Err(error) => return Err(text(&error)),
        }
    }
    Err(format!("CSINode {node} changes all the time"))
}

/// It goes with its Node.
async fn metadata(client: &Client, node: &str) -> Result<ObjectMeta, String> {
    let owner: v1::Node = client.get(&Path::to_cluster::<v1::Node>(node)).await.map_err(|e| text(&e))?;
    Ok(ObjectMeta {
        name: Some(node.to_owned()),
        annotations: Some([(MIGRATED.to_owned(), MIGRATED_PLUGINS.to_owned())].into()),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid: owner.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    })
}

async fn label(client: &Client, node: &str, driver: &str, info: &NodeFacts) -> Result<(), String> {
    let path = Path::to_cluster::<v1::Node>(node);
    let known: v1::Node = client.get(&path).await.map_err(|e| text(&e))?;
    let Some(patch) = node_patch(&known, driver, info) else { return Ok(()) };
    client.patch::<v1::Node>(&path, &Patch::Merge(patch)).await.map(drop).map_err(|e| text(&e))
}

/// What is missing on the Node; `None` when nothing is.
fn node_patch(node: &v1::Node, driver: &str, info: &NodeFacts) -> Option<Value> {
    let annotation = node.metadata.annotations.as_ref().and_then(|a| a.get(NODE_IDS));
    let mut ids: BTreeMap<String, String> =
        annotation.and_then(|text| serde_json::from_slice(text.as_bytes()).ok()).unwrap_or_default();
    let labels: BTreeMap<String, String> = segments(info)
        .into_iter()
        .filter(|(key, value)| node.metadata.labels.as_ref().and_then(|l| l.get(key)) != Some(value))
        .into_map();
    let is_new = ids.insert(driver.to_owned(), info.node_id.clone()).as_ref() != Some(&info.node_id);
    if !is_new && labels.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"annotations": {NODE_IDS: json!(ids).to_string()}, "labels": labels}}))
}

fn text(error: &Error) -> String {
    rubelet_host::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_patched_with_what_it_lacks() {
        let info = NodeFacts { node_id: "here".into(), max_volumes_per_node: 5, ..NodeFacts::default() };
        let mut node = v1::Node::default();
        let patch = node_patch(&node, "d", &info).expect("a patch");
        assert_eq!(patch["metadata"]["annotations"][NODE_IDS], "{\"d\":\"here\"}");
        node.metadata.annotations = Some([(NODE_IDS.to_owned(), "{\"d\":\"here\",\"e\":\"x\"}".to_owned())].into());
        assert_eq!(node_patch(&node, "d", &info), None);
        let moved = NodeFacts { node_id: "there".into(), ..info.clone() };
        let patch = node_patch(&node, "d", &moved).expect("a patch");
        assert_eq!(patch["metadata"]["annotations"][NODE_IDS], "{\"d\":\"there\",\"e\":\"x\"}");
        assert_eq!(entry("d", &info).allocatable.and_then(|a| a.count), Some(5));
        assert_eq!(entry("d", &NodeFacts { max_volumes_per_node: 0, ..info }).allocatable, None);
    }
}
