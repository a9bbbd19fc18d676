//! The objects that pods refer to: fetched once for all pods that need them, kept up to date, forgotten when nobody does.
//!
//! Workers say what their pods need ([`References::want`]) and hear of it in their inboxes ([`Fact::Inputs`]). One task holds the
//! union of all needs; each thing in it has a task of its own (`fetch.rs`), which ends when the last pod that needs it goes.

mod anchors;
mod certificates;
mod claims;
mod csi;
mod fetch;
mod keys;
mod objects;
mod resource_claims;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_core::pod::Fact;
use rubelet_core::pod::needs::{Got, Need, Needs};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::life::Life;
use crate::worker::Note;

pub(crate) use fetch::Around;
pub use fetch::{ReferenceSettings, Strategy};

/// Reports that fit before those who fetch wait.
const REPORTS: usize = 64;
/// How long a worker with a full inbox is left alone.
const INBOX_PAUSE: Duration = Duration::from_millis(100);

/// The workers' end. Clones share one task.
#[derive(Clone, Debug, Default)]
pub struct References(Option<Arc<Board>>);

/// What all pods need, as their workers said last.
#[derive(Debug, Default)]
struct Board {
    wishes: Mutex<Wishes>,
    changed: Notify,
    /// Attachable volumes that pods need, in the API's words.
    attachable: watch::Sender<BTreeSet<String>>,
}

impl Board {
    /// Says which attachable volumes pods need now.
    fn say_attachable(&self, wishes: &Wishes) {
        let needs = wishes.of.values().flat_map(|wish| wish.needs.iter());
        let all: BTreeSet<String> = needs
            .filter_map(|need| if let Need::Attachment(of) = need { Some(of.volume_name()) } else { None })
            .collect();
        self.attachable.send_if_modified(|known| {
            let is_news = *known != all;
            *known = all;
            is_news
        });
    }
}

#[derive(Debug, Default)]
struct Wishes {
    of: BTreeMap<PodUid, Wish>,
    count: u64,
}

/// What one pod needs, and who hears of it.
#[derive(Clone, Debug)]
struct Wish {
    needs: Arc<Needs>,
    inbox: mpsc::WeakSender<Note>,
    number: u64,
}

impl References {
    /// Without an API server: nobody is told anything.
    pub fn standalone() -> Self {
        Self(None)
    }

    /// Starts the task that fetches from an API server.
    pub(crate) fn start(settings: ReferenceSettings, around: Around, life: &Life) -> Self {
        let is_polled = settings.strategy != Strategy::Watch;
        let tools = fetch::Tools::new(settings, around, life.clone());
        Self::start_with(life, is_polled, move |root, number, reports| tools.start(root, number, reports))
    }

    fn start_with(
        life: &Life,
        is_polled: bool,
        open: impl Fn(Root, u64, mpsc::Sender<Report>) -> AbortHandle + Send + 'static,
    ) -> Self {
        let board = Arc::new(Board::default());
        let desk =
            Desk { board: board.clone(), open, is_polled, fetches: BTreeMap::new(), served: BTreeMap::new(), count: 0 };
        life.spawn(desk.run());
        Self(Some(board))
    }

    /// Attachable volumes that pods need, in the API's words; `None` without an API server.
    pub(crate) fn attachable(&self) -> Option<watch::Receiver<BTreeSet<String>>> {
        Some(self.0.as_ref()?.attachable.subscribe())
    }

    /// A pod needs nothing any more.
    pub(crate) fn forget(&self, uid: &PodUid) {
        let Some(board) = &self.0 else { return };
        let mut wishes = board.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        wishes.of.remove(uid);
        board.say_attachable(&wishes);
        drop(wishes);
        board.changed.notify_one();
    }

    /// A pod needs these from now on, all of them; `inbox` hears of what is known, now and whenever it changes.
    pub(crate) fn want(&self, uid: &PodUid, needs: &Needs, inbox: &mpsc::WeakSender<Note>) {
        let Some(board) = &self.0 else { return };
        let mut wishes = board.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if needs.is_empty() {
            wishes.of.remove(uid);
        } else {
            wishes.count += 1;
            let wish = Wish { needs: Arc::new(needs.clone()), inbox: inbox.clone(), number: wishes.count };
            wishes.of.insert(uid.clone(), wish);
        }
        board.say_attachable(&wishes);
        drop(wishes);
        board.changed.notify_one();
    }
}

/// What is fetched as one thing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Root {
    /// Of all namespaces: each pod sees its part.
    Services,
    Of(Need),
}

impl Root {
    fn of(need: &Need) -> Self {
        match need {
            Need::Services { .. } => Self::Services,
            Need::ConfigMap(_)
            | Need::Secret(_)
            | Need::Token(_)
            | Need::TrustAnchors(_)
            | Need::Certificate(_)
            | Need::Claim(_)
            | Need::CsiDriver(_)
            | Need::Attachment(_)
            | Need::RuntimeClass(_)
            | Need::ResourceClaim(_) => Self::Of(need.clone()),
        }
    }

    /// Whether the strategy is about it.
    fn is_object(&self) -> bool {
        matches!(self, Self::Of(Need::ConfigMap(_) | Need::Secret(_)))
    }
}

