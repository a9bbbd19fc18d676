//! Whether pods are looked after: the roster and every worker promise when they will be at it again, and the promise is checked.
//!
//! A step that takes long is no broken promise: steps are tasks of their own, and the worker that waits for one has promised
//! nothing but to wake for what it decided. What breaks a promise is a loop that does not come round: one that waits for another
//! that waits for it, or for a disk that never answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rubelet_api::ids::PodUid;
use tokio::time::Instant;

/// Nothing is promised.
const NEVER: u64 = u64::MAX;
/// The roster comes round at least this often.
pub(crate) const ROUND: Duration = Duration::from_secs(30);
/// kubelet 1.36: a loop may be late by this much, or by twice `syncFrequency` if that is more.
const LATE_MIN: Duration = Duration::from_secs(300);

/// The promises of one agent; clones share them.
#[derive(Clone, Debug)]
pub struct Pulse {
    start: Instant,
    late_max: Duration,
    roster: Beat,
    workers: Arc<Mutex<BTreeMap<PodUid, Beat>>>,
}

/// One loop's promise: when it comes round again at the latest. Milliseconds since the pulse's start.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    start: Instant,
    due: Arc<AtomicU64>,
}

impl Beat {
    fn new(start: Instant) -> Self {
        Self { start, due: Arc::new(AtomicU64::new(NEVER)) }
    }

    /// The loop is at work: it promises to be done at once.
    pub(crate) fn begins(&self) {
        self.due.store(self.millis(Instant::now()), Ordering::Relaxed);
    }

    /// The loop waits, at the latest until then; `None`: until it is told something.
    pub(crate) fn waits(&self, until: Option<Instant>) {
        self.due.store(until.map_or(NEVER, |at| self.millis(at)), Ordering::Relaxed);
    }

    /// The loop was told something: it has to come round now.
    pub(crate) fn called(&self) {
        self.due.fetch_min(self.millis(Instant::now()), Ordering::Relaxed);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(NEVER - 1)
    }

    fn late(&self) -> Duration {
        let due = self.due.load(Ordering::Relaxed);
        Duration::from_millis(self.millis(Instant::now()).saturating_sub(due))
    }
}

impl Pulse {
    /// No promises yet. `sync_frequency` is the configuration's `syncFrequency`.
    pub fn new(sync_frequency: Duration) -> Self {
        Self::with(sync_frequency.saturating_mul(2).max(LATE_MIN))
    }

    fn with(late_max: Duration) -> Self {
        let start = Instant::now();
        Self { start, late_max, roster: Beat::new(start), workers: Arc::default() }
    }

    /// Whether all promises are kept.
    ///
    /// # Errors
    /// kubelet 1.36's words when one is overdue.
    pub fn check(&self) -> Result<(), String> {
        let late = |beat: &Beat| beat.late() > self.late_max;
        let is_late = late(&self.roster) || self.lock().values().any(late);
        if is_late { Err("sync Loop took longer than expected".to_owned()) } else { Ok(()) }
    }

    pub(crate) fn roster(&self) -> Beat {
        self.roster.clone()
    }

    /// A new worker's beat; the old one's of the same pod is forgotten.
    pub(crate) fn worker(&self, uid: &PodUid) -> Beat {
        let beat = Beat::new(self.start);
        self.lock().insert(uid.clone(), beat.clone());
        beat
    }

    /// The pod has no worker any more.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PodUid, Beat>> {
        // Each change is one insert or remove: a panic in between leaves a whole map.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: &str = "sync Loop took longer than expected";

    async fn pass(secs: u64) {
        tokio::time::advance(Duration::from_secs(secs)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_roster_that_does_not_come_round_is_told() {
        let pulse = Pulse::new(Duration::from_secs(60));
        pulse.roster().waits(Some(Instant::now() + ROUND));
        pass(330).await;
        assert_eq!(pulse.check(), Ok(()));
        pass(1).await;
        assert_eq!(pulse.check(), Err(LATE.to_owned()));
        pulse.roster().waits(Some(Instant::now() + ROUND));
        assert_eq!(pulse.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_may_wait_and_may_not_ignore_what_it_is_told() {
        let pulse = Pulse::new(Duration::from_secs(60));
        let (idle, busy) = (pulse.worker(&PodUid::new("a")), pulse.worker(&PodUid::new("b")));
        idle.waits(None);
        busy.waits(Some(Instant::now() + Duration::from_secs(1000)));
        pass(1200).await;
        assert_eq!(pulse.check(), Ok(()), "one waits for nothing, the other is 200 s late");
        busy.waits(None);
        idle.called();
        pass(301).await;
        assert_eq!(pulse.check(), Err(LATE.to_owned()));
        pulse.forget(&PodUid::new("a"));
        assert_eq!(pulse.check(), Ok(()));
        busy.begins();
        pass(301).await;
        assert_eq!(pulse.check(), Err(LATE.to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_synchronises_seldom_may_be_later() {
        let pulse = Pulse::new(Duration::from_secs(600));
        pulse.roster().begins();
        pass(1200).await;
        assert_eq!(pulse.check(), Ok(()));
        pass(1).await;
        assert_eq!(pulse.check(), Err(LATE.to_owned()));
    }
}
