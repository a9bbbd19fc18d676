//! Names that no two have.

use std::sync::Arc;

use rubelet_proto::cri;

use super::checks::{ensure, refused};
use super::{Bench, Result, suite};

suite! {
    "no two sandboxes have one name and attempt" => sandboxes;
    "no two containers of a pod have one name and attempt" => containers;
    "a sandbox needs a name" [Processes] => nameless;
}

async fn sandboxes(bench: Arc<Bench>) -> Result {
    let first = bench.pod().await?;
    let error =
        refused("a second one of the same name", bench.runtime().run_pod_sandbox(first.config.clone(), "").await)?;
    ensure(error.message().contains("reserve"), || format!("the reason is not told: {error}"))?;

    bench.runtime().stop_pod_sandbox(&first.id).await?;
    let again = bench.runtime().run_pod_sandbox(first.config.clone(), "").await;
    refused("a second one while the first is stopped", again)?;

    let mut next = first.config.clone();
    next.metadata.get_or_insert_default().attempt = 1;
    let second = bench.run(next).await?;
    ensure(second.id != first.id, || "both have one id".to_owned())?;

    bench.runtime().remove_pod_sandbox(&first.id).await?;
    bench.run(first.config.clone()).await.map(drop)
}

async fn containers(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let config = pod.container("a", &["true"]);
    let first = pod.create(config.clone()).await?;
    let again = bench.runtime().create_container(&pod.id, config.clone(), pod.config.clone()).await;
    let error = refused("a second one of the same name", again)?;
    ensure(error.message().contains("reserve"), || format!("the reason is not told: {error}"))?;

    let metadata = Some(cri::ContainerMetadata { name: "a".to_owned(), attempt: 1 });
    let second = pod.create(cri::ContainerConfig { metadata, ..config.clone() }).await?;
    ensure(second != first, || "both have one id".to_owned())?;

    bench.runtime().remove_container(&first).await?;
    pod.create(config.clone()).await?;

    let other = bench.pod().await?;
    other.create(config).await.map(drop)
}

async fn nameless(bench: Arc<Bench>) -> Result {
    let config = cri::PodSandboxConfig { metadata: None, ..bench.pod_config()? };
    let answer = bench.runtime().run_pod_sandbox(config, "").await;
    if let Ok(id) = &answer {
        bench.note(id.clone());
    }
    refused("a sandbox without a name", answer).map(drop)
}
