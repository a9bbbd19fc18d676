//! Which path answers what. What is ready at once is answered first ([`common`]); then what takes its time.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::respond::{self, Reply};
use crate::view::Desk;
use crate::{View, mux};

mod checkpoint;
mod container_logs;
mod debug;
mod files;
mod health;
mod log_query;
mod metrics;
mod streams;
#[cfg(test)]
mod tests;
mod zpages;

/// Which of the three listeners was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Health,
    ReadOnly,
    /// With TLS. `has_debugging`: `enableDebuggingHandlers`.
    Full {
        has_debugging: bool,
    },
}

/// Of the request, what decides the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// Without the question mark; empty if there is none.
    pub(crate) query: &'a str,
}

/// A request; in tests without a body.
pub(crate) type Question = Request<Option<Incoming>>;

/// The answer at `site`.
pub(crate) async fn respond(site: Site, desk: Arc<Desk>, question: Question) -> Response<Reply> {
    let uri = question.uri();
    let asked = Asked { method: question.method(), path: uri.path(), query: uri.query().unwrap_or_default() };
    let view = &*desk.view;
    if site == Site::Health {
        return health::ping_only(asked);
    }
    if let Some(page) = metrics::page(asked) {
        return metrics::respond(desk.view.clone(), asked.method, question.headers(), page).await;
    }
    if let Some(answer) = common(view, asked, question.headers()) {
        return answer;
    }
    let segment = first_segment(asked.path).to_owned();
    match (site, segment.as_str()) {
        (Site::Full { has_debugging: true }, _) => full(&segment, &desk, question).await,
        // kubelet 1.36: the others are absent.
        (_, "run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "debug" | "logs") => {
            respond::plain_text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n")
        }
        (_, _) => respond::not_found(),
    }
}

/// What both big servers have.
fn common(view: &dyn View, asked: Asked<'_>, headers: &HeaderMap) -> Option<Response<Reply>> {
    match asked.path {
        "/pods" | "/pods/" if asked.method == Method::GET && !respond::takes_json(headers) => {
            Some(respond::not_acceptable())
        }
        "/pods" | "/pods/" if asked.method == Method::GET => Some(respond::pods(view.pods())),
        "/pods" | "/pods/" => Some(respond::method_not_allowed("GET")),
        path if path.starts_with("/pods/") || path.starts_with("/stats/") => Some(respond::no_route()),
        path if path.starts_with("/healthz") => Some(health::all(view, asked)),
        _ => None,
    }
}

/// What only the server with TLS has.
async fn full(segment: &str, desk: &Desk, question: Question) -> Response<Reply> {
    let view = &*desk.view;
    let switches = view.premises().switches;
    match segment {
        // kubelet 1.36: whatever the method is.
        "configz" => respond::json(&serde_json::json!({ "kubeletconfig": view.configz() })),
        "containerLogs" => container_logs::answer(desk, &question).await,
        "run" => streams::run(view, &question).await,
        "exec" => streams::exec(view, question).await,
        "attach" => streams::attach(view, question).await,
        "portForward" => streams::port_forward(view, question).await,
        "runningpods" => streams::running_pods(view, &question).await,
        "checkpoint" if switches.has_checkpoints => checkpoint::answer(view, &question).await,
        "logs" => files::answer(view, &question).await,
        "debug" => debug::answer(view, question).await,
        "flagz" if switches.has_flagz => zpages::flagz(view, question.headers()),
        "statusz" if switches.has_statusz => zpages::statusz(view, question.headers()),
        _ => respond::not_found(),
    }
}

fn first_segment(path: &str) -> &str {
    path.strip_prefix('/').and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// The decoded segments after the first, without a slash at the end; `None`: there are not so many.
fn segments<const N: usize>(path: &str) -> Option<[String; N]> {
    let decoded = mux::decode(path)?;
    let segments: Vec<String> = decoded.trim_matches('/').split('/').skip(1).map(str::to_owned).collect();
    segments.try_into().ok()
}
