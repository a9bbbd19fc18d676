//! What the node is, in the runtime's own words.

use rubelet_core::node::{HandlerFacts, NodeFacts, RuntimeFacts};
use rubelet_cri::{Runtime, RuntimeError};
use rubelet_proto::cri;

/// Asks the runtime who it is and what it can.
///
/// # Errors
/// Its refusal, or an answer that is not CRI v1.
pub(crate) async fn learn_runtime(node: &mut NodeFacts, runtime: &dyn Runtime) -> Result<(), String> {
    let version = runtime.version().await.map_err(|e| format!("ask the runtime for its version: {e}"))?;
    let status = runtime.status(false).await.map_err(|e| format!("ask the runtime for its status: {e}"))?;
    node.runtime = RuntimeFacts {
        name: version.runtime_name,
        version: version.runtime_version,
        handlers: status.runtime_handlers.iter().map(|h| handler(h, node.settings.has_api_server)).collect(),
        has_supplemental_groups_policy: status.features.as_ref().is_some_and(|f| f.supplemental_groups_policy),
        problem: runtime_problem(&status),
        network_problem: network_problem(&status),
    };
    Ok(())
}

/// What keeps pods from running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    pub(crate) runtime: Option<String>,
    pub(crate) network: Option<String>,
}

/// The runtime's answer on itself and on the pod network.
///
/// # Errors
/// When the runtime does not answer.
pub(crate) async fn problems(runtime: &dyn Runtime) -> Result<Problems, RuntimeError> {
    let status = runtime.status(false).await?;
    Ok(Problems { runtime: runtime_problem(&status), network: network_problem(&status) })
}

/// Kubelet 1.36: without an API server there are no runtime classes, and mounts are not read-only recursively.
fn handler(handler: &cri::RuntimeHandler, has_api_server: bool) -> HandlerFacts {
    let features = handler.features.as_ref();
    HandlerFacts {
        name: handler.name.clone(),
        recursive_read_only_mounts: has_api_server && features.is_some_and(|f| f.recursive_read_only_mounts),
        user_namespaces: features.is_some_and(|f| f.user_namespaces),
    }
}

fn runtime_problem(status: &cri::StatusResponse) -> Option<String> {
    problem_in(status, "RuntimeReady").map(|text| format!("container runtime not ready: {text}"))
}

/// Kubelet 1.36: also the text of the event NetworkNotReady.
fn network_problem(status: &cri::StatusResponse) -> Option<String> {
    problem_in(status, "NetworkReady").map(|text| format!("container runtime network not ready: {text}"))
}

fn problem_in(status: &cri::StatusResponse, type_: &str) -> Option<String> {
    let conditions = status.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|c| c.r#type == type_)?;
    (!found.status).then(|| format!("{type_}=false reason:{} message:{}", found.reason, found.message))
}
