//! Logs of containers, as a runtime writes them: what is asked for, which lines that is, and how they are followed.

mod bells;
pub(crate) mod decode;
mod follow;
mod moment;
mod options;
mod tail;

#[cfg(test)]
mod tests;

pub(crate) use bells::Bells;
pub(crate) use follow::read;
pub(crate) use moment::Moment;
pub(crate) use options::{LogOptions, OptionsError};

/// A time since 1970.
pub(crate) fn moment_of(since: std::time::Duration) -> Moment {
    Moment { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
