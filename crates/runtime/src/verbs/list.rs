//! Lists, by CRI's filters.

use std::collections::BTreeMap;

use rubelet_proto::cri::{self, ContainerState, PodSandboxState};

use super::status;
use crate::embedded::Engine;
use crate::pods::{Container, Sandbox};

pub(crate) fn sandboxes(engine: &Engine, filter: Option<&cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
    let id = filter.map(|f| f.id.as_str()).unwrap_or_default();
    let all = match id {
        "" => engine.pods().sandboxes(),
        id => engine.pods().sandbox(id).into_iter().collect(),
    };
    let state = filter.and_then(|f| f.state).map(|s| s.state);
    let items = all.iter().map(|one| sandbox(one));
    items
        .filter(|one| state.is_none_or(|state| one.state == state))
        .filter(|one| filter.is_none_or(|f| has(&one.labels, &f.label_selector)))
        .collect()
}

pub(crate) fn containers(engine: &Engine, filter: Option<&cri::ContainerFilter>) -> Vec<cri::Container> {
    let text = |of: fn(&cri::ContainerFilter) -> &str| filter.map(of).unwrap_or_default();
    let (id, sandbox) = (text(|f| &f.id), text(|f| &f.pod_sandbox_id));
    let pods = engine.pods();
    let sandbox = match sandbox {
        "" => None,
        id => Some(pods.sandbox(id).map(|s| s.id.clone())),
    };
    let all = match (id, &sandbox) {
        (_, Some(None)) => Vec::new(),
        ("", Some(Some(sandbox))) => pods.containers_of(sandbox),
        ("", None) => pods.containers(),
        (id, _) => pods.container(id).into_iter().collect(),
    };
    drop(pods);
    let state = filter.and_then(|f| f.state).map(|s| s.state);
    all.iter()
        .filter(|one| sandbox.as_ref().and_then(Option::as_ref).is_none_or(|wanted| one.sandbox == *wanted))
        .map(|one| container(one))
        .filter(|one| state.is_none_or(|state| one.state == state))
        .filter(|one| filter.is_none_or(|f| has(&one.labels, &f.label_selector)))
        .collect()
}

/// Whether all of `wanted` are among `labels`.
pub(crate) fn has(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sandbox(sandbox: &Sandbox) -> cri::PodSandbox {
    let state = status::sandbox_state(sandbox);
    let record = sandbox.record();
    let config = record.config.as_ref();
    cri::PodSandbox {
        id: record.id.clone(),
        metadata: config.and_then(|c| c.metadata.clone()),
        state: PodSandboxState::into(state),
        created_at: record.created_at_nanos,
        labels: config.map(|c| c.labels.clone()).unwrap_or_default(),
        annotations: config.map(|c| c.annotations.clone()).unwrap_or_default(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

fn container(container: &Container) -> cri::Container {
    let state = status::container_state(&container.life());
    let record = container.record();
    let config = record.config.as_ref();
    cri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: config.and_then(|c| c.metadata.clone()),
        image: config.and_then(|c| c.image.clone()),
        image_ref: record.image_id.clone(),
        state: ContainerState::into(state),
        created_at: record.created_at_nanos,
        labels: config.map(|c| c.labels.clone()).unwrap_or_default(),
        annotations: config.map(|c| c.annotations.clone()).unwrap_or_default(),
        image_id: record.image_id.clone(),
    }
}
