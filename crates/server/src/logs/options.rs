//! What a client wants of a log: the API's `PodLogOptions` as parameters.

use super::follow::Reading;
use crate::query::Query;
use rubelet_logline::{Moment, Wanted, Written};
use std::path::PathBuf;

#[cfg(test)]
mod tests;

/// The parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) since_seconds: Option<i64>,
    /// `Some(None)`: given, but empty.
    pub(crate) since_time: Option<Option<Moment>>,
    pub(crate) tail_lines: Option<i64>,
    pub(crate) limit_bytes: Option<i64>,
    pub(crate) stream: Option<String>,
}

/// Why the parameters are refused; kubelet 1.36 says no more.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error(r#"{{"message": "Unable to decode query."}}"#)]
    Undecodable,
    #[error(r#"{{"message": "Invalid request."}}"#)]
    Invalid,
}

impl LogOptions {
    /// Reads and checks the parameters as kubelet 1.36 does, the older `tail` included.
    ///
    /// # Errors
    /// Something is no number, no time, or makes no sense.
    pub(crate) fn parse(mut query: Query) -> Result<Self, OptionsError> {
        match query.first("tail").map(str::to_owned).as_deref() {
            None | Some("") => {}
            Some("all") => query.set("tailLines", None),
            Some(lines) => query.set("tailLines", Some(lines)),
        }
        let options = Self {
            follow: flag(&query, "follow"),
            previous: flag(&query, "previous"),
            timestamps: flag(&query, "timestamps"),
            since_seconds: number(&query, "sinceSeconds")?,
            since_time: query.first("sinceTime").map(time).transpose()?,
            tail_lines: number(&query, "tailLines")?,
            limit_bytes: number(&query, "limitBytes")?,
            stream: query.first("stream").map(str::to_owned),
        };
        options.check()
    }

    fn check(self) -> Result<Self, OptionsError> {
        let is_stream_known = self.stream.as_deref().is_none_or(|name| matches!(name, "All" | "Stdout" | "Stderr"));
        let is_one_stream = self.stream.as_deref().is_some_and(|name| name != "All");
        let is_fine = self.tail_lines.is_none_or(|lines| lines >= 0)
            && self.limit_bytes.is_none_or(|bytes| bytes >= 1)
            && self.since_seconds.is_none_or(|seconds| seconds >= 1)
            && !(self.since_seconds.is_some() && self.since_time.is_some())
            && is_stream_known
            && !(is_one_stream && self.tail_lines.is_some());
        if is_fine { Ok(self) } else { Err(OptionsError::Invalid) }
    }

    /// What to read of the file at `path`. `now_secs`: seconds since 1970, and nanoseconds.
    pub(crate) fn reading(&self, path: PathBuf, now: Moment) -> Reading {
        let before = self.since_seconds.map(|seconds| Moment { secs: now.secs.saturating_sub(seconds), ..now });
        let stream = self.stream.as_deref().unwrap_or("All");
        Reading {
            path,
            wanted: Wanted {
                stdout: stream != "Stderr",
                stderr: stream != "Stdout",
                since: before.or(self.since_time.flatten()),
                timestamps: self.timestamps,
                // Not negative: checked.
                bytes_max: self.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
                lines_max: None,
            },
            tail: self.tail_lines.and_then(|lines| u64::try_from(lines).ok()),
            follow: self.follow,
        }
    }
}

/// Go's: everything but 0 and false is true, also nothing.
fn flag(query: &Query, name: &str) -> bool {
    query.first(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, OptionsError> {
    query.first(name).map(|text| text.parse().map_err(|_| OptionsError::Undecodable)).transpose()
}

fn time(text: &str) -> Result<Option<Moment>, OptionsError> {
    match text {
        "" | "null" => Ok(None),
        text => Written::parse(text.as_bytes()).map(|time| Some(time.moment)).ok_or(OptionsError::Undecodable),
    }
}
