//! The loop of one pod: decide, publish, act, learn.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rubelet_api::ids::{PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::evict::Pressures;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::fact::Done;
use rubelet_core::pod::{CANCELLED, Fact, Needs, Outcome, PodRecord, Source, Stage, Step, StepFailure, StepKey};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::execute::{self, dirs};
use crate::hands::Hands;
use crate::life::Life;
use crate::metrics::{Resizing, Starting};
use crate::node::Glance;
use crate::observer::{self, Ask, Listed, Sighting, View};
use crate::picture::{Lifecycle, Picture, Shown};
use crate::pulse::{Beat, Pulse};
use crate::references::References;

/// Notes that fit a worker's inbox before senders wait.
const INBOX: usize = 256;
/// Decisions in a row that lead to another one at once, before the worker lets time pass.
const TURNS_MAX: usize = 64;
/// Pause after those.
const TURNS_PAUSE: Duration = Duration::from_secs(1);
/// Pause before a worker that broke is replaced.
const BROKEN_PAUSE: Duration = Duration::from_secs(10);

/// What a worker hears.
#[derive(Debug)]
pub enum Note {
    /// From the roster: desired, withdrawn, orders.
    Fact(Fact),
    /// What the latest relist showed of this pod.
    Listed(Listed),
    /// A process ended, or an event told of a change: look there now.
    Changed(Ask),
    /// A step ended; `seen` is what was looked at right after it.
    Ended { key: StepKey, number: u64, outcome: Outcome, seen: Vec<Sighting> },
    /// A look ended.
    Looked(Vec<Sighting>),
}

/// How a worker ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing is left of its pod.
    Gone(PodUid),
    /// It panicked; the pod has no worker.
    Broken(PodUid),
}

/// The roster's end of a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    inbox: mpsc::Sender<Note>,
    beat: Beat,
}

impl WorkerHandle {
    /// Puts a note into the worker's inbox; waits while that is full. A worker that is gone needs no notes.
    pub async fn send(&self, note: Note) {
        self.beat.called();
        if self.inbox.send(note).await.is_err() {
            tracing::trace!("note for a worker that has ended");
        }
    }
}

/// What a worker needs from the outside.
#[derive(Clone)]
pub struct Surroundings {
    pub hands: Arc<Hands>,
    pub node: watch::Receiver<Arc<NodeFacts>>,
    pub picture: Picture,
    pub clock: Clock,
    /// Where a worker reports its end.
    pub ended: mpsc::UnboundedSender<End>,
    pub life: Life,
    pub pulse: Pulse,
    /// What the node has too little of.
    pub pressures: watch::Receiver<Pressures>,
    /// Whether the node goes down; the roster says so.
    pub is_shutting_down: watch::Sender<bool>,
    /// For another look at the Node object.
    pub glance: Glance,
    /// Where the objects that pods refer to come from.
    pub references: References,
}

/// One pod's worker.
pub struct Worker {
    uid: PodUid,
    key: PodKey,
    source: Source,
    pod: Arc<v1::Pod>,
    record: PodRecord,
    /// The status that was shown last.
    told: Option<Arc<v1::PodStatus>>,
    resizing: Resizing,
    view: View,
    /// The rows that the first look must cover; nothing is decided before.
    rows: Option<Listed>,
    inbox: mpsc::Receiver<Note>,
    me: mpsc::WeakSender<Note>,
    running: BTreeMap<StepKey, (u64, AbortHandle)>,
    step_count: u64,
    looks: usize,
    look_again: Option<Listed>,
    /// Something was learned since the last decision.
    is_due: bool,
    beat: Beat,
    /// What the references were told last.
    needs: Needs,
    /// Nothing was decided yet.
    is_first: bool,
    /// Until it runs for the first time.
    starting: Option<Starting>,
    around: Surroundings,
}

