//! What connects a client with a container: `/exec`, `/attach`, `/run`, `/portForward`; and what runs at all.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use rubelet_api::v1;
use rubelet_cri::{Code, RuntimeError};
use rubelet_proto::cri;
use rubelet_streaming::client::{ConnectError, Wanted};
use rubelet_streaming::spdy::Options;
use rubelet_streaming::{Body as StreamBody, proxy, translate};

use super::{Question, segments};
use crate::View;
use crate::query::Query;
use crate::respond::{self, Reply};
use crate::running;

#[cfg(test)]
mod tests;

/// Which container, or pod, is meant.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    namespace: String,
    pod: String,
    uid: String,
    /// Empty for a pod.
    container: String,
}

impl Place {
    /// `/{namespace}/{pod}/{container}` or `/{namespace}/{pod}/{uid}/{container}` after the first segment.
    fn of_container(path: &str) -> Option<Self> {
        if let Some([namespace, pod, container]) = segments(path) {
            return Some(Self { namespace, pod, uid: String::new(), container });
        }
        let [namespace, pod, uid, container] = segments(path)?;
        Some(Self { namespace, pod, uid, container })
    }

    /// `/{namespace}/{pod}` or `/{namespace}/{pod}/{uid}`.
    fn of_pod(path: &str) -> Option<Self> {
        if let Some([namespace, pod]) = segments(path) {
            return Some(Self { namespace, pod, uid: String::new(), container: String::new() });
        }
        let [namespace, pod, uid] = segments(path)?;
        Some(Self { namespace, pod, uid, container: String::new() })
    }

    /// The pod's name as kubelet 1.36 tells it.
    fn full_name(&self) -> String {
        format!("{}_{}", self.pod, self.namespace)
    }
}

/// What went wrong before a stream.
#[derive(Debug)]
enum Refusal {
    /// A status and what to say.
    Said(StatusCode, String),
    Runtime(RuntimeError),
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

impl From<Refusal> for Response<Reply> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Said(status, why) => respond::text(status, why),
            Refusal::Runtime(error) => runtime_refusal(&error),
        }
    }
}

