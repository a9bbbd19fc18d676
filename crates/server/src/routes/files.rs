//! `/logs/`: the files below `/var/log`, as Go's file server shows them, but for two things: a link does not lead out of
//! there, and a file is never shown as a web page.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    LAST_MODIFIED, LOCATION, RANGE,
};
use http::{Method, Response, StatusCode};
use rubelet_host::paths::{PathError, open_file_beneath};
use tokio::sync::mpsc;

use super::{Question, log_query};
use crate::query::Query;
use crate::respond::{self, Reply, Sent};
use crate::{View, mux};

#[cfg(test)]
mod tests;

/// Bytes of a file that are read at once.
const PIECE: u64 = 128 << 10;
/// Names of a directory that are listed.
const NAMES_MAX: usize = 50_000;

/// A file, a directory, or what a query asks for.
pub(super) async fn answer(view: &dyn View, question: &Question) -> Response<Reply> {
    let premises = view.premises();
    if !premises.switches.has_system_logs {
        return respond::error(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.");
    }
    if question.method() != Method::GET {
        return respond::method_not_allowed("GET");
    }
    let below = question.uri().path().strip_prefix("/logs/").and_then(mux::decode);
    let Some(below) = below else { return respond::no_route() };
    let headers = question.headers();
    if premises.switches.has_system_log_query {
        let query = Query::parse(question.uri().query().unwrap_or_default());
        match log_query::answer(&premises.log_dir, &below, &query, headers).await {
            log_query::Outcome::Answer(answer) => return *answer,
            log_query::Outcome::File(name) => return show(&premises.log_dir, name, headers).await,
            log_query::Outcome::None => {}
        }
    }
    show(&premises.log_dir, below, headers).await
}

/// What is at a path.
enum Found {
    Dir { names: Vec<(Vec<u8>, bool)>, changed: Option<SystemTime> },
    File { file: File, len: u64, changed: Option<SystemTime>, content_type: &'static str },
}

/// Shows what is at `path` in `dir`.
pub(super) async fn show(dir: &Path, path: String, headers: &HeaderMap) -> Response<Reply> {
    if path == "index.html" || path.ends_with("/index.html") {
        return moved("./");
    }
    let (dir, relative) = (dir.to_owned(), relative(&path));
    let looked = rubelet_host::task::blocking(move || look(&dir, &relative)).await;
    let found = match looked {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return refused(&error),
        Err(_) => return respond::error(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error"),
    };
    let is_dir_path = path.is_empty() || path.ends_with('/');
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match found {
        Found::Dir { .. } if !is_dir_path => moved(&format!("{}/", escape_path(last.as_bytes()))),
        Found::Dir { names, changed } => {
            if is_unchanged(headers, changed) {
                return not_modified(changed);
            }
            let mut response =
                respond::answer(StatusCode::OK, "text/html; charset=utf-8", respond::whole(listing(&names)));
            stamp(&mut response, changed);
            response
        }
        Found::File { .. } if is_dir_path => moved(&format!("../{}", escape_path(last.as_bytes()))),
        Found::File { changed, .. } if is_unchanged(headers, changed) => not_modified(changed),
        Found::File { file, len, changed, content_type } => send(file, len, changed, content_type, headers),
    }
}

/// Without what would lead up: `..` at the top stays there.
fn relative(path: &str) -> PathBuf {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { PathBuf::from(".") } else { parts.iter().collect() }
}

fn look(dir: &Path, below: &Path) -> Result<Found, PathError> {
    let failed = |source| PathError::Open { path: dir.join(below), source };
    if below.as_os_str().as_bytes().contains(&0) {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let file = open_file_beneath(dir, below)?;
    let meta = file.metadata().map_err(failed)?;
    let changed = meta.modified().ok();
    if meta.is_dir() {
        // The directory itself, wherever its name leads by now.
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let mut names = Vec::new();
        for entry in fs::read_dir(own).map_err(failed)?.take(NAMES_MAX) {
            let entry = entry.map_err(failed)?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            names.push((entry.file_name().into_vec(), is_dir));
        }
        names.sort();
        return Ok(Found::Dir { names, changed });
    }
    if !meta.is_file() {
        // A pipe would be waited for.
        return Err(failed(io::ErrorKind::PermissionDenied.into()));
    }
    let mut start = [0; 512];
    let count = file.read_at(&mut start, 0).map_err(failed)?;
    Ok(Found::File { len: meta.len(), changed, content_type: content_type(&start[..count]), file })
}

/// Go's guess, without web pages and pictures.
fn content_type(start: &[u8]) -> &'static str {
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    match start {
        [0x1f, 0x8b, 0x08, ..] => "application/x-gzip",
        start if start.iter().any(is_binary) => "application/octet-stream",
        _ => respond::TEXT,
    }
}

fn refused(error: &PathError) -> Response<Reply> {
    let kind = match error {
        PathError::Open { source, .. } => source.kind(),
        PathError::Escapes { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    match kind {
        // Go says so, too, of what would be in a file.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => respond::not_found(),
        io::ErrorKind::PermissionDenied => respond::error(StatusCode::FORBIDDEN, "403 Forbidden"),
        _ => respond::error(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error"),
    }
}

fn moved(to: &str) -> Response<Reply> {
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    response.headers_mut().remove(CONTENT_TYPE);
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// Go's page of a directory.
fn listing(names: &[(Vec<u8>, bool)]) -> String {
    let mut page = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for (name, is_dir) in names {
        let mut name = name.clone();
        if *is_dir {
            name.push(b'/');
        }
        let shown = String::from_utf8_lossy(&name);
        page.push_str(&format!("<a href=\"{}\">{}</a>\n", escape_path(&name), escape_html(&shown)));
    }
    page.push_str("</pre>\n");
    page
}

/// A relative path as a URL, as Go writes it.
fn escape_path(name: &[u8]) -> String {
    // What stands before a colon would be taken for a scheme.
    let mut escaped = if name.contains(&b':') { "./".to_owned() } else { String::new() };
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn http_date(at: SystemTime) -> Option<String> {
    let at = jiff::Timestamp::try_from(at).ok()?;
    Some(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn stamp(response: &mut Response<Reply>, changed: Option<SystemTime>) {
    if let Some(date) = changed.and_then(http_date).and_then(|date| HeaderValue::from_str(&date).ok()) {
        response.headers_mut().insert(LAST_MODIFIED, date);
    }
}

/// The client has it as it is: to the second.
fn is_unchanged(headers: &HeaderMap, changed: Option<SystemTime>) -> bool {
    let since = headers.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let since = since.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()).map(|at| at.timestamp().as_second());
    let changed = changed.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.as_second());
    since.zip(changed).is_some_and(|(since, changed)| changed <= since)
}

fn not_modified(changed: Option<SystemTime>) -> Response<Reply> {
    let mut response = respond::text(StatusCode::NOT_MODIFIED, "");
    response.headers_mut().remove(CONTENT_TYPE);
    stamp(&mut response, changed);
    response
}

/// A file, or the part of it that is asked for.
fn send(
    file: File,
    len: u64,
    changed: Option<SystemTime>,
    content_type: &'static str,
    headers: &HeaderMap,
) -> Response<Reply> {
    let (from, to, is_part) = match part(headers, len) {
        Part::All => (0, len, false),
        Part::Bytes(from, to) => (from, to, true),
        Part::Unsatisfiable => {
            let mut response = respond::error(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap");
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{len}")) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            return response;
        }
    };
    let (sender, receiver) = mpsc::channel(1);
    rubelet_host::task::spawn(read(file, from, to, sender));
    let mut response = respond::stream(content_type, Sent(receiver));
    let values = response.headers_mut();
    values.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    values.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
    if is_part {
        if let Ok(range) = HeaderValue::from_str(&format!("bytes {from}-{}/{len}", to.saturating_sub(1))) {
            values.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    stamp(&mut response, changed);
    response
}

/// Sends bytes of a file. One that shrinks meanwhile ends early, and with it the connection.
async fn read(file: File, mut from: u64, to: u64, sender: mpsc::Sender<Bytes>) {
    let mut file = file;
    while from < to {
        let len = usize::try_from(PIECE.min(to - from)).unwrap_or(0);
        let piece = rubelet_host::task::blocking(move || {
            let mut bytes = vec![0; len];
            let count = file.read_at(&mut bytes, from)?;
            bytes.truncate(count);
            Ok::<_, io::Error>((file, bytes))
        });
        let bytes = match piece.await {
            Ok(Ok((back, bytes))) if !bytes.is_empty() => {
                file = back;
                bytes
            }
            _ => return,
        };
        from += bytes.len() as u64;
        if sender.send(Bytes::from(bytes)).await.is_err() {
            return;
        }
    }
}

#[derive(Debug, PartialEq)]
enum Part {
    All,
    /// From, and up to but without.
    Bytes(u64, u64),
    Unsatisfiable,
}

/// One range; several, and what is none, are the whole file.
fn part(headers: &HeaderMap, len: u64) -> Part {
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let Some((from, to)) = asked.filter(|text| !text.contains(',')).and_then(|text| text.trim().split_once('-')) else {
        return Part::All;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), _) if from >= len => Part::Unsatisfiable,
        (Ok(from), Ok(to)) if to >= from => Part::Bytes(from, to.saturating_add(1).min(len)),
        (Ok(from), Err(_)) if to.is_empty() => Part::Bytes(from, len),
        (Err(_), Ok(last)) if from.is_empty() => Part::Bytes(len.saturating_sub(last), len),
        (_, _) => Part::All,
    }
}
