//! ConfigMaps and Secrets: watched one by one, or asked for again now and then.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::backoff::Chance;
use rubelet_apiserver::{Change, Path, Selector};
use rubelet_core::pod::needs::{Got, ObjectName};
use tokio::time::{Instant, sleep, sleep_until};

use super::fetch::{PATIENCE, Strategy, Teller, Tools, refusal_text};

/// How long what was there may be gone before that is told: who takes down an application deletes its objects a moment before its pods,
/// and who replaces an object deletes it a moment before the new one is there.
const DOUBT: Duration = Duration::from_secs(5);

/// The two kinds that are fetched alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// As upstream's messages have it.
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// What both kinds are to those who need them.
pub(super) trait Needed: rubelet_apiserver::Object + rubelet_api::Resource {
    /// Whether it never changes again.
    fn is_immutable(&self) -> bool;
    fn got(self) -> Got;
}

impl Needed for v1::ConfigMap {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }

    fn got(self) -> Got {
        Got::ConfigMap(Arc::new(self))
    }
}

impl Needed for v1::Secret {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }

    fn got(self) -> Got {
        Got::Secret(Arc::new(self))
    }
}

/// Tells what the object is for as long as it is needed; of an immutable one only once.
pub(super) async fn follow<T: Needed>(of: ObjectName, kind: Kind, tools: &Tools, teller: &Teller) {
    match tools.strategy {
        Strategy::Watch => watch::<T>(&of, kind, tools, teller).await,
        Strategy::Cache | Strategy::Get => poll::<T>(&of, tools, teller).await,
    }
}

async fn watch<T: Needed>(of: &ObjectName, kind: Kind, tools: &Tools, teller: &Teller) {
    let missing = || Got::NotFound(format!("{} \"{}\" not found", kind.word(), of.name));
    let mut watch = tools.client.list_watch::<T>(Path::within::<T>(&of.namespace), Selector::name(&of.name));
    let deadline = Instant::now() + PATIENCE;
    // kubelet 1.36: the words when nothing is heard.
    let mut trouble = format!("failed to sync {} cache: timed out waiting for the condition", kind.word());
    let (mut is_known, mut is_late) = (false, false);
    let mut gone_since: Option<Instant> = None;
    loop {
        let change = tokio::select! {
            change = watch.next() => change,
            () = sleep_until(deadline), if !is_known && !is_late => {
                is_late = true;
                teller.tell(Got::Failed(trouble.clone())).await;
                continue;
            }
            () = sleep_until(gone_since.unwrap_or(deadline) + DOUBT), if gone_since.is_some() => {
                gone_since = None;
                teller.tell(missing()).await;
                continue;
            }
        };
        let object = match change {
            None => return,
            Some(Change::Interrupted(error)) => {
                if !is_known && !error.is_unreachable() {
                    trouble = refusal_text(&error);
                    if is_late {
                        teller.tell(Got::Failed(trouble.clone())).await;
                    }
                }
                continue;
            }
            Some(Change::Replaced(all, _)) => match all.into_iter().next() {
                Some(object) => Some(object),
                // A list comes from the server's cache, which may not know yet what was made just before the pod.
                None => tools.client.get::<T>(&Path::to::<T>(&of.namespace, &of.name)).await.ok(),
            },
            Some(Change::Upserted(object)) => Some(object),
            Some(Change::Removed(_)) => {
                gone_since = Some(Instant::now());
                continue;
            }
        };
        is_known = true;
        gone_since = None;
        match object {
            None => teller.tell(missing()).await,
            Some(object) => {
                let is_last = object.is_immutable();
                teller.tell(object.got()).await;
                if is_last {
                    return;
                }
            }
        }
    }
}

async fn poll<T: Needed>(of: &ObjectName, tools: &Tools, teller: &Teller) {
    let path = Path::to::<T>(&of.namespace, &of.name);
    let mut chance = Chance::new(tools.seed());
    let mut is_known = false;
    loop {
        let answer = match tools.strategy {
            Strategy::Cache => tools.client.get_cached::<T>(&path).await,
            Strategy::Watch | Strategy::Get => tools.client.get::<T>(&path).await,
        };
        match answer {
            Ok(object) => {
                let is_last = object.is_immutable();
                is_known = true;
                teller.tell(object.got()).await;
                if is_last {
                    return;
                }
            }
            Err(error) if error.is_not_found() => {
                is_known = true;
                teller.tell(Got::NotFound(refusal_text(&error))).await;
            }
            // What was known holds on.
            Err(error) if is_known => tracing::debug!(path = %path, err = %error, "reading an object again failed"),
            Err(error) => teller.tell(Got::Failed(refusal_text(&error))).await,
        }
        sleep(tools.period.mul_f64(1.0 + 0.1 * chance.share())).await;
    }
}