/// kubelet 1.36: what a runtime's refusal is in HTTP.
fn runtime_refusal(error: &RuntimeError) -> Response<Reply> {
    let status = match error.code() {
        Some(Code::NotFound) => StatusCode::NOT_FOUND,
        Some(Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = respond::text(status, error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

fn no_pod() -> Refusal {
    Refusal::Said(StatusCode::NOT_FOUND, "pod does not exist".to_owned())
}

fn failed(why: impl Into<String>) -> Refusal {
    Refusal::Said(StatusCode::INTERNAL_SERVER_ERROR, why.into())
}

/// Which streams a client wants of a process.
fn streams(query: &Query) -> Result<(Wanted, bool), Refusal> {
    let is_on = |name: &str| query.first(name) == Some("1");
    let is_tty = is_on("tty");
    // kubelet 1.36: a terminal has no stream of its own for errors.
    let wanted =
        Wanted { stdin: is_on("input"), stdout: is_on("output"), stderr: is_on("error") && !is_tty, resize: is_tty };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Refusal::Said(StatusCode::BAD_REQUEST, why.to_owned()));
    }
    Ok((wanted, is_tty))
}

/// `/exec/…`: a command in a container.
pub(super) async fn exec(view: &dyn View, question: Question) -> Response<Reply> {
    let Some(place) = Place::of_container(question.uri().path()) else { return respond::no_route() };
    if let Some(refused) = refuse_method(question.method()) {
        return refused;
    }
    match exec_url(view, &place, &query(&question)).await {
        Ok((wanted, url)) => process(view, question, wanted, url, "exec").await,
        Err(refusal) => refusal.into(),
    }
}

async fn exec_url(view: &dyn View, place: &Place, query: &Query) -> Result<(Wanted, String), Refusal> {
    let (wanted, tty) = streams(query)?;
    view.pod(&place.namespace, &place.pod).ok_or_else(no_pod)?;
    let runtime = view.runtime();
    let id = container(view, place).await?;
    let id = id.ok_or_else(|| failed(format!("container not found ({:?})", place.container)))?;
    let url = runtime
        .exec(cri::ExecRequest {
            container_id: id.as_str().to_owned(),
            cmd: query.values("command").map(str::to_owned).collect(),
            tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        })
        .await?;
    Ok((wanted, url))
}

/// `/attach/…`: the streams of a container's first process.
pub(super) async fn attach(view: &dyn View, question: Question) -> Response<Reply> {
    let Some(place) = Place::of_container(question.uri().path()) else { return respond::no_route() };
    if let Some(refused) = refuse_method(question.method()) {
        return refused;
    }
    match attach_url(view, &place, &query(&question)).await {
        Ok((wanted, url)) => process(view, question, wanted, url, "attach").await,
        Err(refusal) => refusal.into(),
    }
}

async fn attach_url(view: &dyn View, place: &Place, query: &Query) -> Result<(Wanted, String), Refusal> {
    let (wanted, _) = streams(query)?;
    let pod = view.pod(&place.namespace, &place.pod).ok_or_else(no_pod)?;
    let runtime = view.runtime();
    let missing = || failed(format!("container {} not found in pod {}", place.container, place.full_name()));
    let id = container(view, place).await?.ok_or_else(missing)?;
    if !place.uid.is_empty() && pod.metadata.uid.as_deref() != Some(&place.uid) {
        return Err(failed(format!("pod {} not found", place.full_name())));
    }
    // kubelet 1.36: whether there is a terminal was settled when the container was made.
    let tty = has_tty(&pod, &place.container).ok_or_else(missing)?;
    let url = runtime
        .attach(cri::AttachRequest {
            container_id: id.as_str().to_owned(),
            tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        })
        .await?;
    Ok((wanted, url))
}

fn has_tty(pod: &v1::Pod, name: &str) -> Option<bool> {
    let spec = pod.spec.as_ref()?;
    let mut plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if let Some(container) = plain.find(|container| container.name == name) {
        return Some(container.tty.unwrap_or_default());
    }
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    ephemeral.find(|container| container.name == name).map(|container| container.tty.unwrap_or_default())
}

async fn container(view: &dyn View, place: &Place) -> Result<Option<rubelet_api::ids::ContainerId>, Refusal> {
    let pod = running::running_pod(&*view.runtime(), &place.namespace, &place.pod).await?;
    Ok(pod.and_then(|pod| pod.container(&place.container).map(|container| container.id.clone())))
}

/// `/run/…`: a command in a container; what it writes is the answer.
pub(super) async fn run(view: &dyn View, question: &Question) -> Response<Reply> {
    let Some(place) = Place::of_container(question.uri().path()) else { return respond::no_route() };
    if question.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    // kubelet 1.36: words of the command are what stands between spaces.
    let command = query(question).first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    match run_command(view, &place, command).await {
        Ok(output) if output.is_empty() => {
            let mut response = respond::text(StatusCode::OK, "");
            response.headers_mut().remove(http::header::CONTENT_TYPE);
            response
        }
        Ok(output) => respond::answer(StatusCode::OK, respond::JSON, Reply::Whole(Some(output.into()))),
        Err(Refusal::Runtime(error)) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(refusal) => refusal.into(),
    }
}

async fn run_command(view: &dyn View, place: &Place, command: Vec<String>) -> Result<Vec<u8>, Refusal> {
    view.pod(&place.namespace, &place.pod).ok_or_else(no_pod)?;
    let id = container(view, place).await?;
    let id = id.ok_or_else(|| failed(format!("container not found ({:?})", place.container)))?;
    let shown = command.join(" ");
    let answer = view.runtime().exec_sync(&id, command, Duration::ZERO).await?;
    if answer.exit_code != 0 {
        let stderr = String::from_utf8_lossy(&answer.stderr);
        return Err(failed(format!("command '{shown}' exited with {}: {stderr}", answer.exit_code)));
    }
    Ok([answer.stdout, answer.stderr].concat())
}

/// `/portForward/…`: connections to ports of a pod.
pub(super) async fn port_forward(view: &dyn View, question: Question) -> Response<Reply> {
    let Some(place) = Place::of_pod(question.uri().path()) else { return respond::no_route() };
    if let Some(refused) = refuse_method(question.method()) {
        return refused;
    }
    let is_tunnel = view.premises().switches.translates_web_sockets && translate::is_port_forward(question.headers());
    let url = match port_forward_url(view, &place, &question, is_tunnel).await {
        Ok(url) => url,
        Err(refusal) => return refusal.into(),
    };
    match upgrading(question, &url) {
        Err(answer) => *answer,
        Ok((request, target)) if is_tunnel => {
            view.http().websocket("portforward");
            answered(translate::port_forward(request, &target, Options::default()).await)
        }
        Ok((request, target)) => answered(proxy::forward(request, &target).await),
    }
}

async fn port_forward_url(
    view: &dyn View,
    place: &Place,
    question: &Question,
    is_tunnel: bool,
) -> Result<String, Refusal> {
    let port = if is_tunnel || !is_web_socket(question.headers()) { Vec::new() } else { ports(&query(question))? };
    let pod = view.pod(&place.namespace, &place.pod).ok_or_else(no_pod)?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if !place.uid.is_empty() && place.uid != uid {
        return Err(Refusal::Said(StatusCode::NOT_FOUND, "pod not found".to_owned()));
    }
    let runtime = view.runtime();
    let running = running::running_pod(&*runtime, &place.namespace, &place.pod).await?;
    let running = running.ok_or_else(|| failed(format!("pod not found ({:?})", place.full_name())))?;
    let described = format!("{}({uid})", place.full_name());
    let sandbox = running.sandboxes.first();
    let sandbox = sandbox.ok_or_else(|| failed(format!("failed to find sandboxID for pod {described}")))?;
    let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.as_str().to_owned(), port };
    Ok(runtime.port_forward(request).await?)
}

/// The ports that an older WebSocket client names.
fn ports(query: &Query) -> Result<Vec<i32>, Refusal> {
    let bad = |why: String| Refusal::Said(StatusCode::BAD_REQUEST, why);
    let mut ports = Vec::new();
    let mut is_named = false;
    for text in query.values("port") {
        is_named = true;
        if text.is_empty() {
            return Err(bad("query parameter \"port\" cannot be empty".to_owned()));
        }
        for one in text.split(',') {
            match go_port(one) {
                Ok(0) => return Err(bad(format!("port {text:?} must be > 0"))),
                Ok(port) => ports.push(i32::from(port)),
                Err(why) => return Err(bad(format!("unable to parse {text:?} as a port: {why}"))),
            }
        }
    }
    if is_named { Ok(ports) } else { Err(bad("query parameter \"port\" is required".to_owned())) }
}

/// As Go's `strconv.ParseUint`, with its words.
fn go_port(text: &str) -> Result<u16, String> {
    let problem = if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse() {
            Ok(port) => return Ok(port),
            Err(_) => "value out of range",
        }
    };
    Err(format!("strconv.ParseUint: parsing {text:?}: {problem}"))
}

