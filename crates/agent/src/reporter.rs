//! Tells the API server of the node's pods: statuses, what may be deleted, mirrors of static pods.
//!
//! What is to be said follows from two views, what the API server has and what the picture shows (`rubelet_core::pod::report`). Of each
//! name at most one request is under way; the next one is decided when it ended, so that only the latest is ever said.

mod account;
mod post;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_core::pod::mirror;
use rubelet_core::pod::report::{self, Request, Told};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::PodSettings;
use crate::metrics::Metrics;
use crate::picture::{Picture, Shown};
use crate::roster::RosterNote;
use crate::sources::cluster::Objects;
use account::{Account, Said};
use post::{Done, Errand, Post};

/// Requests under way at once.
const AT_ONCE: usize = 16;

/// The task that reports.
pub(crate) struct Reporter {
    picture: Picture,
    objects: watch::Receiver<Option<Arc<Objects>>>,
    post: Arc<Post>,
    accounts: BTreeMap<PodKey, Account>,
    under_way: JoinSet<(PodKey, Done)>,
    seed: u64,
    metrics: Arc<Metrics>,
}

impl Reporter {
    pub(crate) fn new(
        settings: PodSettings,
        node_name: &str,
        picture: Picture,
        objects: watch::Receiver<Option<Arc<Objects>>>,
        roster: mpsc::Sender<RosterNote>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let PodSettings { client, seed } = settings;
        let post = Arc::new(Post::new(client, node_name, roster));
        Self { picture, objects, post, accounts: BTreeMap::new(), under_way: JoinSet::new(), seed, metrics }
    }

    /// Reports until the agent ends.
    pub(crate) async fn run(mut self) {
        let mut version = self.picture.version();
        loop {
            version.borrow_and_update();
            let objects = self.objects.borrow_and_update().clone();
            // Before the first list nothing can be said: neither what is there nor what is missing.
            let wake_at = objects.and_then(|objects| self.round(&objects));
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                changed = self.objects.changed() => if changed.is_err() { return },
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((key, done)) = ended {
                        self.ended(&key, done);
                    }
                }
                () = wake => {}
            }
        }
    }

    /// Sends what is to be said now; says when to look again at the latest.
    fn round(&mut self, objects: &Objects) -> Option<Instant> {
        let mut shown: BTreeMap<PodKey, Vec<Shown>> = BTreeMap::new();
        for one in self.picture.reported() {
            shown.entry(one.key.clone()).or_default().push(one);
        }
        let mirrors = objects.values().filter(|object| mirror::shows(object).is_some()).count();
        self.metrics.pods.mirrors.set(mirrors as f64);
        let keys: BTreeSet<PodKey> = objects.keys().chain(shown.keys()).cloned().collect();
        self.accounts.retain(|key, account| account.is_under_way || keys.contains(key));
        let mut wake_at: Option<Instant> = None;
        for key in keys {
            let shown = shown.remove(&key).unwrap_or_default();
            let seed = self.seed;
            let account = self.accounts.entry(key.clone()).or_insert_with(|| Account::new(seed, &key));
            let object = account.object(objects.get(&key));
            for old in &shown {
                let is_it = object.as_ref().is_some_and(|o| o.metadata.uid.as_deref() == Some(old.uid.as_str()));
                if old.is_past && !is_it && !account.is_under_way {
                    self.picture.drop_past(&old.uid);
                }
            }
            let said = Said::new(object.clone(), &shown);
            if !account.has_said(&said) {
                account.changes();
            }
            if account.is_under_way || self.under_way.len() >= AT_ONCE {
                continue;
            }
            if let Some(at) = account.waits_until().filter(|at| *at > Instant::now()) {
                wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
                continue;
            }
            if account.has_said(&said) {
                continue;
            }
            let errand = errand(&key, object.as_deref(), &shown);
            account.decided(matches!(errand, Some(Errand::Patch { .. })));
            if let Some(errand) = errand {
                account.is_under_way = true;
                let post = self.post.clone();
                self.under_way.spawn(async move { (key, post.run(errand).await) });
            }
            account.say(said);
        }
        wake_at
    }

    fn ended(&mut self, key: &PodKey, done: Done) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        account.is_under_way = false;
        match done {
            Done::Object(object) => {
                if let Some(took) = account.synced() {
                    self.metrics.pods.status_sync.took(took);
                }
                account.answered(object);
                self.reached();
            }
            Done::Well => {
                account.succeeded();
                self.reached();
            }
            Done::Gone => {
                account.missed();
                self.reached();
            }
            Done::Later => account.later(),
            Done::Failed(error) => account.failed(key, &error),
        }
    }

    /// The API server answers: nobody waits any longer for it to come back.
    fn reached(&mut self) {
        for account in self.accounts.values_mut() {
            account.reached();
        }
    }
}

/// The next request about the pods of one name.
fn errand(key: &PodKey, object: Option<&v1::Pod>, shown: &[Shown]) -> Option<Errand> {
    let told: Vec<Told<'_>> =
        shown.iter().map(|s| Told { source: s.source, pod: &s.pod, status: &s.status, standing: s.standing }).collect();
    let key = key.clone();
    match report::next(object, &told) {
        Request::None => None,
        Request::Patch(patch) => Some(Errand::Patch { key, patch }),
        Request::Delete { uid } => Some(Errand::Delete { key, uid: uid.to_owned() }),
        Request::DeleteUnless { uid, shows } => {
            Some(Errand::DeleteUnless { key, uid: uid.to_owned(), shows: shows.to_owned() })
        }
        Request::Mirror(pod) => Some(Errand::Mirror(Arc::new(pod.clone()))),
    }
}
