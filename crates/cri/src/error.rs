//! Why a verb failed.

use std::fmt;
use std::time::Duration;

/// A failed call. Its `Display` is what upstream shows in status, events and logs for the same failure.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuntimeError {
    /// The call ended with a gRPC status, from the runtime or from the connection to it.
    #[error("rpc error: code = {code} desc = {message}")]
    Rpc {
        /// CRI's name of the verb, e.g. `PullImage`.
        verb: &'static str,
        code: Code,
        message: String,
    },
    /// Shown without a code: an answer that breaks the contract, and a failed `PullImage` of code `Unknown`, whose text
    /// says it all (kubelet 1.36: the same).
    #[error("{message}")]
    Plain { verb: &'static str, message: String },
    /// `ExecSync` took longer than it may.
    #[error("command timed out: {command:?} timed out after {}", seconds(*timeout))]
    CommandTimedOut {
        /// The command and its arguments with spaces between.
        command: String,
        timeout: Duration,
    },
}

impl RuntimeError {
    /// CRI's name of the verb that failed.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Rpc { verb, .. } | Self::Plain { verb, .. } => verb,
            Self::CommandTimedOut { .. } => "ExecSync",
        }
    }

    /// The status code, if the failure has one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            Self::CommandTimedOut { .. } => Some(Code::DeadlineExceeded),
            Self::Plain { .. } => None,
        }
    }

    /// The text without the code.
    pub fn message(&self) -> String {
        match self {
            Self::Rpc { message, .. } | Self::Plain { message, .. } => message.clone(),
            Self::CommandTimedOut { .. } => self.to_string(),
        }
    }

    /// The object is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// The runtime does not know the verb.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    /// No answer came in time.
    pub fn is_deadline_exceeded(&self) -> bool {
        self.code() == Some(Code::DeadlineExceeded)
    }

    /// The runtime could not be reached: the call may or may not have had an effect.
    pub fn is_unavailable(&self) -> bool {
        self.code() == Some(Code::Unavailable)
    }
}

/// gRPC's status codes other than OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl fmt::Display for Code {
    /// The name as gRPC for Go writes it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are named as gRPC for Go names them.
        fmt::Debug::fmt(self, out)
    }
}

/// A duration in whole seconds as Go writes it: `5s`, `1m30s`, `1h0m0s`.
fn seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        (_, _) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_as_go_shows_it() {
        let error = RuntimeError::Rpc { verb: "PullImage", code: Code::NotFound, message: "no such image".into() };
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = no such image");
        assert!(error.is_not_found() && !error.is_unimplemented());
    }

    #[test]
    fn a_plain_failure_has_no_code() {
        let error = RuntimeError::Plain { verb: "PullImage", message: "boom".into() };
        assert_eq!((error.to_string().as_str(), error.code()), ("boom", None));
    }

    #[test]
    fn a_command_that_took_too_long() {
        let error = RuntimeError::CommandTimedOut { command: "sh -c true".into(), timeout: Duration::from_secs(90) };
        assert_eq!(error.to_string(), r#"command timed out: "sh -c true" timed out after 1m30s"#);
        assert!(error.is_deadline_exceeded());
    }

    #[test]
    fn whole_seconds_as_go_writes_them() {
        let shown: Vec<String> = [0, 1, 60, 3600, 3723].into_iter().map(|n| seconds(Duration::from_secs(n))).collect();
        assert_eq!(shown, ["0s", "1s", "1m0s", "1h0m0s", "1h2m3s"]);
    }
}
