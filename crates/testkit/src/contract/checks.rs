//! What scenarios say when something is not as it must be.

use std::fmt::Debug;
use std::time::Duration;

use rubelet_cri::RuntimeError;
use tokio::time::Instant;

use super::{Failure, Result};

/// How often is looked again.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Fails unless it is so.
pub(crate) fn ensure(is_so: bool, said: impl FnOnce() -> String) -> Result {
    if is_so { Ok(()) } else { Err(Failure::Said(said())) }
}

/// Fails unless both are the same.
pub(crate) fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, found: T, wanted: U) -> Result {
    ensure(found == wanted, || format!("{what}: found {found:?}, wanted {wanted:?}"))
}

/// Looks until there is something, and gives it.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let give_up_at = Instant::now() + limit;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure(Instant::now() < give_up_at, || format!("not within {limit:?}: {what}"))?;
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// The error of a verb that must fail. That the runtime does not have the verb is passed on.
pub(crate) fn refused<T: Debug>(what: &str, answer: std::result::Result<T, RuntimeError>) -> Result<RuntimeError> {
    match answer {
        Ok(answer) => Err(Failure::Said(format!("{what} must fail, and answered {answer:?}"))),
        Err(error) if error.is_unimplemented() => Err(error.into()),
        Err(error) => Ok(error),
    }
}

/// What must be there.
pub(crate) fn some<T>(what: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Failure::Said(format!("{what} is not set")))
}