/// `/runningpods/`: what runs, by the runtime's word.
pub(super) async fn running_pods(view: &dyn View, question: &Question) -> Response<Reply> {
    if question.uri().path() != "/runningpods/" {
        return respond::no_route();
    }
    if question.method() != Method::GET {
        return respond::method_not_allowed("GET");
    }
    if !respond::takes_json(question.headers()) {
        return respond::not_acceptable();
    }
    match running::running_pods(&*view.runtime()).await {
        Ok(pods) => respond::pods(pods.iter().map(|pod| Arc::new(pod.shown())).collect()),
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn query(question: &Question) -> Query {
    Query::parse(question.uri().query().unwrap_or_default())
}

fn refuse_method(method: &Method) -> Option<Response<Reply>> {
    (method != Method::GET && method != Method::POST).then(|| respond::method_not_allowed("GET, POST"))
}

/// Joins the client with a process behind the runtime's URL.
async fn process(
    view: &dyn View,
    question: Question,
    wanted: Wanted,
    url: String,
    subresource: &str,
) -> Response<Reply> {
    let is_translated =
        view.premises().switches.translates_web_sockets && translate::is_remote_command(question.headers());
    match upgrading(question, &url) {
        Err(answer) => *answer,
        Ok((request, target)) if is_translated => {
            view.http().websocket(subresource);
            streamed(translate::remote_command(request, target, wanted, Options::default()))
        }
        Ok((request, target)) => answered(proxy::forward(request, &target).await),
    }
}

/// A request that wants its connection for something else, and where to.
fn upgrading(question: Question, url: &str) -> Result<(Request<Incoming>, Uri), Box<Response<Reply>>> {
    let internal = |why: &str| Box::new(respond::error(StatusCode::INTERNAL_SERVER_ERROR, why));
    if !is_upgrade(question.headers()) {
        // kubelet 1.36: with this status.
        return Err(internal("Upgrade request required"));
    }
    let target: Uri = url.parse().map_err(|_| internal(&format!("the runtime's URL {url:?} is none")))?;
    let (parts, body) = question.into_parts();
    // Only tests ask without a body, and not for an upgrade.
    let body = body.ok_or_else(|| internal("no body"))?;
    Ok((Request::from_parts(parts, body), target))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(http::header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

fn is_web_socket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(http::header::UPGRADE).and_then(|value| value.to_str().ok());
    is_upgrade(headers) && upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

fn answered(answer: Result<Response<StreamBody>, ConnectError>) -> Response<Reply> {
    match answer {
        Ok(response) => streamed(response),
        Err(error) => {
            let why = rubelet_host::chain(&error);
            tracing::error!(err = %why, "Error while proxying request");
            respond::error(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

fn streamed(response: Response<StreamBody>) -> Response<Reply> {
    use http_body_util::BodyExt as _;
    response.map(|body| Reply::Stream(Box::pin(body.map_err(|never| match never {}))))
}
