//! The CSINode: where the cluster learns which drivers are on the node. It is there before the node is ready.

use std::time::Duration;

use rubelet_api::groups::storage_v1::{CSINode, CSINodeSpec};
use rubelet_api::meta::{ObjectMeta, OwnerReference};
use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_apiserver::{Client, Error, Path};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Known, owner};

/// kubelet 1.36: why the node is not ready before.
pub(super) const UNKNOWN: &str = "CSINode is not yet initialized";

/// kubelet 1.36: the in-tree kinds of volumes that CSI drivers do the work of.
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
const MIGRATED_KINDS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,\
    kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";

/// kubelet 1.36: waits between attempts.
const GROWTH: Growth = Growth { first: Duration::from_millis(15), most: Duration::from_secs(20), jitter: 0.1 };

/// Makes it once, as soon as there is a Node that it can belong to.
pub(super) async fn run(
    client: Client,
    node: String,
    mut known: watch::Receiver<Known>,
    problem: watch::Sender<Option<String>>,
) {
    let mut backoff = Backoff::new(GROWTH, 0);
    let mut said = String::new();
    loop {
        let Some(owner) = owner(&mut known).await else { return };
        match ensure(&client, &node, &owner).await {
            Ok(()) => {
                problem.send_replace(None);
                return;
            }
            Err(error) => {
                let text = rubelet_host::chain(&error);
                if said != text {
                    tracing::warn!(node, err = text, "making the CSINode failed, trying again");
                    said = text;
                }
            }
        }
        sleep(backoff.fail()).await;
    }
}

async fn ensure(client: &Client, node: &str, owner: &str) -> Result<(), Error> {
    match client.get::<CSINode>(&Path::to_cluster::<CSINode>(node)).await {
        Ok(known) => {
            let has_kinds = |known: &CSINode| known.metadata.annotations.as_ref()?.get(MIGRATED).cloned();
            if has_kinds(&known).as_deref() == Some(MIGRATED_KINDS) {
                return Ok(());
            }
            let mut new = known;
            new.metadata.annotations.get_or_insert_default().insert(MIGRATED.to_owned(), MIGRATED_KINDS.to_owned());
            client.update(&Path::to_cluster::<CSINode>(node), &new).await.map(drop)
        }
        Err(error) if error.is_not_found() => {
            match client.create(&Path::all::<CSINode>(), &new(node, owner)).await {
                Ok(_) => Ok(()),
                // A driver was quicker.
                Err(error) if error.is_already_exists() => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// It goes with its Node.
fn new(node: &str, owner: &str) -> CSINode {
    CSINode {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            annotations: Some([(MIGRATED.to_owned(), MIGRATED_KINDS.to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid: owner.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec::default(),
    }
}