/// Starts the worker of a pod over what was seen of it; `rows` is what was listed, all of which must be seen first.
pub fn start(record: PodRecord, view: View, rows: Listed, around: Surroundings) -> WorkerHandle {
    let (tx, inbox) = mpsc::channel(INBOX);
    let beat = around.pulse.worker(record.uid());
    let is_new = record.source() != Source::Runtime && rows == Listed::default();
    let worker = Worker {
        uid: record.uid().clone(),
        key: record.key().clone(),
        source: record.source(),
        pod: record.pod().clone(),
        record,
        view,
        rows: Some(rows),
        inbox,
        me: tx.downgrade(),
        running: BTreeMap::new(),
        step_count: 0,
        looks: 0,
        look_again: None,
        is_due: true,
        beat: beat.clone(),
        needs: Needs::new(),
        is_first: true,
        // One that was found is not started here.
        starting: is_new.then(Starting::now),
        told: None,
        resizing: None,
        around,
    };
    let (life, ended, pulse) = (worker.around.life.clone(), worker.around.ended.clone(), worker.around.pulse.clone());
    let references = worker.around.references.clone();
    let (uid, key) = (worker.uid.clone(), worker.key.clone());
    life.spawn(async move {
        let done = AssertUnwindSafe(worker.run()).catch_unwind().await;
        pulse.forget(&uid);
        references.forget(&uid);
        let end = match done {
            Ok(true) => End::Gone(uid),
            Ok(false) => return,
            Err(_) => {
                tracing::error!(pod = %key, %uid, "the worker of a pod broke, the pod gets a new one");
                tokio::time::sleep(BROKEN_PAUSE).await;
                End::Broken(uid)
            }
        };
        if ended.send(end).is_err() {
            tracing::trace!(pod = %key, "the roster ended before the pod's worker");
        }
    });
    WorkerHandle { inbox: tx, beat }
}

impl Worker {
    /// Works until nothing is left of the pod (true) or the roster is gone (false): then the agent ends, pods stay.
    async fn run(mut self) -> bool {
        self.beat.begins();
        if let Some(starting) = &self.starting {
            self.around.hands.metrics.pods.worker_start.took(starting.since.elapsed());
        }
        self.learn_log_counts().await;
        let asks = self.begin();
        self.look(asks);
        let mut node = self.around.node.clone();
        loop {
            let wake_at = self.turns(&node.borrow_and_update().clone());
            if self.record.is_gone() {
                self.around.picture.forget(&self.uid);
                self.around.hands.metrics.forget(&self.pod_ref());
                return true;
            }
            if !self.wait(&mut node, wake_at).await {
                return false;
            }
        }
    }

    /// Restart counts that only the logs still tell of.
    async fn learn_log_counts(&mut self) {
        let (hands, pod) = (self.around.hands.clone(), self.pod_ref());
        if !dirs::has_logs(&hands, &pod) {
            return;
        }
        let counts = rubelet_host::task::blocking(move || dirs::log_counts(&hands, &pod)).await.unwrap_or_default();
        if !counts.is_empty() {
            self.absorb(Fact::LogCounts(counts));
        }
    }

    /// The first look counts when everything that was listed has been seen; what has not is told.
    fn begin(&mut self) -> Vec<Ask> {
        let Some(rows) = &self.rows else { return Vec::new() };
        let asks = self.view.differences(rows);
        if asks.is_empty() {
            self.rows = None;
            self.absorb(Fact::Observed(self.view.observed()));
            self.watch_processes();
        }
        asks
    }