/// What somebody who fetches has to tell.
#[derive(Debug)]
struct Report {
    root: Root,
    /// Of the fetch; an old one's last words are not heard.
    number: u64,
    got: Got,
}

struct Fetch {
    number: u64,
    task: AbortHandle,
    got: Option<Got>,
    /// The newest wish when it began: a later one hears only what is asked for after it.
    began_for: u64,
    /// The same of what it got.
    got_for: u64,
}

impl Fetch {
    /// What a wish may hear of it.
    fn for_wish(&self, number: u64) -> Option<&Got> {
        self.got.as_ref().filter(|_| number <= self.got_for)
    }
}

/// The last that a worker heard.
struct Served {
    wish: Wish,
    told: BTreeMap<Need, Got>,
}

struct Desk<O> {
    board: Arc<Board>,
    open: O,
    /// ConfigMaps and Secrets are not watched: a new wish asks for them anew.
    is_polled: bool,
    fetches: BTreeMap<Root, Fetch>,
    served: BTreeMap<PodUid, Served>,
    count: u64,
}

impl<O: Fn(Root, u64, mpsc::Sender<Report>) -> AbortHandle> Desk<O> {
    async fn run(mut self) {
        let (tx, mut reports) = mpsc::channel(REPORTS);
        let mut is_blocked = false;
        let board = self.board.clone();
        loop {
            tokio::select! {
                () = board.changed.notified() => self.compare(&tx),
                report = reports.recv() => {
                    let Some(report) = report else { return };
                    self.take(report);
                    while let Ok(report) = reports.try_recv() {
                        self.take(report);
                    }
                }
                () = tokio::time::sleep(INBOX_PAUSE), if is_blocked => {}
            }
            is_blocked = !self.tell_all();
        }
    }

    /// Takes over what pods want now: what is new is fetched, what nobody needs any more is dropped.
    fn compare(&mut self, reports: &mpsc::Sender<Report>) {
        let wishes = self.board.wishes.lock().unwrap_or_else(PoisonError::into_inner).of.clone();
        self.served.retain(|uid, _| wishes.contains_key(uid));
        for (uid, wish) in wishes {
            match self.served.get_mut(&uid) {
                Some(served) if served.wish.number == wish.number => {}
                // Another wish may be another worker's: it hears everything again.
                Some(served) => *served = Served { wish, told: BTreeMap::new() },
                None => drop(self.served.insert(uid, Served { wish, told: BTreeMap::new() })),
            }
        }
        let mut roots: BTreeMap<Root, u64> = BTreeMap::new();
        for served in self.served.values() {
            for root in served.wish.needs.iter().map(Root::of) {
                let newest = roots.entry(root).or_default();
                *newest = served.wish.number.max(*newest);
            }
        }
        self.fetches.retain(|root, fetch| {
            let is_needed = roots.contains_key(root);
            if !is_needed {
                fetch.task.abort();
            }
            is_needed
        });
        for (root, newest) in roots {
            self.fetch(root, newest, reports);
        }
    }

    /// Begins to fetch what is not fetched yet, and begins anew where a newer wish must not hear of what was before it.
    fn fetch(&mut self, root: Root, newest: u64, reports: &mpsc::Sender<Report>) {
        let is_polled = self.is_polled && root.is_object();
        let began_for = if is_polled { newest } else { u64::MAX };
        let before = self.fetches.get(&root);
        if before.is_some_and(|f| f.began_for >= began_for) {
            return;
        }
        self.count += 1;
        let task = (self.open)(root.clone(), self.count, reports.clone());
        let (got, got_for) = before.map_or((None, 0), |f| (f.got.clone(), f.got_for));
        let fetch = Fetch { number: self.count, task, got, began_for, got_for };
        if let Some(before) = self.fetches.insert(root, fetch) {
            before.task.abort();
        }
    }

    fn take(&mut self, report: Report) {
        if let Some(fetch) = self.fetches.get_mut(&report.root).filter(|f| f.number == report.number) {
            fetch.got = Some(report.got);
            fetch.got_for = fetch.began_for;
        }
    }

    /// Tells each worker what it has not heard yet; false when one could not take it.
    fn tell_all(&mut self) -> bool {
        let mut is_told = true;
        for served in self.served.values_mut() {
            let known = served.wish.needs.iter().filter_map(|need| {
                let got = self.fetches.get(&Root::of(need))?.for_wish(served.wish.number)?;
                Some((need.clone(), part_of(need, got)))
            });
            let known: BTreeMap<Need, Got> = known.into_map();
            if known == served.told {
                continue;
            }
            let Some(inbox) = served.wish.inbox.upgrade() else { continue };
            match inbox.try_send(Note::Fact(Fact::Inputs(known.clone()))) {
                Ok(()) => served.told = known,
                Err(mpsc::error::TrySendError::Full(_)) => is_told = false,
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        is_told
    }
}

/// What of a fetched thing a need is about: of all services those that its namespace sees.
fn part_of(need: &Need, got: &Got) -> Got {
    match (need, got) {
        (Need::Services { namespace }, Got::Services(all)) => {
            Got::Services(Arc::new(all.iter().filter(|s| s.is_seen_from(namespace)).cloned().collect()))
        }
        (_, got) => got.clone(),
    }
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
