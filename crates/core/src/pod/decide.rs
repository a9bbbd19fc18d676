//! What follows from a record: what to do, what to show, when to decide again.

use std::collections::BTreeSet;
use std::time::Duration;

use rubelet_api::v1;

use super::event::PodEvent;
use super::fact::StepFailure;
use super::needs::{self, Needs};
use super::record::PodRecord;
use super::stage::{self, Stage};
use super::step::{Step, StepKey};
use super::steps::Leave;
use super::{kill, probe, restart_all};
use crate::node::NodeFacts;
use crate::now::{Mono, Now};

/// The answer of [`PodRecord::decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct PodPlan {
    /// Steps to take up now; those under way are not repeated.
    pub steps: Vec<Step>,
    /// Steps that are due and cannot be taken: each is absorbed as started and failed.
    pub refused: Vec<(StepKey, StepFailure)>,
    /// What the API shows.
    pub status: v1::PodStatus,
    /// Events that were not told yet.
    pub events: Vec<PodEvent>,
    /// Objects that the pod needs: to be fetched, and again when they change. None for a pod that starts nothing any more.
    pub needs: Needs,
    /// Decide again then, at the latest.
    pub wake_at: Option<Mono>,
}

impl PodRecord {
    /// What follows from all that is known. Pure: the same record, node and time give the same plan.
    pub fn decide(&self, node: &NodeFacts, now: Now) -> PodPlan {
        let mut planner = Planner {
            record: self,
            node,
            now,
            steps: Vec::new(),
            refused: Vec::new(),
            issued: BTreeSet::new(),
            wake_at: None,
            events: Vec::new(),
        };
        planner.plan();
        let Planner { steps, refused, wake_at, events: fresh, .. } = planner;
        let status = self.status(node, now);
        let events = self.events.iter().cloned().chain(fresh).collect();
        let is_needy = matches!(self.stage, Stage::Queued { .. } | Stage::Active);
        let needs = if is_needy { needs::needs(&self.pod, self.source, node, &self.inputs) } else { Needs::new() };
        PodPlan { steps, refused, status, events, needs, wake_at }
    }
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) record: &'a PodRecord,
    pub(super) node: &'a NodeFacts,
    pub(super) now: Now,
    steps: Vec<Step>,
    refused: Vec<(StepKey, StepFailure)>,
    issued: BTreeSet<StepKey>,
    wake_at: Option<Mono>,
    /// Events that follow from deciding, behind the record's own.
    pub(super) events: Vec<PodEvent>,
}

impl Planner<'_> {
    fn plan(&mut self) {
        let record = self.record;
        if record.observed.is_none() {
            return;
        }
        match &record.stage {
            Stage::Queued { .. } | Stage::Gone => {}
            Stage::Active => {
                match &record.restart_all {
                    Some(all) => {
                        kill::decide(self);
                        restart_all::decide(self, all);
                    }
                    None => stage::active::decide(self),
                }
                probe::decide(self);
            }
            Stage::Stopping(_) => {
                stage::stopping::decide(self);
                probe::decide(self);
            }
            Stage::Cleaning(cleaning) => stage::cleaning::decide(self, cleaning),
        }
    }

    /// Takes a step into the plan, unless it is under way, was done just now, or failed just now.
    pub(super) fn issue(&mut self, step: Step) -> bool {
        let key = step.key();
        match self.record.steps.leave(&key, self.now.mono) {
            Leave::Granted => {
                let is_new = self.issued.insert(key);
                if is_new {
                    self.steps.push(step);
                }
                is_new
            }
            Leave::UnderWay => false,
            Leave::From(at) => {
                self.wake(at);
                false
            }
        }
    }

    /// Whether [`Self::issue`] would take the step now, so that it is worth rendering.
    pub(super) fn may_issue(&mut self, key: &StepKey) -> bool {
        match self.record.steps.leave(key, self.now.mono) {
            Leave::Granted => !self.issued.contains(key),
            Leave::UnderWay => false,
            Leave::From(at) => {
                self.wake(at);
                false
            }
        }
    }

    /// Takes a step into the plan that cannot be taken, because what it needs cannot be rendered.
    pub(super) fn refuse(&mut self, key: StepKey, failure: StepFailure) {
        match self.record.steps.leave(&key, self.now.mono) {
            Leave::Granted if self.issued.insert(key.clone()) => self.refused.push((key, failure)),
            Leave::Granted | Leave::UnderWay => {}
            Leave::From(at) => self.wake(at),
        }
    }

    /// Ends a step that is under way.
    pub(super) fn cancel(&mut self, key: StepKey) {
        if self.record.steps.is_under_way(&key) {
            self.steps.push(Step::Cancel(key));
        }
    }

    /// Decide again then.
    pub(super) fn wake(&mut self, at: Mono) {
        let at = at.max(self.now.mono + Duration::from_millis(1));
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}
