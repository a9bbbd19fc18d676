//! When the node's status is looked at, and when it is written.

use std::time::Duration;

use rubelet_api::v1;

use crate::now::Mono;

/// kubelet 1.36: how often a write is tried before it is left to the next look.
pub const TRIES: u32 = 5;
/// kubelet 1.36: waits between attempts to register.
pub const REGISTER_FIRST: Duration = Duration::from_millis(100);
pub const REGISTER_MOST: Duration = Duration::from_secs(7);

/// Remembers when the status was written last.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// `nodeStatusUpdateFrequency`.
    update_every: Duration,
    /// `nodeStatusReportFrequency`.
    report_every: Duration,
    /// When a status is due that says nothing new; `None` before the first was written.
    due: Option<Mono>,
}

impl Reporting {
    #[must_use]
    pub fn new(update_every: Duration, report_every: Duration) -> Self {
        Self { update_every, report_every, due: None }
    }

    /// How long until the next look. kubelet 1.36: up to 4 % later.
    #[must_use]
    pub fn next_look(&self, chance: f64) -> Duration {
        self.update_every.mul_f64(1.0 + 0.04 * chance)
    }

    /// Whether it is time to write whatever the status is.
    #[must_use]
    pub fn is_due(&self, now: Mono) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// The status was written. kubelet 1.36: after a change the next is due half the time earlier or later, so that nodes whose
    /// statuses changed together do not report together for ever.
    pub fn wrote(&mut self, now: Mono, has_changed: bool, chance: f64) {
        let share = if has_changed { 0.5 + chance } else { 1.0 };
        self.due = Some(now + self.report_every.mul_f64(share));
    }
}

/// Whether a node says something else than before; that it says it again is nothing else.
#[must_use]
pub fn has_changed(known: &v1::Node, new: &v1::Node) -> bool {
    known.metadata.labels != new.metadata.labels
        || known.metadata.annotations != new.metadata.annotations
        || still(known.status.as_ref()) != still(new.status.as_ref())
}

fn still(status: Option<&v1::NodeStatus>) -> v1::NodeStatus {
    let mut status = status.cloned().unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}
