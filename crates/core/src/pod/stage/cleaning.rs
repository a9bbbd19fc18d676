//! Nothing lives in the pod: what it used is given back, each thing after what stands on it.

use super::{Cleaning, StopCause, active, stopping};
use crate::pod::decide::Planner;
use crate::pod::kill::GRACE_SECS_MIN;
use crate::pod::step::Step;

pub(in crate::pod) fn decide(p: &mut Planner<'_>, cleaning: &Cleaning) {
    let record = p.record;
    let Some(observed) = &record.observed else { return };
    let mut is_still = true;
    for living in record.alive() {
        // It came to life behind our back.
        is_still = false;
        let (container, id) = (living.name.clone(), living.id.clone());
        p.issue(Step::StopContainer { container, id, grace_secs: GRACE_SECS_MIN });
    }
    if !is_still {
        return;
    }
    stopping::stop_sandboxes(p);
    if cleaning.cause == StopCause::ShutDown && !cleaning.is_withdrawn {
        return;
    }
    if !cleaning.is_unmounted {
        p.issue(Step::Unmount);
    } else if !cleaning.has_no_cgroup {
        p.issue(Step::RemoveCgroup);
    }
    if !cleaning.is_withdrawn {
        return active::prune(p);
    }
    for dead in &observed.containers {
        p.issue(Step::RemoveContainer { container: dead.name.clone(), id: dead.id.clone(), keep_logs: false });
    }
    if observed.containers.is_empty() {
        for sandbox in observed.sandboxes.iter().filter(|s| !record.sandbox.to_stop.contains(&s.id)) {
            p.issue(Step::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
    let is_empty = observed.containers.is_empty() && observed.sandboxes.is_empty();
    if is_empty && cleaning.is_unmounted && !cleaning.has_no_dirs {
        p.issue(Step::RemoveDirs);
    }
}
