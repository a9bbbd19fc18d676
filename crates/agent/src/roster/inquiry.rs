//! What the roster asks the runtime. Each question is a task of its own: a runtime that is slow to answer about one pod holds up
//! that pod alone.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::Source;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::adopt;
use super::survey::{self, FoundPod};
use crate::hands::Hands;
use crate::life::Life;
use crate::observer::relist::{self, ListedPod};
use crate::sources::DesiredPod;

/// Pause before the runtime is asked again about a pod whose worker broke.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one look at a pod may take before it counts as it is.
const PATIENCE: Duration = Duration::from_secs(600);

/// A question that was answered.
#[derive(Debug)]
pub(super) enum Finding {
    /// What is there of a pod that a relist showed and nobody knew.
    Found(PodUid, Box<FoundPod>),
    /// What is there of a pod whose worker broke.
    Reexamined(PodUid, Box<FoundPod>),
    /// Which running pod, if any, is the wanted one. The number is the question's.
    Compared { number: u64, source: Source, key: PodKey, is_it: Option<PodUid> },
}

/// Asks; answers come in any order. One at most is waiting for each pod.
#[derive(Debug)]
pub(super) struct Inquiry {
    life: Life,
    hands: HandsRef,
    answers: mpsc::UnboundedSender<Finding>,
}

struct HandsRef(Arc<Hands>);

impl std::fmt::Debug for HandsRef {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Hands")
    }
}

impl Inquiry {
    pub(super) fn new(life: Life, hands: Arc<Hands>) -> (Self, mpsc::UnboundedReceiver<Finding>) {
        let (answers, findings) = mpsc::unbounded_channel();
        (Self { life, hands: HandsRef(hands), answers }, findings)
    }

    /// Looks at a pod that nobody knew.
    pub(super) fn look(&self, uid: PodUid, listed: ListedPod) {
        let hands = self.hands.0.clone();
        self.ask(async move {
            let found = survey::find(&hands, &uid, listed, Instant::now() + PATIENCE).await;
            Finding::Found(uid, Box::new(found))
        });
    }

    /// Looks at a pod whose worker broke, until the runtime answers.
    pub(super) fn reexamine(&self, uid: PodUid, key: PodKey) {
        let hands = self.hands.0.clone();
        self.ask(async move {
            let rows = loop {
                match relist::one(&hands, &uid).await {
                    Ok(rows) => break rows,
                    Err(e) => {
                        tracing::warn!(%uid, err = %e, "looking at the pod of a broken worker failed, trying again");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            let listed = ListedPod { key: Some(key), rows, ..ListedPod::default() };
            let found = survey::find(&hands, &uid, listed, Instant::now() + PATIENCE).await;
            Finding::Reexamined(uid, Box::new(found))
        });
    }

    /// Compares running pods with a wanted one; the first that is the same is it.
    pub(super) fn compare(
        &self,
        number: u64,
        source: Source,
        desired: DesiredPod,
        candidates: Vec<(PodUid, FoundPod)>,
        node: Arc<NodeFacts>,
    ) -> AbortHandle {
        let hands = self.hands.0.clone();
        self.ask(async move {
            let mut is_it = None;
            for (uid, found) in candidates {
                if is_as_wanted(&hands, &uid, found, &desired, &node).await {
                    is_it = Some(uid);
                    break;
                }
            }
            Finding::Compared { number, source, key: desired.key(), is_it }
        })
    }

    fn ask(&self, question: impl Future<Output = Finding> + Send + 'static) -> AbortHandle {
        let answers = self.answers.clone();
        self.life.spawn(async move {
            if answers.send(question.await).is_err() {
                tracing::trace!("the roster ended before its question was answered");
            }
        })
    }
}

/// Asks until the runtime answers: a pod is not ended because nobody said what it is.
async fn is_as_wanted(
    hands: &Hands,
    uid: &PodUid,
    mut found: FoundPod,
    desired: &DesiredPod,
    node: &NodeFacts,
) -> bool {
    loop {
        if found.is_complete() {
            if let Some(is_it) = adopt::runs_as_wanted(hands, &found, &desired.pod, uid, node).await {
                return is_it;
            }
        } else {
            found = survey::find(hands, uid, found.listed, Instant::now() + PATIENCE).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
