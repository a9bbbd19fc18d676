//! The loop of one pod: decide, publish, act, learn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, PodKey, PodUid};
use rubelet_api::v1;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::{Fact, Outcome, PodRecord, Source, Step, StepFailure, StepKey};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::events;
use crate::execute;
use crate::hands::Hands;
use crate::life::Life;
use crate::observer::{self, Listed, Sighting, View};
use crate::picture::{Picture, Shown};

/// Notes that fit a worker's inbox before senders wait.
const INBOX: usize = 256;

/// What a worker hears.
#[derive(Debug)]
pub enum Note {
    /// From the roster: desired, withdrawn, orders.
    Fact(Fact),
    /// What the latest relist showed of this pod.
    Listed(Listed),
    /// A container's process ended, or an event told of a change: look at it now.
    Changed(ContainerId),
    /// A step ended; `seen` is what was looked at right after it.
    Ended { key: StepKey, outcome: Outcome, seen: Vec<Sighting> },
    /// A look ended.
    Looked(Vec<Sighting>),
}

/// The roster's end of a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    inbox: mpsc::Sender<Note>,
}

impl WorkerHandle {
    /// Puts a note into the worker's inbox; waits while that is full. A worker that is gone needs no notes.
    pub async fn send(&self, note: Note) {
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
    /// Where a worker reports that its pod is gone.
    pub gone: mpsc::UnboundedSender<PodUid>,
    pub life: Life,
}

/// One pod's worker.
pub struct Worker {
    uid: PodUid,
    key: PodKey,
    source: Source,
    pod: Arc<v1::Pod>,
    record: PodRecord,
    view: View,
    inbox: mpsc::Receiver<Note>,
    me: mpsc::WeakSender<Note>,
    running: BTreeMap<StepKey, AbortHandle>,
    is_looking: bool,
    look_again: Option<Listed>,
    around: Surroundings,
}

/// What came of one decision.
struct Turn {
    /// When to decide again at the latest.
    wake_at: Option<tokio::time::Instant>,
    /// A step was cancelled: the record knows more now, decide again at once.
    has_cancelled: bool,
}

/// Starts the worker of a pod and returns the handle to it.
pub fn start(record: PodRecord, pod: Arc<v1::Pod>, view: View, around: Surroundings) -> WorkerHandle {
    let (tx, inbox) = mpsc::channel(INBOX);
    let worker = Worker {
        uid: record.uid().clone(),
        key: record.key().clone(),
        source: record.source(),
        pod,
        record,
        view,
        inbox,
        me: tx.downgrade(),
        running: BTreeMap::new(),
        is_looking: false,
        look_again: None,
        around,
    };
    let life = worker.around.life.clone();
    life.spawn(worker.run());
    WorkerHandle { inbox: tx }
}

impl Worker {
    async fn run(mut self) {
        let now = self.around.clock.now();
        self.record.absorb(Fact::Observed(self.view.observed()), now);
        self.watch_exits();
        let mut node = self.around.node.clone();
        loop {
            let wake_at = loop {
                let plan = self.turn(&node.borrow_and_update().clone());
                if !plan.has_cancelled {
                    break plan.wake_at;
                }
            };
            if self.record.is_gone() {
                break;
            }
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                note = self.inbox.recv() => match note {
                    Some(note) => self.learn(note),
                    None => break, // the roster is gone: the agent ends, pods stay
                },
                () = sleep => self.absorb(Fact::Tick),
                changed = node.changed() => if changed.is_err() { break } else { self.absorb(Fact::Tick) },
            }
            while let Ok(note) = self.inbox.try_recv() {
                self.learn(note);
            }
        }
        if self.record.is_gone() {
            self.around.picture.forget(&self.uid);
            if self.around.gone.send(self.uid.clone()).is_err() {
                tracing::trace!(pod = %self.key, "the roster ended before the pod's worker");
            }
        }
    }

