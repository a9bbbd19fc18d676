//! The API server, where the node has one.

use std::sync::Arc;

use rubelet_apiserver::{Client, ClientCounts, Rate, Settings};
use rubelet_host::chain;

use crate::assemble::Assembled;
use crate::version::GIT_VERSION;

/// A client by `--kubeconfig`; `None` on a node of its own. Nothing is asked yet.
///
/// # Errors
/// What is wrong with the file, in words.
pub(super) fn client(assembled: &Assembled, counts: &Arc<ClientCounts>) -> Result<Option<Client>, String> {
    let Some(path) = &assembled.flags.kubeconfig else { return Ok(None) };
    let failed = |why: String| format!("invalid kubeconfig: {why}");
    let node = &assembled.config.node;
    let settings = Settings {
        rate: Rate::of_configuration(node.kube_api_qps, node.kube_api_burst),
        counts: counts.clone(),
        user_agent: format!("kubelet/{GIT_VERSION} (linux/{})", architecture()),
        ..Settings::from_kubeconfig(path).map_err(|error| failed(chain(&error)))?
    };
    Client::connect(settings).map(Some).map_err(failed)
}

/// In Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
