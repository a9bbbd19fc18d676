//! Logs of containers, as a runtime writes them: what is asked for, which lines that is, and how they are followed.

mod bells;
mod follow;
mod lanes;
mod options;
mod tail;

#[cfg(test)]
mod tests;

pub(crate) use bells::Bells;
pub(crate) use follow::read;
pub(crate) use lanes::Lanes;
pub(crate) use options::{LogOptions, OptionsError};

use rubelet_logline::Moment;

/// A time since 1970.
pub(crate) fn moment_of(since: std::time::Duration) -> Moment {
    Moment { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
