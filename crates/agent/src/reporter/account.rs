//! What was said about the pods of one name, and when to try again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_apiserver::Error;
use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_core::pod::Standing;
use tokio::time::Instant;

use crate::picture::Shown;

/// kubelet 1.36 looks every 10 s at what it could not send.
const GROWTH: Growth = Growth { first: Duration::from_millis(200), most: Duration::from_secs(10), jitter: 0.5 };
/// Pause before something is asked again that is not known yet.
const LATER: Duration = Duration::from_millis(500);

/// Both views at the time of a decision.
pub(super) struct Said {
    object: Option<Arc<v1::Pod>>,
    shown: Vec<(Arc<v1::PodStatus>, Standing)>,
}

impl Said {
    pub(super) fn new(object: Option<Arc<v1::Pod>>, shown: &[Shown]) -> Self {
        Self { object, shown: shown.iter().map(|s| (s.status.clone(), s.standing)).collect() }
    }

    fn is_same(&self, other: &Self) -> bool {
        let is_object = match (&self.object, &other.object) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let pairs = || self.shown.iter().zip(&other.shown);
        is_object
            && self.shown.len() == other.shown.len()
            && pairs().all(|(a, b)| Arc::ptr_eq(&a.0, &b.0) && a.1 == b.1)
    }
}

pub(super) struct Account {
    pub(super) is_under_way: bool,
    /// The last decision that need not be made again.
    said: Option<Said>,
    /// The API server's answer to the last write, until the watch shows the same.
    answer: Option<Arc<v1::Pod>>,
    /// Whether the watch showed an object at the last look.
    was_there: bool,
    backoff: Backoff,
    until: Option<Instant>,
    /// What failed last, as it was told.
    trouble: Option<String>,
    is_unreachable: bool,
    /// Since when there is something that is not said yet.
    changed: Option<Instant>,
    /// The same of a status that is being written.
    syncing: Option<Instant>,
}

impl Account {
    pub(super) fn new(seed: u64, key: &PodKey) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, &*key.namespace, &*key.name).hash(&mut hasher);
        Self {
            is_under_way: false,
            said: None,
            answer: None,
            was_there: false,
            backoff: Backoff::new(GROWTH, hasher.finish()),
            until: None,
            trouble: None,
            is_unreachable: false,
            changed: None,
            syncing: None,
        }
    }

    /// The newest that is known of the object: what the watch shows, or the answer to our own write.
    pub(super) fn object(&mut self, watched: Option<&Arc<v1::Pod>>) -> Option<Arc<v1::Pod>> {
        let is_past = match (&self.answer, watched) {
            (None, _) => false,
            (Some(answer), Some(watched)) => {
                answer.metadata.uid != watched.metadata.uid || version(watched) >= version(answer)
            }
            (Some(_), None) => self.was_there,
        };
        if is_past {
            self.answer = None;
        }
        self.was_there = watched.is_some();
        self.answer.clone().or_else(|| watched.cloned())
    }

    pub(super) fn has_said(&self, now: &Said) -> bool {
        self.said.as_ref().is_some_and(|said| said.is_same(now))
    }

    pub(super) fn say(&mut self, said: Said) {
        self.said = Some(said);
    }

    /// One of the views is another one than at the last decision.
    pub(super) fn changes(&mut self) {
        self.changed.get_or_insert_with(Instant::now);
    }

    /// What is to be done about it; `is_sync`: a status is written.
    pub(super) fn decided(&mut self, is_sync: bool) {
        self.syncing = self.changed.take().filter(|_| is_sync);
    }

    /// How long a status was on its way that has been written.
    pub(super) fn synced(&mut self) -> Option<Duration> {
        self.syncing.take().map(|since| since.elapsed())
    }

    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn answered(&mut self, object: Box<v1::Pod>) {
        self.answer = Some(Arc::from(object));
        self.succeeded();
    }

    /// The API server knows no such object. It is asked again while the watch shows one: a server that has just started may not have read
    /// all that it has, and says so of pods that a node deletes.
    pub(super) fn missed(&mut self) {
        (self.answer, self.said) = (None, None);
        (self.trouble, self.is_unreachable) = (None, false);
        self.until = Some(Instant::now() + self.backoff.fail());
    }

    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
        (self.until, self.trouble, self.is_unreachable) = (None, None, false);
    }

    /// It can't be decided yet.
    pub(super) fn later(&mut self) {
        self.said = None;
        self.until = Some(Instant::now() + LATER);
    }

    pub(super) fn failed(&mut self, key: &PodKey, error: &Error) {
        let err = error.to_string();
        self.said = None;
        self.changed = self.syncing.take().or(self.changed);
        self.until = Some(Instant::now() + self.backoff.fail());
        self.is_unreachable = error.is_unreachable();
        if self.trouble.as_ref() != Some(&err) {
            tracing::warn!(pod = %key, err, "reporting a pod to the API server failed, trying again");
            self.trouble = Some(err);
        }
    }

    /// The API server answered somebody.
    pub(super) fn reached(&mut self) {
        if std::mem::take(&mut self.is_unreachable) {
            self.backoff.reset();
            self.until = None;
        }
    }
}

/// kubelet 1.36: versions of one resource are numbers that grow.
fn version(pod: &v1::Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_status_is_on_its_way_from_its_change_until_it_is_written() {
        let key = PodKey::new("ns", "web");
        let mut account = Account::new(7, &key);
        account.changes();
        tokio::time::advance(Duration::from_secs(1)).await;
        account.changes();
        account.decided(true);
        tokio::time::advance(Duration::from_secs(2)).await;
        // It could not be written: it is still the same change.
        account.failed(
            &key,
            &Error::Connect { verb: rubelet_apiserver::Verb::Patch, url: String::new(), why: String::new() },
        );
        account.changes();
        account.decided(true);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(account.synced(), Some(Duration::from_secs(4)));
        account.changes();
        account.decided(false);
        assert_eq!(account.synced(), None, "nothing was written");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_does_not_know_is_asked_again_while_the_watch_shows_it() {
        let mut account = Account::new(7, &PodKey::new("ns", "web"));
        let pod = Arc::new(v1::Pod::default());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let object = account.object(Some(&pod));
            let now = Said::new(object, &[]);
            assert!(!account.has_said(&now));
            account.say(now);
            account.missed();
            assert!(!account.has_said(&Said::new(Some(pod.clone()), &[])));
            let until = account.waits_until().unwrap();
            pauses.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
        }
        assert!(pauses[0] < Duration::from_secs(1) && pauses[7] >= Duration::from_secs(5), "{pauses:?}");
    }
}