    /// Decides once, publishes, and takes up the steps.
    fn turn(&mut self, node: &NodeFacts) -> Turn {
        let now = self.around.clock.now();
        let plan = self.record.decide(node, now);
        for event in &plan.events {
            events::tell(&self.key, &self.uid, event);
        }
        let status = Arc::new(plan.status);
        self.around.picture.publish(
            &self.uid,
            Shown {
                key: self.key.clone(),
                pod: self.pod.clone(),
                status: status.clone(),
                is_listed: self.source != Source::Runtime,
            },
        );
        self.record.absorb(Fact::Published { status: Box::new((*status).clone()), events: plan.events.len() }, now);
        let has_cancelled = plan.steps.iter().any(|s| matches!(s, Step::Cancel(_)));
        for step in plan.steps {
            self.take_up(step);
        }
        Turn { wake_at: plan.wake_at.map(|at| self.around.clock.instant(at)), has_cancelled }
    }

    fn take_up(&mut self, step: Step) {
        let key = step.key();
        if let Step::Cancel(_) = step {
            if let Some(running) = self.running.remove(&key) {
                running.abort();
            }
            let outcome = Err(StepFailure { reason: "Cancelled".to_owned(), message: "the step was cancelled".to_owned() });
            self.absorb(Fact::StepDone { key, outcome });
            return;
        }
        tracing::trace!(pod = %self.key, step = ?key, "step");
        self.record.absorb(Fact::StepStarted(key.clone()), self.around.clock.now());
        let Some(me) = self.me.upgrade() else { return };
        let (hands, pod) = (self.around.hands.clone(), self.pod_ref());
        let ended = key.clone();
        let node = self.around.node.borrow().clone();
        let task = self.around.life.spawn(async move {
            let (outcome, seen) = execute::execute(&hands, &pod, &node, step, &me).await;
            if me.send(Note::Ended { key: ended, outcome, seen }).await.is_err() {
                tracing::trace!("a step outlived its worker");
            }
        });
        self.running.insert(key, task);
    }

    fn pod_ref(&self) -> execute::PodRef {
        execute::PodRef { uid: self.uid.clone(), key: self.key.clone(), pod: self.pod.clone(), ips: self.view.ips() }
    }

    fn absorb(&mut self, fact: Fact) {
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
            Note::Ended { key, outcome, seen } => {
                self.running.remove(&key);
                if let Err(failure) = &outcome {
                    tracing::debug!(pod = %self.key, step = ?key, reason = %failure.reason, err = %failure.message, "Step failed");
                }
                self.absorb(Fact::StepDone { key, outcome });
                self.see(seen);
            }
            Note::Looked(seen) => {
                self.is_looking = false;
                self.see(seen);
                if let Some(listed) = self.look_again.take() {
                    self.compare(listed);
                }
            }
            Note::Listed(listed) => self.compare(listed),
            Note::Changed(id) => self.look(vec![observer::Ask::ContainerEnded(id)]),
        }
    }

    /// Takes in what was seen; the record learns of it only if something is new.
    fn see(&mut self, seen: Vec<Sighting>) {
        if seen.is_empty() {
            return;
        }
        if self.view.take(seen) {
            self.absorb(Fact::Observed(self.view.observed()));
            self.watch_exits();
        }
    }

    /// Compares a relist with what is known, and looks at what differs.
    fn compare(&mut self, listed: Listed) {
        if self.is_looking {
            self.look_again = Some(listed);
            return;
        }
        let asks = self.view.differences(&listed);
        if !asks.is_empty() {
            self.look(asks);
        }
    }

    fn look(&mut self, asks: Vec<observer::Ask>) {
        let Some(me) = self.me.upgrade() else { return };
        self.is_looking = true;
        let (hands, pod) = (self.around.hands.clone(), self.pod_ref());
        self.around.life.spawn(async move {
            let mut seen = Vec::new();
            for ask in asks {
                seen.extend(observer::look(&hands, &pod.uid, ask).await);
            }
            if me.send(Note::Looked(seen)).await.is_err() {
                tracing::trace!("a look outlived its worker");
            }
        });
    }

    /// Waits for the end of each running container's process that nobody waits for yet.
    fn watch_exits(&mut self) {
        let Some(me) = self.me.upgrade() else { return };
        for (id, pid) in self.view.unwatched() {
            let me = me.downgrade();
            self.around.life.spawn(async move {
                if !observer::process_ended(pid).await {
                    return; // no pidfd: the relist will tell
                }
                if let Some(me) = me.upgrade()
                    && me.send(Note::Changed(id)).await.is_err()
                {
                    tracing::trace!("a container outlived its worker");
                }
            });
        }
    }
}

