//! Which path answers what. What is ready at once is answered first ([`common`], [`full`]); what takes its time
//! (streams, statistics) is asked for in [`respond`].

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::View;
use crate::respond::{self, Reply};

mod health;
mod metrics;
#[cfg(test)]
mod tests;

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
pub(crate) async fn respond(site: Site, view: Arc<dyn View>, question: Question) -> Response<Reply> {
    let uri = question.uri();
    let asked = Asked { method: question.method(), path: uri.path(), query: uri.query().unwrap_or_default() };
    if site != Site::Health
        && let Some(page) = metrics::page(asked)
    {
        return metrics::respond(view, asked.method, question.headers(), page).await;
    }
    let view = &*view;
    match site {
        Site::Health => health::ping_only(asked),
        Site::ReadOnly => common(view, asked).unwrap_or_else(|| match first_segment(asked.path) {
            segment @ "metrics" => not_built(segment),
            _ => respond::not_found(),
        }),
        Site::Full { has_debugging } => {
            common(view, asked).or_else(|| full(view, asked, has_debugging)).unwrap_or_else(respond::not_found)
        }
    }
}

/// What both big servers have.
fn common(view: &dyn View, asked: Asked<'_>) -> Option<Response<Reply>> {
    match asked.path {
        "/pods" | "/pods/" if asked.method == Method::GET => Some(respond::pods(view.pods())),
        "/pods" | "/pods/" => Some(respond::method_not_allowed("GET")),
        path if path.starts_with("/healthz") => Some(health::all(view, asked)),
        _ => None,
    }
}

/// What only the server with TLS has.
fn full(view: &dyn View, asked: Asked<'_>, has_debugging: bool) -> Option<Response<Reply>> {
    let segment = first_segment(asked.path);
    match segment {
        "run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "debug" | "logs"
            if !has_debugging =>
        {
            Some(respond::plain_text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n"))
        }
        // kubelet 1.36: without debugging these are absent.
        "configz" | "checkpoint" | "flagz" | "statusz" if !has_debugging => None,
        "configz" if asked.path == "/configz" => Some(configz(view, asked)),
        "run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "debug" | "logs"
        | "checkpoint" | "flagz" | "statusz" | "metrics" => Some(not_built(segment)),
        _ => None,
    }
}

fn configz(view: &dyn View, asked: Asked<'_>) -> Response<Reply> {
    if asked.method == Method::GET || asked.method == Method::HEAD {
        respond::json(&serde_json::json!({ "kubeletconfig": view.configz() }))
    } else {
        respond::method_not_allowed("GET, HEAD")
    }
}

/// A path that upstream has and we do not have yet: better a clear word than a 404.
fn not_built(segment: &str) -> Response<Reply> {
    respond::plain_text(StatusCode::NOT_IMPLEMENTED, format!("/{segment} is not built in rubelet yet\n"))
}

fn first_segment(path: &str) -> &str {
    path.strip_prefix('/').and_then(|rest| rest.split('/').next()).unwrap_or_default()
}
