//! CRI's verbs, one file for each that does something; the shared ways of failing.

use rubelet_cri::{Code, RuntimeError};
use rubelet_host::chain;

use crate::image::ImageError;

pub(crate) mod create_container;
pub(crate) mod exec_sync;
pub(crate) mod list;
pub(crate) mod pull_image;
pub(crate) mod remove_container;
pub(crate) mod remove_pod_sandbox;
pub(crate) mod run_pod_sandbox;
pub(crate) mod start_container;
pub(crate) mod status;
pub(crate) mod stop_container;
pub(crate) mod stop_pod_sandbox;
pub(crate) mod update_resources;

/// Why a verb was not carried out. Its verb is added at the door.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What containerd answers for most failures.
    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub(crate) fn no_container(id: &str) -> Self {
        Self::new(Code::NotFound, format!("an error occurred when try to find container {id:?}: not found"))
    }

    pub(crate) fn no_sandbox(id: &str) -> Self {
        Self::new(Code::NotFound, format!("an error occurred when try to find sandbox {id:?}: not found"))
    }

    /// A failure with what was being done.
    pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(&dyn std::error::Error) -> Self {
        let what = what.into();
        move |error| Self::unknown(format!("{what}: {}", chain(error)))
    }

    pub(crate) fn into_runtime(self, verb: &'static str) -> RuntimeError {
        RuntimeError::Rpc { verb, code: self.code, message: self.message }
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        Self { code: error.code(), message: chain(&error) }
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Refusal>;
}

impl<T, E: std::error::Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, Refusal> {
        self.map_err(|error| Refusal::doing(what)(&error))
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A new id: 64 hexadecimal digits that nobody can guess.
pub(crate) fn new_id() -> std::io::Result<String> {
    use std::fmt::Write;
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_differ() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert!(a.len() == 64 && a.bytes().all(|c| c.is_ascii_hexdigit()) && a != b);
    }
}
