//! Which steps are under way, which wait to be seen, and which failed and are tried again later.

use std::collections::BTreeMap;
use std::time::Duration;

use super::step::StepKey;
use crate::now::Mono;

/// Looks after which an effect that does not show is believed not to be there.
const LOOKS: u8 = 2;
/// The same in time, for observers that report changes only.
const SETTLE: Duration = Duration::from_secs(3);
/// Failures older than this are forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// The steps of one pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    flight: BTreeMap<StepKey, Mono>,
    settling: BTreeMap<StepKey, Settling>,
    retries: BTreeMap<StepKey, Retry>,
}

#[derive(Clone, Copy, Debug)]
struct Settling {
    done_at: Mono,
    looks: u8,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    failures: u32,
    at: Mono,
}

/// Whether a step may be issued now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Granted,
    /// It is under way; its end is a fact of its own.
    UnderWay,
    /// Not before then.
    From(Mono),
}

impl Steps {
    pub(super) fn start(&mut self, key: StepKey, now: Mono) {
        self.settling.remove(&key);
        self.flight.insert(key, now);
    }

    /// Says whether the step was under way at all.
    pub(super) fn succeed(&mut self, key: &StepKey, now: Mono) -> bool {
        self.retries.remove(key);
        if shows_in_looks(key) {
            self.settling.insert(key.clone(), Settling { done_at: now, looks: 0 });
        }
        self.flight.remove(key).is_some()
    }

    /// A step that was cancelled may be issued again at once.
    pub(super) fn cancel(&mut self, key: &StepKey) {
        self.flight.remove(key);
    }

    pub(super) fn fail(&mut self, key: &StepKey, now: Mono) {
        self.flight.remove(key);
        let failures = self.retries.get(key).map_or(0, |r| r.failures).saturating_add(1);
        self.retries.retain(|_, r| now.since(r.at) < FORGET);
        self.retries.insert(key.clone(), Retry { failures, at: now + delay(key, failures) });
    }

    /// Mounts and claims that failed may be tried again at once: what they lacked may be there now.
    pub(super) fn forgive_for_want(&mut self) {
        self.retries.retain(|key, _| !matches!(key, StepKey::Mount(_) | StepKey::PrepareClaims(_)));
    }

    /// The same of claims alone.
    pub(super) fn forgive_claims(&mut self) {
        self.retries.retain(|key, _| !matches!(key, StepKey::PrepareClaims(_) | StepKey::ReleaseClaims));
    }

    /// A complete look was taken.
    pub(super) fn look(&mut self, now: Mono) {
        self.settling.retain(|_, s| {
            s.looks += 1;
            s.looks < LOOKS && now.since(s.done_at) < SETTLE
        });
    }

    pub(super) fn is_under_way(&self, key: &StepKey) -> bool {
        self.flight.contains_key(key)
    }

    /// Under way, or done and perhaps not seen yet.
    pub(super) fn is_recent(&self, key: &StepKey) -> bool {
        self.flight.contains_key(key) || self.settling.contains_key(key)
    }

    pub(super) fn under_way(&self) -> impl Iterator<Item = &StepKey> {
        self.flight.keys()
    }

    pub(super) fn leave(&self, key: &StepKey, now: Mono) -> Leave {
        if self.flight.contains_key(key) {
            return Leave::UnderWay;
        }
        let settled = self.settling.get(key).map(|s| s.done_at + SETTLE);
        let retried = self.retries.get(key).map(|r| r.at);
        match settled.max(retried) {
            Some(at) if at > now => Leave::From(at),
            Some(_) | None => Leave::Granted,
        }
    }
}

/// Steps whose effect an observation shows. Until it did, they are not issued again.
fn shows_in_looks(key: &StepKey) -> bool {
    match key {
        StepKey::CreateSandbox(_)
        | StepKey::CreateContainer(..)
        | StepKey::StartContainer(_)
        | StepKey::StopContainer(_)
        | StepKey::RemoveContainer(_)
        | StepKey::StopSandbox(_)
        | StepKey::RemoveSandbox(_) => true,
        StepKey::EnsureCgroup
        | StepKey::PrepareDirs
        | StepKey::Mount(_)
        | StepKey::Expand(_)
        | StepKey::PrepareClaims(_)
        | StepKey::ReleaseClaims
        | StepKey::EnsureImage(_)
        | StepKey::RunHook(..)
        | StepKey::Probe(..)
        | StepKey::ResizePod(..)
        | StepKey::ResizeContainer(..)
        | StepKey::Unmount
        | StepKey::RemoveCgroup
        | StepKey::RemoveDirs => false,
    }
}

/// How long a failed step waits. kubelet 1.36: volumes 500 ms, doubling to 2 min 2 s; the rest was tied to the resync there.
fn delay(key: &StepKey, failures: u32) -> Duration {
    let (first_ms, most_ms) = match key {
        StepKey::Mount(_) | StepKey::Expand(_) => (500, 122_000),
        StepKey::PrepareClaims(_) => (1_000, 60_000),
        StepKey::EnsureImage(_)
        | StepKey::CreateContainer(..)
        | StepKey::StartContainer(_)
        | StepKey::RunHook(..)
        | StepKey::Probe(..) => (0, 0),
        StepKey::EnsureCgroup
        | StepKey::PrepareDirs
        | StepKey::ReleaseClaims
        | StepKey::CreateSandbox(_)
        | StepKey::StopContainer(_)
        | StepKey::RemoveContainer(_)
        | StepKey::StopSandbox(_)
        | StepKey::RemoveSandbox(_)
        | StepKey::ResizePod(..)
        | StepKey::ResizeContainer(..)
        | StepKey::Unmount
        | StepKey::RemoveCgroup
        | StepKey::RemoveDirs => (1_000, 10_000),
    };
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u64::MAX);
    Duration::from_millis(first_ms * doubled).min(Duration::from_millis(most_ms))
}
