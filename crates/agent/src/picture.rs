//! The published, read-only view of the whole node. Written by workers and the roster, read by everyone else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::pod::{Source, Standing};
use tokio::sync::watch;

/// What is shown of one pod.
#[derive(Clone, Debug)]
pub struct Shown {
    pub uid: PodUid,
    /// Namespace and name.
    pub key: PodKey,
    /// The pod as its source wants it, without status.
    pub pod: Arc<v1::Pod>,
    /// The latest rendered status.
    pub status: Arc<v1::PodStatus>,
    /// Who wants it; clients see no pods that only the runtime knows.
    pub source: Source,
    pub standing: Standing,
    /// It is gone, and the API server was not told yet.
    pub is_past: bool,
    /// Whether its source still wants it.
    pub is_wanted: bool,
    pub lifecycle: Lifecycle,
}

/// What its worker does with a pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lifecycle {
    /// Has it run.
    Sync,
    /// Stops it.
    Terminating,
    /// Nothing lives in it.
    Terminated,
}

impl Shown {
    /// Whether clients see it.
    pub(crate) fn is_listed(&self) -> bool {
        self.source != Source::Runtime
    }
}

/// Shared handle on the picture.
#[derive(Clone, Debug)]
pub struct Picture {
    pods: Arc<Mutex<BTreeMap<PodUid, Shown>>>,
    /// The last of pods that are gone, until it was reported; `None` where nobody reports.
    past: Option<Arc<Mutex<BTreeMap<PodUid, Shown>>>>,
    version: watch::Sender<u64>,
}

impl Default for Picture {
    fn default() -> Self {
        Self { pods: Arc::default(), past: None, version: watch::Sender::new(0) }
    }
}

impl Picture {
    /// A picture of which somebody reports to an API server, what is gone included.
    pub fn reported_on() -> Self {
        Self { past: Some(Arc::default()), ..Self::default() }
    }

    /// Shows a pod's newest status; what is shown already is no change. Gives the status that is shown from now on.
    pub fn publish(&self, uid: &PodUid, shown: Shown) -> Arc<v1::PodStatus> {
        let mut pods = self.lock();
        let known = pods.get(uid).map(|known| known.status.clone()).filter(|known| *known == shown.status);
        let shown = Shown { status: known.unwrap_or(shown.status), ..shown };
        let status = shown.status.clone();
        let is_same = pods.get(uid).is_some_and(|known| {
            let is_same = (known.is_wanted, known.lifecycle) == (shown.is_wanted, shown.lifecycle);
            is_same
                && Arc::ptr_eq(&known.pod, &shown.pod)
                && Arc::ptr_eq(&known.status, &status)
                && known.standing == shown.standing
        });
        if !is_same {
            pods.insert(uid.clone(), shown);
            drop(pods);
            self.version.send_modify(|v| *v += 1);
        }
        status
    }

    /// Whether a pod is shown as Failed or Succeeded: it uses nothing of the node any more.
    pub fn has_ended(&self, uid: &PodUid) -> bool {
        let phase = self.lock().get(uid).and_then(|s| s.status.phase.clone());
        matches!(phase.as_deref(), Some("Failed" | "Succeeded"))
    }

    /// Whether anything is shown of a pod.
    pub fn is_shown(&self, uid: &PodUid) -> bool {
        self.lock().contains_key(uid)
    }

    /// A pod as its source wants it; `None` when nothing is shown of it.
    pub fn pod(&self, uid: &PodUid) -> Option<Arc<v1::Pod>> {
        self.lock().get(uid).map(|shown| shown.pod.clone())
    }

    /// What is shown of a pod.
    pub fn status(&self, uid: &PodUid) -> Option<Arc<v1::PodStatus>> {
        self.lock().get(uid).map(|shown| shown.status.clone())
    }

    /// Whether every pod that clients see is shown as Failed or Succeeded.
    pub fn is_over(&self) -> bool {
        let is_over = |shown: &Shown| matches!(shown.status.phase.as_deref(), Some("Failed" | "Succeeded"));
        self.lock().values().filter(|shown| shown.is_listed()).all(is_over)
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &PodUid) {
        let last = self.lock().remove(uid);
        if let (Some(past), Some(last)) = (&self.past, last.filter(|l| l.source == Source::Api)) {
            let last = Shown { standing: Standing::Reclaimed, is_past: true, ..last };
            past.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), last);
        }
        self.version.send_modify(|v| *v += 1);
    }

    /// All pods that clients see, in the order of their UIDs.
    pub fn listed(&self) -> Vec<Shown> {
        self.lock().values().filter(|s| s.is_listed()).cloned().collect()
    }

    /// The same, and the last of the API server's pods that are gone.
    pub fn reported(&self) -> Vec<Shown> {
        let mut all = self.listed();
        if let Some(past) = &self.past {
            all.extend(past.lock().unwrap_or_else(PoisonError::into_inner).values().cloned());
        }
        all
    }

    /// Nothing is left to tell of a pod that is gone.
    pub fn drop_past(&self, uid: &PodUid) {
        if let Some(past) = &self.past {
            past.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        }
    }

    /// The pod of this name that clients see. Of several it is one that is still wanted, and kubelet 1.36: rather the API server's
    /// than a static one.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Shown> {
        let is_it =
            |shown: &&Shown| shown.is_listed() && *shown.key.namespace == *namespace && *shown.key.name == *name;
        let rank = |shown: &&Shown| (shown.is_wanted, shown.source == Source::Api);
        self.lock().values().filter(is_it).max_by_key(rank).cloned()
    }

    /// All pods, those among them that only the runtime knows.
    pub fn all(&self) -> Vec<Shown> {
        self.lock().values().cloned().collect()
    }

    /// Counts up with every change; wait on it to see changes.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PodUid, Shown>> {
        // A panic while holding the lock leaves a map that is whole: each change is one insert or remove.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
