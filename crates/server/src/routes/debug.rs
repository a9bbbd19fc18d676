//! `/debug/`: the level of detail of the log, and the command line. There are no profiles: those of upstream are of Go's own runtime.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::Question;
use crate::View;
use crate::respond::{self, Reply};

/// Bytes of a level of detail.
const LEVEL_MAX: usize = 1024;
const NO_PROFILES: &str = "there are no profiles of Go's runtime here: this kubelet is not written in Go";

pub(super) async fn answer(view: &dyn View, question: Question) -> Response<Reply> {
    let switches = view.premises().switches;
    let path = question.uri().path();
    if path == "/debug/flags/v" {
        if !switches.has_debug_flags {
            return respond::error(StatusCode::METHOD_NOT_ALLOWED, "flags endpoint is disabled.");
        }
        return set_level(view, question).await;
    }
    if !path.starts_with("/debug/pprof/") {
        return respond::not_found();
    }
    if !switches.has_profiling {
        return respond::error(StatusCode::METHOD_NOT_ALLOWED, "profiling endpoint is disabled.");
    }
    match path.trim_start_matches("/debug/pprof/") {
        // kubelet 1.36: there is no list of them.
        "" => respond::no_route(),
        _ if question.method() != Method::GET => respond::method_not_allowed("GET"),
        name => profile(name),
    }
}

/// What does not need Go's runtime is answered.
fn profile(name: &str) -> Response<Reply> {
    match name {
        "cmdline" => match std::fs::read("/proc/self/cmdline") {
            Ok(words) => {
                let words = String::from_utf8_lossy(words.strip_suffix(b"\0").unwrap_or(&words)).into_owned();
                respond::plain_text(StatusCode::OK, words)
            }
            Err(error) => respond::error(StatusCode::INTERNAL_SERVER_ERROR, format!("read the command line: {error}")),
        },
        "allocs" | "block" | "goroutine" | "heap" | "mutex" | "profile" | "symbol" | "threadcreate" | "trace" => {
            respond::error(StatusCode::NOT_IMPLEMENTED, NO_PROFILES)
        }
        _ => respond::error(StatusCode::NOT_FOUND, "Unknown profile"),
    }
}

async fn set_level(view: &dyn View, question: Question) -> Response<Reply> {
    if question.method() != Method::PUT {
        return plain(StatusCode::NOT_ACCEPTABLE, "unsupported http method".to_owned());
    }
    let bytes = match question.into_body() {
        None => bytes::Bytes::new(),
        Some(body) => match Limited::new(body, LEVEL_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("error reading request body: {error}")),
        },
    };
    let text = String::from_utf8_lossy(&bytes);
    match level(&text) {
        Ok(level) => {
            view.set_verbosity(level);
            plain(StatusCode::OK, format!("successfully set klog.logging.verbosity to {text}"))
        }
        Err(why) => plain(StatusCode::BAD_REQUEST, why),
    }
}

/// As Go's `strconv.ParseUint` for 32 bits, with its words; klog's level is one of 31.
fn level(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = match text.parse::<u32>() {
        Ok(level) if is_number && i32::try_from(level).is_ok() => return Ok(level),
        Ok(_) if is_number => {
            return Err(format!(
                "failed set klog.logging.verbosity {text}: strconv.ParseInt: parsing {text:?}: value out of range"
            ));
        }
        _ if is_number => "value out of range",
        _ => "invalid syntax",
    };
    Err(format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

fn plain(status: StatusCode, text: String) -> Response<Reply> {
    let end = if status.is_success() { "" } else { "\n" };
    let mut response = respond::plain_text(status, format!("{text}{end}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_go_reads_them() {
        assert_eq!((level("0"), level("4")), (Ok(0), Ok(4)));
        for (text, why) in [
            ("", "strconv.ParseUint: parsing \"\": invalid syntax"),
            ("x", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            ("+1", "strconv.ParseUint: parsing \"+1\": invalid syntax"),
            ("4\n", "strconv.ParseUint: parsing \"4\\n\": invalid syntax"),
            ("4294967296", "strconv.ParseUint: parsing \"4294967296\": value out of range"),
        ] {
            assert_eq!(level(text), Err(why.to_owned()));
        }
        assert!(level("4294967295").unwrap_err().starts_with("failed set klog.logging.verbosity"));
    }
}
