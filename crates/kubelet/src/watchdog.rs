//! systemd's watchdog: the event loop says that it is alive.

use std::time::Duration;

use crate::surroundings::Surroundings;

/// Why the watchdog's environment was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WatchdogError {
    #[error(
        "failed to run Kubelet: create health checker: configure watchdog: error converting WATCHDOG_USEC: strconv.Atoi: parsing {0:?}: invalid syntax"
    )]
    NoNumber(String),
    #[error("failed to run Kubelet: create health checker: configure watchdog timeout too small: {0:?}")]
    TooSmall(Duration),
}

/// Longest time that systemd may be kept waiting which is refused; from kubelet 1.36.
const TOO_SMALL: Duration = Duration::from_secs(1);

/// How often to say so: half of what systemd waits; `None` without a watchdog or when it watches another process.
///
/// # Errors
/// A time that is no number, or 1 s and less.
pub(crate) fn period(around: &Surroundings, pid: u32) -> Result<Option<Duration>, WatchdogError> {
    let Some(text) = around.variable("WATCHDOG_USEC") else { return Ok(None) };
    if around.variable("WATCHDOG_PID").is_some_and(|other| other != pid.to_string()) {
        return Ok(None);
    }
    let micros: u64 = text.parse().map_err(|_| WatchdogError::NoNumber(text.to_owned()))?;
    let patience = Duration::from_micros(micros);
    if patience <= TOO_SMALL { Err(WatchdogError::TooSmall(patience)) } else { Ok(Some(patience / 2)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            variables: variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..Surroundings::default()
        }
    }

    #[test]
    fn half_of_what_systemd_waits() {
        assert_eq!(period(&around(&[]), 7), Ok(None));
        assert_eq!(period(&around(&[("WATCHDOG_USEC", "30000000")]), 7), Ok(Some(Duration::from_secs(15))));
        assert_eq!(period(&around(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")]), 7), Ok(None));
        assert_eq!(
            period(&around(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")]), 7),
            Err(WatchdogError::TooSmall(Duration::from_secs(1)))
        );
        assert!(matches!(period(&around(&[("WATCHDOG_USEC", "x")]), 7), Err(WatchdogError::NoNumber(_))));
    }
}
