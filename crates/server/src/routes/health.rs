//! `/healthz` and its checks.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::Asked;
use crate::View;
use crate::metrics::HttpCounts;
use crate::respond::{self, Reply};

/// A check's name and what came of it.
type Check = (&'static str, Result<(), String>);

/// The health server: it answers, so it lives.
pub(super) fn ping_only(asked: Asked<'_>) -> Response<Reply> {
    answer(&[("ping", Ok(()))], asked, None)
}

/// The checks of the big servers (kubelet 1.36: these names, in this order).
pub(super) fn all(view: &dyn View, asked: Asked<'_>) -> Response<Reply> {
    let checks =
        [("ping", Ok(())), ("log", Ok(())), ("syncloop", view.sync_loop()), ("device-plugin", view.device_plugins())];
    answer(&checks, asked, Some(view.http()))
}

/// kubelet 1.36: whatever the method is.
fn answer(checks: &[Check], asked: Asked<'_>, counts: Option<&Arc<HttpCounts>>) -> Response<Reply> {
    let wanted = asked.path.strip_prefix("/healthz").and_then(|rest| match rest {
        "" => Some(None),
        rest => rest.strip_prefix('/').and_then(|name| checks.iter().find(|(known, _)| *known == name)).map(Some),
    });
    let Some(wanted) = wanted else {
        return respond::not_found();
    };
    let is_asked = |name: &str| wanted.is_none_or(|(wanted, _)| *wanted == name);
    for (name, outcome) in checks.iter().filter(|(name, _)| is_asked(name)) {
        if let Some(counts) = counts {
            counts.checked(name, outcome.is_ok());
        }
    }
    match wanted {
        None => together(checks, asked.query),
        Some((_, Ok(()))) => respond::plain_text(StatusCode::OK, "ok"),
        Some((_, Err(why))) => {
            respond::plain_text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
        }
    }
}

/// All checks but the excluded ones.
fn together(checks: &[Check], query: &str) -> Response<Reply> {
    let parameters = || query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
    let excluded: Vec<&str> = parameters().filter(|(name, _)| *name == "exclude").map(|(_, value)| value).collect();
    let is_verbose = parameters().any(|(name, _)| name == "verbose");

    let mut report = String::new();
    let mut has_failed = false;
    for (name, outcome) in checks {
        let line = match outcome {
            _ if excluded.contains(name) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(_) => {
                has_failed = true;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
        report.push_str(&line);
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|(known, _)| known == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let line = format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", "));
        report.push_str(&line);
    }
    match (has_failed, is_verbose) {
        (true, _) => respond::plain_text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}healthz check failed\n")),
        (false, true) => respond::plain_text(StatusCode::OK, format!("{report}healthz check passed\n")),
        (false, false) => respond::plain_text(StatusCode::OK, "ok"),
    }
}
