//! Wanted pods of which it is not known yet whether they run already.

use std::collections::BTreeMap;

use rubelet_api::ids::PodKey;
use rubelet_core::pod::Source;
use tokio::task::AbortHandle;

use crate::sources::DesiredPod;

/// The open questions, one for each pod of a source at most.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<(Source, PodKey), Question>,
    count: u64,
}

#[derive(Debug)]
struct Question {
    /// Tells it from an older one about the same pod.
    number: u64,
    desired: DesiredPod,
    /// Who asks.
    task: AbortHandle,
}

impl Questions {
    /// Opens a question; `ask` gets its number.
    pub(super) fn open(&mut self, source: Source, desired: DesiredPod, ask: impl FnOnce(u64) -> AbortHandle) {
        self.count += 1;
        let number = self.count;
        self.open.insert((source, desired.key()), Question { number, desired, task: ask(number) });
    }

    /// The pod that the question was about; `None`: nobody wants to know any more.
    pub(super) fn close(&mut self, number: u64, source: Source, key: &PodKey) -> Option<DesiredPod> {
        let place = (source, key.clone());
        if self.open.get(&place)?.number != number {
            return None;
        }
        self.open.remove(&place).map(|question| question.desired)
    }

    /// The source has a new wish.
    pub(super) fn drop_all_of(&mut self, source: Source) {
        for (_, question) in self.open.extract_if(.., |(of, _), _| *of == source) {
            question.task.abort();
        }
    }

    pub(super) fn has_any_of(&self, source: Source) -> bool {
        self.open.keys().any(|(of, _)| *of == source)
    }
}
