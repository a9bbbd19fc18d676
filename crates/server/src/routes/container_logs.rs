//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use rubelet_api::ids::ContainerId;
use rubelet_api::v1;
use rubelet_proto::cri::ContainerState;
use tokio::sync::mpsc;

use super::{Question, segments};
use crate::View;
use crate::logs::{self, LogOptions, OptionsError, moment_of};
use crate::query::Query;
use crate::respond::{self, Reply, Sent};
use crate::view::Desk;

#[cfg(test)]
mod tests;

/// Lines of a container's log.
pub(super) async fn answer(desk: &Desk, question: &Question) -> Response<Reply> {
    let Some([namespace, pod, container]) = segments(question.uri().path()) else {
        return respond::no_route();
    };
    if question.method() != Method::GET {
        return respond::method_not_allowed("GET");
    }
    let view = &*desk.view;
    let query = Query::parse(question.uri().query().unwrap_or_default());
    let begun = match begin(view, &namespace, &pod, &container, query) {
        Ok(begun) => begun,
        Err(Refusal::Asked(status, why)) => return respond::text(status, why),
        // kubelet 1.36: does not say what it is, like the log itself.
        Err(Refusal::NoLog(why)) => {
            let mut response = Response::new(respond::whole(why));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
    };
    let lane = desk.lanes.take(begun.options.follow);
    let (sender, receiver) = mpsc::channel(lane.pieces());
    let (view, bells) = (desk.view.clone(), desk.bells.clone());
    let now = moment_of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    rubelet_host::task::spawn(async move {
        let Begun { options, shown_id, key: (namespace, pod) } = begun;
        let id = bare_id(&shown_id);
        let outcome = match log_path(&*view, &id, &shown_id).await {
            Ok(path) => {
                let is_running = || is_running(&*view, &id, &namespace, &pod);
                let read = logs::read(options.reading(path, now), &bells, is_running, &sender).await;
                read.map_err(|error| error.to_string())
            }
            Err(why) => Err(why),
        };
        if let Err(why) = outcome {
            // kubelet 1.36: the answer has begun, so what went wrong ends it. Nobody may be there to read it.
            let _ = sender.send(Bytes::from(why)).await;
        }
        drop(lane);
    });
    Response::new(Reply::Stream(Box::pin(Sent(receiver))))
}

/// What is asked for exists.
#[derive(Debug)]
struct Begun {
    options: LogOptions,
    /// With `containerd://` or the like.
    shown_id: String,
    /// Namespace and name of the pod.
    key: (String, String),
}

/// Why there is nothing to show.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// It cannot be asked so, or there is no such container.
    Asked(StatusCode, String),
    /// The container has no log.
    NoLog(String),
}

/// Checks in kubelet 1.36's order, in its words.
fn begin(view: &dyn View, namespace: &str, name: &str, container: &str, query: Query) -> Result<Begun, Refusal> {
    let options = LogOptions::parse(query).map_err(|error| {
        let status = match error {
            OptionsError::Undecodable => StatusCode::BAD_REQUEST,
            OptionsError::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal::Asked(status, error.to_string())
    })?;
    let Some(pod) = view.pod(namespace, name) else {
        return Err(Refusal::Asked(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist")));
    };
    if !has_container(&pod, container) {
        return Err(Refusal::Asked(
            StatusCode::NOT_FOUND,
            format!("container {container:?} not found in pod {name:?}"),
        ));
    }
    if let Some(stream) = options.stream.as_deref().filter(|stream| *stream != "All")
        && !view.premises().switches.splits_log_streams
    {
        let why = format!(
            "unable to return the given log stream: {stream:?}. Please enable PodLogsQuerySplitStreams feature gate in kubelet"
        );
        return Err(Refusal::Asked(StatusCode::BAD_REQUEST, why));
    }
    let shown_id = container_id(&pod, name, container, options.previous).map_err(Refusal::NoLog)?;
    Ok(Begun { options, shown_id, key: (namespace.to_owned(), name.to_owned()) })
}

pub(super) fn has_container(pod: &v1::Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
    let init = spec.init_containers.iter().flatten().map(|container| &container.name);
    spec.containers.iter().map(|container| &container.name).chain(init).chain(ephemeral).any(|known| known == name)
}

/// Which of a container's lives to show, by the pod's status (kubelet 1.36: the same words).
fn container_id(pod: &v1::Pod, pod_name: &str, name: &str, previous: bool) -> Result<String, String> {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    });
    let what = format!("container {name:?} in pod {pod_name:?}");
    let Some(status) = all.into_iter().find(|status| status.name == name) else {
        return Err(format!("{what} is not available"));
    };
    let some = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last_id = last.and_then(|last| some(&last.container_id));
    let state = status.state.clone().unwrap_or_default();
    let ended = || format!("{what} is terminated");
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated {what} not found"));
    }
    match (state.running, state.terminated, last, state.waiting) {
        (Some(_), _, _, _) => Ok(some(&status.container_id).unwrap_or_default()),
        (None, Some(terminated), _, _) => some(&terminated.container_id).or(last_id).ok_or_else(ended),
        (None, None, Some(_), _) => last_id.ok_or_else(ended),
        (None, None, None, Some(waiting)) => {
            let why = match waiting.reason.as_deref().unwrap_or_default() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                reason => reason,
            };
            Err(format!("{what} is waiting to start: {why}"))
        }
        (None, None, None, None) => Err(format!("{what} is waiting to start - no logs yet")),
    }
}

/// Without `containerd://` or the like.
fn bare_id(shown: &str) -> ContainerId {
    ContainerId::new(shown.split_once("://").map_or(shown, |(_, id)| id))
}

async fn log_path(view: &dyn View, id: &ContainerId, shown_id: &str) -> Result<PathBuf, String> {
    let answer = view.runtime().container_status(id, false).await.map_err(|error| {
        tracing::debug!(%error, container = shown_id, "container of a log is not known to the runtime");
        format!("unable to retrieve container logs for {shown_id}")
    })?;
    answer.status.map(|status| PathBuf::from(status.log_path)).ok_or_else(|| "container status is nil".to_owned())
}

/// Whether a container may still write. What is shown of it is enough while that says so; else the runtime knows.
async fn is_running(view: &dyn View, id: &ContainerId, namespace: &str, pod: &str) -> bool {
    if let Some(pod) = view.pod(namespace, pod)
        && let Some(status) = &pod.status
    {
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        let is_it = |status: &v1::ContainerStatus| {
            let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
            is_running && status.container_id.as_deref().is_some_and(|shown| bare_id(shown) == *id)
        };
        if lists.into_iter().flatten().flatten().any(is_it) {
            return true;
        }
    }
    match view.runtime().container_status(id, false).await {
        Ok(answer) => answer.status.is_some_and(|status| status.state() == ContainerState::ContainerRunning),
        // kubelet 1.36: most runtimes' containers run on without them.
        Err(error) => error.is_unavailable(),
    }
}
