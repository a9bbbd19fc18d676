//! One name, one pod: who came first keeps a name (and a UID) as long as it is there.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::ids::PodKey;

use super::{DesiredPod, Problem};

/// Which origin a name and a UID belong to.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: BTreeMap<PodKey, String>,
    uids: BTreeMap<String, String>,
}

impl Claims {
    /// Of several pods of one name the one that was there before stays, else the first; the others become problems that
    /// name both places.
    pub(super) fn settle(&mut self, candidates: Vec<DesiredPod>) -> (Vec<DesiredPod>, Vec<Problem>) {
        let still =
            |origin: &str, fits: &dyn Fn(&DesiredPod) -> bool| candidates.iter().any(|c| c.origin == origin && fits(c));
        self.names.retain(|key, origin| still(origin, &|c| c.key() == *key));
        self.uids.retain(|uid, origin| still(origin, &|c| c.uid() == uid));
        let (mut accepted, mut problems) = (Vec::new(), Vec::new());
        let (mut taken, mut taken_uids) = (BTreeSet::new(), BTreeSet::new());
        for pod in candidates {
            let key = pod.key();
            let owner = self.names.entry(key.clone()).or_insert_with(|| pod.origin.clone()).clone();
            let uid_owner = self.uids.entry(pod.uid().to_owned()).or_insert_with(|| pod.origin.clone()).clone();
            if owner != pod.origin || taken.contains(&key) {
                let message =
                    format!("pod {key} is already defined in {owner}, which stays; {} is ignored", pod.origin);
                problems.push(Problem { file: pod.origin, message, double: Some(pod.pod) });
            } else if uid_owner != pod.origin || taken_uids.contains(pod.uid()) {
                let message = format!(
                    "pod {key} has the UID {} of the pod in {uid_owner}, which stays; {} is ignored",
                    pod.uid(),
                    pod.origin
                );
                self.names.remove(&key);
                problems.push(Problem::new(pod.origin, message));
            } else {
                taken.insert(key);
                taken_uids.insert(pod.uid().to_owned());
                accepted.push(pod);
            }
        }
        (accepted, problems)
    }
}
