//! The API server, where the node has one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rubelet_agent::cluster::{Cluster, PodSettings};
use rubelet_agent::references::{ReferenceSettings, Strategy};
use rubelet_apiserver::{Client, Rate, Settings};
use rubelet_host::chain;

use crate::assemble::Assembled;
use crate::version::GIT_VERSION;

/// A client by `--kubeconfig`; `None` on a node of its own. Nothing is asked yet.
///
/// # Errors
/// What is wrong with the file, in words.
pub(super) fn client(assembled: &Assembled) -> Result<Option<Client>, String> {
    let Some(path) = &assembled.flags.kubeconfig else { return Ok(None) };
    let failed = |why: String| format!("invalid kubeconfig: {why}");
    let node = &assembled.config.node;
    let settings = Settings {
        rate: Rate::of_configuration(node.kube_api_qps, node.kube_api_burst),
        user_agent: format!("kubelet/{GIT_VERSION} (linux/{})", architecture()),
        ..Settings::from_kubeconfig(path).map_err(|error| failed(chain(&error)))?
    };
    Client::connect(settings).map(Some).map_err(failed)
}

/// What the agent's tasks are told of the API server; `None` on a node of its own.
pub(super) fn cluster(assembled: &Assembled, client: Option<&Client>) -> Option<Cluster> {
    let client = client?;
    let config = &assembled.config;
    let mut hasher = DefaultHasher::new();
    assembled.node_name.hash(&mut hasher);
    let seed = hasher.finish();
    let references = ReferenceSettings {
        client: client.clone(),
        strategy: Strategy::of(&config.pods.change_detection),
        period: config.pods.sync_frequency.to_std(),
        seed,
    };
    Some(Cluster { references, pods: Some(PodSettings { client: client.clone(), seed }) })
}

/// In Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
