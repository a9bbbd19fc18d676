//! `/flagz` and `/statusz`: as text, or as objects for those who ask for a version of them.

use std::time::SystemTime;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use crate::View;
use crate::respond::{self, Reply};

#[cfg(test)]
mod tests;

const GROUP: &str = "config.k8s.io";
const YAML: &str = "application/yaml";
const WARNING: HeaderName = HeaderName::from_static("warning");

/// In which form a page is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Text,
    Object(Writing, &'static str),
}

/// How an object is written. As YAML it is the same text: what is JSON is YAML, too.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writing {
    Json,
    Yaml,
}

impl Writing {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => respond::JSON,
            Self::Yaml => YAML,
        }
    }
}

/// All flags and their values.
pub(super) fn flagz(view: &dyn View, headers: &HeaderMap) -> Response<Reply> {
    let flags = &view.premises().flags;
    let text = || {
        let lines: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        format!("{}{lines}", head("flagz"))
    };
    page(headers, "Flagz", text, || json!({ "flags": flags }))
}

/// Version, age, and where else to look.
pub(super) fn statusz(view: &dyn View, headers: &HeaderMap) -> Response<Reply> {
    let premises = view.premises();
    let up = SystemTime::now().duration_since(premises.started_at).unwrap_or_default().as_secs();
    let started = Timestamp::try_from(premises.started_at).unwrap_or_default();
    let mut paths = vec!["/configz", "/debug"];
    if premises.switches.has_flagz {
        paths.push("/flagz");
    }
    paths.push("/healthz");
    if !premises.switches.has_system_logs {
        paths.push("/logs");
    }
    paths.push("/metrics");
    let text = || {
        let started = started.to_zoned(TimeZone::system());
        format!(
            "{}\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: \nBinary version: {}\nEmulation version: {}\n\
             Paths: {}\n",
            head("statusz"),
            unix_date(&started),
            up / 3600,
            up / 60 % 60,
            up % 60,
            premises.version,
            premises.emulated_version,
            paths.join(" "),
        )
    };
    let object = || {
        let started = started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "startTime": started,
            "uptimeSeconds": up,
            "binaryVersion": premises.version,
            "emulationVersion": premises.emulated_version,
            "paths": paths,
        })
    };
    page(headers, "Statusz", text, object)
}

/// As Go's `time.UnixDate`.
fn unix_date(at: &Zoned) -> String {
    at.strftime("%a %b %e %H:%M:%S %Z %Y").to_string()
}

fn head(name: &str) -> String {
    format!(
        "\nkubelet {name}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
         guarantees and is for debugging purposes only.\n"
    )
}

fn page(
    headers: &HeaderMap,
    kind: &str,
    text: impl FnOnce() -> String,
    object: impl FnOnce() -> Value,
) -> Response<Reply> {
    match form(headers, kind) {
        Some(Form::Text) => respond::text(StatusCode::OK, text()),
        Some(Form::Object(writing, version)) => {
            let mut whole = json!({
                "kind": kind, "apiVersion": format!("{GROUP}/{version}"), "metadata": { "name": "kubelet" },
            });
            if let (Value::Object(whole), Value::Object(own)) = (&mut whole, object()) {
                whole.extend(own);
            }
            let body = respond::whole(format!("{whole}\n"));
            let mut response = respond::answer(StatusCode::OK, writing.content_type(), body);
            if version == "v1alpha1" {
                let name = kind.to_ascii_lowercase();
                let text =
                    format!("299 - \"This version of the {name} endpoint is deprecated. Please use a newer version.\"");
                if let Ok(text) = HeaderValue::from_str(&text) {
                    response.headers_mut().insert(WARNING, text);
                }
            }
            response
        }
        None => {
            let message = "only the following media types are accepted: application/json, application/yaml, text/plain";
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": "NotAcceptable", "code": 406,
            });
            // kubelet 1.36: in what was asked for, if it can be.
            let is_yaml = media(headers).next().is_some_and(|one| one.trim_start().starts_with(YAML));
            let content_type = if is_yaml { YAML } else { respond::JSON };
            respond::answer(StatusCode::NOT_ACCEPTABLE, content_type, respond::whole(format!("{status}\n")))
        }
    }
}

/// What is wanted, each with its parameters.
fn media(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
}

/// The first wanted form that there is: text, or JSON of a version (`application/json;v=v1beta1;g=config.k8s.io;as=Statusz`).
fn form(headers: &HeaderMap, kind: &str) -> Option<Form> {
    if media(headers).all(|one| one.trim().is_empty()) {
        return Some(Form::Text);
    }
    media(headers).find_map(|one| {
        let mut parts = one.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let value = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let version = match (value("v"), value("g"), value("as")) {
            (None, None, None) => None,
            (Some("v1beta1"), Some(GROUP), Some(as_kind)) if as_kind == kind => Some("v1beta1"),
            (Some("v1alpha1"), Some(GROUP), Some(as_kind)) if as_kind == kind => Some("v1alpha1"),
            (_, _, _) => return None,
        };
        match (media, version) {
            ("text/plain" | "text/*" | "*/*", None) => Some(Form::Text),
            ("application/json" | "application/*", Some(version)) => Some(Form::Object(Writing::Json, version)),
            (YAML, Some(version)) => Some(Form::Object(Writing::Yaml, version)),
            (_, _) => None,
        }
    })
}