    /// Waits until the record learned something or a decision is due; false when the roster is gone.
    async fn wait(&mut self, node: &mut watch::Receiver<Arc<NodeFacts>>, wake_at: Option<Instant>) -> bool {
        self.is_due = false;
        while !self.is_due {
            self.beat.waits(wake_at);
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                note = self.inbox.recv() => match note {
                    Some(note) => self.learn(note),
                    None => return false,
                },
                () = wake => self.absorb(Fact::Tick),
                changed = node.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    self.absorb(Fact::Tick);
                }
            }
            self.beat.begins();
            while let Ok(note) = self.inbox.try_recv() {
                self.learn(note);
            }
        }
        true
    }

    /// Decides until nothing more follows at once; says when to decide again at the latest.
    fn turns(&mut self, node: &NodeFacts) -> Option<Instant> {
        for _ in 0..TURNS_MAX {
            let (wake_at, is_settled) = self.turn(node);
            if is_settled {
                return wake_at;
            }
        }
        tracing::warn!(pod = %self.key, uid = %self.uid, "decisions about a pod do not settle");
        Some(Instant::now() + TURNS_PAUSE)
    }

    /// Decides once, publishes, and takes up the steps.
    fn turn(&mut self, node: &NodeFacts) -> (Option<Instant>, bool) {
        let (now, since) = (self.around.clock.now(), Instant::now());
        let plan = self.record.decide(node, now);
        for event in &plan.events {
            self.around.hands.events.tell(&self.pod, event);
            self.around.hands.metrics.resize_told(&mut self.resizing, &event.reason);
        }
        let stage = self.record.stage().clone();
        let (lifecycle, is_wanted) = self.lifecycle();
        let shown = Shown {
            uid: self.uid.clone(),
            key: self.key.clone(),
            pod: self.pod.clone(),
            status: Arc::new(plan.status),
            source: self.source,
            standing: stage.standing(),
            is_past: false,
            is_wanted,
            lifecycle,
        };
        self.count_start(&shown.status);
        let status = self.around.picture.publish(&self.uid, shown);
        self.around.hands.metrics.ended_since(self.told.as_deref(), &status);
        self.told = Some(status.clone());
        self.record.absorb(Fact::Published { status, events: plan.events.len() }, now);
        if self.needs != plan.needs {
            self.around.references.want(&self.uid, &plan.needs, &self.me);
            self.needs = plan.needs;
        }
        let mut is_settled = plan.refused.is_empty();
        for (key, failure) in plan.refused {
            tracing::debug!(pod = %self.key, step = ?key, reason = %failure.reason, err = %failure.message, "Step refused");
            self.absorb(Fact::StepStarted(key.clone()));
            self.absorb(Fact::StepDone { key, outcome: Err(failure) });
        }
        for step in plan.steps {
            is_settled &= !matches!(step, Step::Cancel(_));
            self.take_up(step, node);
        }
        self.around.hands.metrics.decided(lifecycle, self.is_first, since.elapsed());
        self.is_first = false;
        is_settled &= *self.record.stage() == stage || self.record.is_gone();
        (plan.wake_at.map(|at| self.around.clock.instant(at)), is_settled)
    }

    /// What is done with the pod, and whether its source wants it.
    fn lifecycle(&self) -> (Lifecycle, bool) {
        let is_known = self.source != Source::Runtime;
        match self.record.stage() {
            Stage::Queued { .. } | Stage::Active => (Lifecycle::Sync, is_known),
            Stage::Stopping(stopping) => (Lifecycle::Terminating, is_known && !stopping.is_withdrawn),
            Stage::Cleaning(cleaning) => (Lifecycle::Terminated, is_known && !cleaning.is_withdrawn),
            Stage::Gone => (Lifecycle::Terminated, false),
        }
    }

    /// The first time that the pod is seen to run.
    fn count_start(&mut self, status: &v1::PodStatus) {
        if status.phase.as_deref() == Some("Running")
            && let Some(starting) = self.starting.take()
        {
            self.around.hands.metrics.runs(&starting, &self.pod, self.source.is_static());
        }
    }

    fn take_up(&mut self, step: Step, node: &NodeFacts) {
        let key = step.key();
        if let Step::Cancel(_) = step {
            if let Some((_, running)) = self.running.remove(&key) {
                running.abort();
            }
            let outcome =
                Err(StepFailure { reason: CANCELLED.to_owned(), message: "the step was cancelled".to_owned() });
            self.absorb(Fact::StepDone { key, outcome });
            return;
        }
        tracing::trace!(pod = %self.key, step = ?key, "step");
        self.absorb(Fact::StepStarted(key.clone()));
        let Some(me) = self.me.upgrade() else { return };
        self.step_count += 1;
        let number = self.step_count;
        let pod = execute::PodRef {
            ips: rubelet_core::render::effective_ips(&self.pod, node, &self.view.ips()).to_vec(),
            since: self.starting.as_ref().map(|starting| starting.since),
            ..self.pod_ref()
        };
        let (hands, ended) = (self.around.hands.clone(), key.clone());
        let task = self.around.life.spawn(async move {
            let work = AssertUnwindSafe(execute::execute(&hands, &pod, step, &me)).catch_unwind();
            let (outcome, seen) = work.await.unwrap_or_else(|_| {
                let message = format!("step {ended:?} broke");
                (Err(StepFailure { reason: String::new(), message }), Vec::new())
            });
            if me.send(Note::Ended { key: ended, number, outcome, seen }).await.is_err() {
                tracing::trace!("a step outlived its worker");
            }
        });
        self.running.insert(key, (number, task));
    }

    fn pod_ref(&self) -> execute::PodRef {
        execute::PodRef {
            uid: self.uid.clone(),
            key: self.key.clone(),
            pod: self.pod.clone(),
            ips: Vec::new(),
            since: None,
        }
    }

    fn absorb(&mut self, fact: Fact) {
        self.is_due = true;
        self.record.absorb(fact, self.around.clock.now());
    }

    fn learn(&mut self, note: Note) {
        match note {
            Note::Fact(fact) => {
                if let Fact::Desired(pod) = &fact {
                    self.pod = pod.clone();
                }
                self.absorb(fact);
            }
            Note::Ended { key, number, outcome, seen } => {
                let is_ours = self.running.get(&key).is_some_and(|(running, _)| *running == number);
                if is_ours {
                    self.running.remove(&key);
                    if let (Ok(Done::Image(found)), Some(starting)) = (&outcome, &mut self.starting) {
                        starting.pulled +=
                            found.pulled.as_ref().map_or(Duration::ZERO, |pulled| pulled.took_with_waiting);
                    }
                    if let Err(failure) = &outcome {
                        tracing::debug!(pod = %self.key, step = ?key, reason = %failure.reason, err = %failure.message, "Step failed");
                    }
                    self.absorb(Fact::StepDone { key, outcome });
                }
                self.see(seen);
            }
            Note::Looked(seen) => {
                self.looks -= 1;
                self.see(seen);
                if self.looks == 0
                    && let Some(listed) = self.look_again.take()
                {
                    self.compare(listed);
                }
            }
            Note::Listed(listed) => self.compare(listed),
            Note::Changed(ask) => self.look(vec![ask]),
        }
    }

    /// Takes in what was seen; the record learns of it only if something is new.
    fn see(&mut self, seen: Vec<Sighting>) {
        let is_new = self.view.take(seen);
        if self.rows.is_some() {
            self.begin(); // what is still missing the next relist asks for
        } else if is_new {
            self.absorb(Fact::Observed(self.view.observed()));
            self.watch_processes();
        }
    }

    /// Compares a relist with what is known, and looks at what differs.
    fn compare(&mut self, listed: Listed) {
        if self.looks > 0 {
            self.look_again = Some(listed);
        } else if let Some(rows) = &mut self.rows {
            *rows = listed;
            let asks = self.begin();
            self.look(asks);
        } else {
            let asks = self.view.differences(&listed);
            self.look(asks);
        }
    }

    fn look(&mut self, asks: Vec<Ask>) {
        if asks.is_empty() {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        self.looks += 1;
        let (hands, uid) = (self.around.hands.clone(), self.uid.clone());
        self.around.life.spawn(async move {
            let work = async {
                let since = Instant::now();
                let mut seen = Vec::new();
                for ask in asks {
                    seen.extend(observer::look(&hands, &uid, ask).await);
                }
                hands.metrics.node.look.took(since.elapsed());
                seen
            };
            // A look that broke has seen nothing; the next relist asks again.
            let seen = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_default();
            if me.send(Note::Looked(seen)).await.is_err() {
                tracing::trace!("a look outlived its worker");
            }
        });
    }

    /// Waits for the end of each living process that nobody waits for yet.
    fn watch_processes(&mut self) {
        for (ask, pid) in self.view.unwatched() {
            let me = self.me.clone();
            self.around.life.spawn(async move {
                if !observer::process_ended(pid).await {
                    return; // no pidfd: the relist will tell
                }
                if let Some(me) = me.upgrade()
                    && me.send(Note::Changed(ask)).await.is_err()
                {
                    tracing::trace!("a process outlived its worker");
                }
            });
        }
    }
}
