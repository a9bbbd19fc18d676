//! What can go wrong between us and the API server.

use std::time::Duration;

use rubelet_api::meta::Status;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// The word as the API server's rules and audit log have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a request has no answer that can be used. Each names verb and URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server says no.
    #[error("{verb} {url}: {refusal}")]
    Refused { verb: Verb, url: String, refusal: Box<Refusal> },
    /// There is no connection.
    #[error("{verb} {url}: connect: {why}")]
    Connect { verb: Verb, url: String, why: String },
    /// The connection broke before the answer was complete.
    #[error("{verb} {url}: {why}")]
    Broken { verb: Verb, url: String, why: String },
    /// No answer in time.
    #[error("{verb} {url}: no answer within {} s", patience.as_secs_f32())]
    Late { verb: Verb, url: String, patience: Duration },
    /// The answer is longer than we take.
    #[error("{verb} {url}: the answer is longer than {bytes_max} bytes")]
    TooLong { verb: Verb, url: String, bytes_max: usize },
    /// The answer is not what was asked for.
    #[error("{verb} {url}: the answer can't be read: {why}")]
    Unreadable { verb: Verb, url: String, why: String },
    /// We do not know who we are: token file, certificate or plugin failed.
    #[error("{verb} {url}: credentials: {why}")]
    Credentials { verb: Verb, url: String, why: String },
}

impl Error {
    /// The status of a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Late { .. }
            | Self::TooLong { .. }
            | Self::Unreadable { .. }
            | Self::Credentials { .. } => None,
        }
    }

    /// The HTTP code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// The machine's word for a refusal, for example `NotFound`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.status.reason.as_deref())
    }

    /// 404: the object (or its kind) does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409 of a create: there is one of this name.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(409) && self.reason() == Some("AlreadyExists")
    }

    /// 409 of a change: the object is no longer what the caller thinks.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != Some("AlreadyExists")
    }

    /// 410: the resource version is too old, or the continuation of a list.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// 403.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// 401.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.code() == Some(401)
    }

    /// 422: the object breaks a rule.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// Whether there was no answer at all: the server may be gone.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Broken { .. } | Self::Late { .. })
    }

    /// When the server wants to be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }
}

/// What the API server says when it refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Of the HTTP answer, or of an error inside a watch.
    pub code: u16,
    /// As it was sent; where the body was something else, its beginning is the message.
    pub status: Status,
    /// Of the header `Retry-After`, or the details of the status.
    pub retry_after: Option<Duration>,
}

/// How much of a body that is no status goes into a message.
const MESSAGE_BYTES: usize = 1024;

impl Refusal {
    /// Reads the body of a refusal; `header` is that of `Retry-After`.
    #[must_use]
    pub(crate) fn read(code: u16, header: Option<&str>, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status>(body).ok().filter(|status| status.message.is_some());
        let status = status.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&body[..body.len().min(MESSAGE_BYTES)]).trim().to_owned();
            Status {
                code: Some(i32::from(code)),
                message: (!text.is_empty()).then_some(text),
                reason: reason_of(code).map(str::to_owned),
                ..Status::default()
            }
        });
        let retry_after = header.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        Self { code, retry_after: retry_after.or_else(|| details_wait(&status)), status }
    }

    /// An error inside a watch.
    #[must_use]
    pub(crate) fn of_status(status: Status) -> Self {
        let code = status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
        Self { code, retry_after: details_wait(&status), status }
    }
}

fn details_wait(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds?;
    u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

/// The reason for a code, where the server sent none.
fn reason_of(code: u16) -> Option<&'static str> {
    Some(match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        code if code >= 500 => "InternalError",
        _ => return None,
    })
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.status.message, &self.status.reason) {
            (Some(message), _) if !message.is_empty() => f.write_str(message),
            (_, Some(reason)) => write!(f, "{reason} ({})", self.code),
            _ => write!(f, "HTTP status {}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_taken_as_it_is() {
        let body = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}"#;
        let refusal = Refusal::read(404, None, body);
        assert_eq!(refusal.to_string(), "pods \"a\" not found");
        let error = Error::Refused { verb: Verb::Get, url: "/api/v1/x".to_owned(), refusal: Box::new(refusal) };
        assert!(error.is_not_found() && !error.is_conflict() && !error.is_unreachable());
        assert_eq!(error.to_string(), "get /api/v1/x: pods \"a\" not found");
    }

    #[test]
    fn another_body_becomes_the_message() {
        let refusal = Refusal::read(429, Some("3"), b"Too many requests, please try again later.\n");
        assert_eq!(refusal.status.reason.as_deref(), Some("TooManyRequests"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(refusal.to_string(), "Too many requests, please try again later.");
        assert_eq!(Refusal::read(502, None, b"").to_string(), "InternalError (502)");
        assert_eq!(Refusal::read(302, None, b"").to_string(), "HTTP status 302");
    }

    #[test]
    fn two_kinds_of_409_are_told_apart() {
        let error = |reason: &str| {
            let body = format!(r#"{{"message":"no","reason":"{reason}","code":409}}"#);
            Error::Refused {
                verb: Verb::Create,
                url: String::new(),
                refusal: Box::new(Refusal::read(409, None, body.as_bytes())),
            }
        };
        assert!(error("AlreadyExists").is_already_exists() && !error("AlreadyExists").is_conflict());
        assert!(error("Conflict").is_conflict() && !error("Conflict").is_already_exists());
    }
}
