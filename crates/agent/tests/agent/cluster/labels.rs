//! What the Node object says decides about pods.

use rubelet_api::v1;
use rubelet_apiserver::{Patch, Path};
use serde_json::json;

use super::Stage;

/// The pod may be heard of before the label is: the Node is read again before the pod is refused.
#[tokio::test]
async fn a_pod_that_wants_a_new_label_is_let_in_at_once() {
    let Some(stage) = Stage::set("labelled").await else { return };
    let agent = stage.world.registered(stage.node, &stage.client).await;
    agent.wants(Vec::new()).await;
    for round in ["1", "2", "3"] {
        let name = format!("wants-{round}");
        stage.end(&name).await;
        let label = Patch::Merge(json!({"metadata": {"labels": {"tier": round}}}));
        stage.client.patch::<v1::Node>(&Path::to_cluster::<v1::Node>(stage.node), &label).await.expect("a label");
        stage.make(&name, json!({"spec": {"nodeSelector": {"tier": round}}}), &["serve"]).await;
        stage.running(&name).await;
    }
    stage.make("wants-more", json!({"spec": {"nodeSelector": {"tier": "4"}}}), &["serve"]).await;
    let reason = |p: &v1::Pod| p.status.as_ref().and_then(|s| s.reason.clone());
    let is_refused = |p: &v1::Pod| reason(p).as_deref() == Some("NodeAffinity");
    stage.until("it is refused", "wants-more", |p| p.is_some_and(is_refused)).await;
    for name in ["wants-1", "wants-2", "wants-3", "wants-more"] {
        stage.end(name).await;
    }
    drop(agent);
    stage.close();
}
