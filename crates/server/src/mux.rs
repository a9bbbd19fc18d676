//! Which paths there are at all, before anyone is asked who they are: kubelet 1.36 answers 404 for others, and sends
//! those who ask for an unclean path to the clean one, whoever they are.

use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};

use crate::respond::{self, Reply};
use crate::routes::Site;

#[cfg(test)]
mod tests;

/// What both big servers have, whatever is configured. With `/` at the end: all below.
const COMMON: [&str; 12] = [
    "/healthz",
    "/healthz/ping",
    "/healthz/log",
    "/healthz/syncloop",
    "/healthz/device-plugin",
    "/metrics",
    "/metrics/slis",
    "/metrics/cadvisor",
    "/metrics/resource",
    "/metrics/probes",
    "/pods",
    "/pods/",
];
/// With `enableDebuggingHandlers`.
const DEBUGGING: [&str; 19] = [
    "/stats/",
    "/run",
    "/run/",
    "/exec",
    "/exec/",
    "/attach",
    "/attach/",
    "/portForward",
    "/portForward/",
    "/containerLogs",
    "/containerLogs/",
    "/runningpods/",
    "/checkpoint/",
    "/logs/",
    "/debug/pprof/",
    "/debug/flags/v",
    "/configz",
    "/flagz",
    "/statusz",
];
/// Without, and on the read-only port.
const NO_DEBUGGING: [&str; 9] = [
    "/stats/",
    "/run/",
    "/exec/",
    "/attach/",
    "/portForward/",
    "/containerLogs/",
    "/runningpods/",
    "/logs/",
    "/debug/pprof/",
];

/// The path, decoded, of a request that someone answers. The request's own path is made plain: no letter or digit in
/// it is percent-encoded any more.
///
/// # Errors
/// The answer: there is nothing, it is elsewhere, or that is no path.
pub(crate) fn find<B>(site: Site, request: &mut Request<B>) -> Result<String, Box<Response<Reply>>> {
    let path = request.uri().path();
    let bad = || Box::new(respond::text(StatusCode::BAD_REQUEST, "400 Bad Request"));
    if !path.starts_with('/') {
        return Err(bad());
    }
    let decoded = decode(path).ok_or_else(bad)?;
    let clean = clean(path);
    let is_known = |path: &str| is_known(site, path);
    if !is_known(&clean) && !clean.ends_with('/') && is_known(&format!("{clean}/")) {
        return Err(Box::new(elsewhere(request, format!("{clean}/"))));
    }
    if clean != path {
        return Err(Box::new(elsewhere(request, clean)));
    }
    if !is_known(path) {
        return Err(Box::new(respond::not_found()));
    }
    if let Some(plain) = plain(path) {
        let plain = request.uri().query().map_or(plain.clone(), |query| format!("{plain}?{query}"));
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(plain).map_err(|_| bad())?);
        *request.uri_mut() = http::Uri::from_parts(parts).map_err(|_| bad())?;
    }
    Ok(decoded)
}

fn is_known(site: Site, path: &str) -> bool {
    let more: &[&str] = match site {
        Site::Health => return true,
        Site::Full { has_debugging: true } => &DEBUGGING,
        Site::Full { has_debugging: false } | Site::ReadOnly => &NO_DEBUGGING,
    };
    COMMON.iter().chain(more).any(|pattern| is_at(path, pattern))
}

/// Whether the path is the pattern, each segment decoded on its own, or below it if it ends with a slash.
fn is_at(path: &str, pattern: &str) -> bool {
    let mut segments = path.split('/');
    let is_below = pattern.ends_with('/');
    let is_same = pattern
        .trim_end_matches('/')
        .split('/')
        .all(|wanted| segments.next().and_then(decode).is_some_and(|segment| segment == wanted));
    is_same && segments.next().is_some() == is_below
}

/// Without double slashes and dots, as Go's `path.Clean`, but that a slash at the end stays.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let has_end = !kept.is_empty() && path.ends_with('/');
    format!("/{}{}", kept.join("/"), if has_end { "/" } else { "" })
}

/// Percent-encoding undone; what is no text then is replaced, as no path of ours has such. `None`: malformed.
pub(crate) fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            bytes.push(hex(digits)?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

/// With letters and digits as themselves; `None` when they are already.
fn plain(path: &str) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    let mut is_changed = false;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let code = rest.as_bytes()[at + 1..].first_chunk::<2>().and_then(hex).map(char::from);
        match code.filter(char::is_ascii_alphanumeric) {
            Some(letter) => {
                plain.push(letter);
                is_changed = true;
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    is_changed.then_some(plain)
}

/// kubelet 1.36 (Go 1.26): 307, with a page for those who read.
fn elsewhere<B>(request: &Request<B>, path: String) -> Response<Reply> {
    let target = request.uri().query().map_or(path.clone(), |query| format!("{path}?{query}"));
    let (method, escaped) = (request.method(), escape(&target));
    let page = match *method {
        Method::GET => format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n"),
        _ => String::new(),
    };
    let mut response = respond::text(StatusCode::TEMPORARY_REDIRECT, page);
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    if matches!(*method, Method::GET | Method::HEAD) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    // It was part of a URI: it is one.
    if let Ok(target) = HeaderValue::from_str(&target) {
        headers.insert(LOCATION, target);
    }
    response
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}
