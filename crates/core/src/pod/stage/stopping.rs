//! A pod that is being stopped: its containers within their grace, then its sandboxes.

use crate::pod::decide::Planner;
use crate::pod::kill;
use crate::pod::stage::Stage;
use crate::pod::step::{HookKind, ProbeKind, Step, StepKey};

pub(in crate::pod) fn decide(p: &mut Planner<'_>) {
    let record = p.record;
    let superfluous: Vec<StepKey> = record
        .steps
        .under_way()
        .filter(|key| {
            matches!(
                key,
                StepKey::EnsureImage(_)
                    | StepKey::RunHook(_, HookKind::PostStart)
                    | StepKey::Probe(_, ProbeKind::Startup | ProbeKind::Liveness)
            )
        })
        .cloned()
        .collect();
    for key in superfluous {
        p.cancel(key);
    }
    if let Stage::Stopping(stopping) = &record.stage
        && let Some(at) = stopping.overdue_at()
    {
        p.wake(at);
    }
    kill::decide(p);
    if record.alive().next().is_none() && !record.is_making_something() {
        stop_sandboxes(p);
        if record.sandbox.to_stop.is_empty() && !record.is_laying_ground() && record.holds_claims() {
            p.issue(Step::ReleaseClaims);
        }
    }
    if let Some((_, since)) = record.sandbox.awaited {
        p.wake(since + crate::pod::look::PATIENCE);
    }
}

/// Stops every sandbox that was ready and was not stopped by us.
pub(super) fn stop_sandboxes(p: &mut Planner<'_>) {
    for id in &p.record.sandbox.to_stop {
        p.issue(Step::StopSandbox { id: id.clone() });
    }
}
