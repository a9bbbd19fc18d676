//! The task that stops pods, group after group, when the machine goes down, and has the machine wait for that.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::ids::PodUid;
use rubelet_core::pod::Order;
use rubelet_core::shutdown::{Period, Periods};
use rubelet_host::dbus::BusError;
use rubelet_host::dbus::logind::{Logind, Places};
use rubelet_host::{chain, paths, ready};
use tokio::sync::mpsc;

use crate::events::Events;
use crate::metrics::Metrics;
use crate::picture::Picture;
use crate::roster::RosterNote;

/// kubelet 1.36: pause before logind is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// kubelet 1.36: logind takes a new configuration within this many looks, the first pause and each next one twice as long.
const LOOKS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The configuration's part of it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    pub periods: Periods,
    pub logind: Places,
    /// `<root-dir>/graceful_node_shutdown_state`: when the last one began and ended.
    pub state: PathBuf,
}

/// What the task is given.
pub(crate) struct Watching {
    pub(crate) settings: Shutdown,
    pub(crate) node_name: String,
    pub(crate) events: Events,
    pub(crate) picture: Picture,
    pub(crate) roster: mpsc::Sender<RosterNote>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why logind cannot be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(
        "node shutdown manager was timed out after {LOOKS} attempts waiting for logind InhibitDelayMaxSec to update to {wanted:?} \
         (ShutdownGracePeriod), current value is {found:?}"
    )]
    Delay { wanted: Duration, found: Duration },
    #[error("wait for logind")]
    Wait(#[from] std::io::Error),
    #[error("talking to logind broke")]
    Broke,
}

impl Watching {
    /// Follows logind for good.
    pub(crate) async fn run(self) {
        let mut said = String::new();
        loop {
            let Err(error) = self.follow().await;
            let now = chain(&error);
            if now != said {
                tracing::error!(err = now, "unable to watch the node for shutdown events; trying again every second");
            }
            said = now;
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, FollowError> {
        let (places, wanted) = (self.settings.logind.clone(), self.settings.periods.whole());
        let (mut logind, lock) = blocking(move || begin(&places, wanted)).await?;
        tracing::info!(delay = ?wanted, "the machine waits for pods when it goes down");
        let mut lock = Some(lock);
        loop {
            let does = loop {
                if let Some(does) = logind.said()? {
                    break does;
                }
                ready::readable(&logind).await?;
                logind = blocking(move || logind.hear().map(|()| logind).map_err(Into::into)).await?;
            };
            let what = if does { "event" } else { "cancellation" };
            let message = format!("Shutdown manager detected shutdown {what}");
            tracing::info!(message, "logind speaks");
            self.events.tell_of_node(&self.node_name, "Normal", "Shutdown", &message);
            // A roster that has ended stops nobody.
            drop(self.roster.send(RosterNote::GoesDown(does)).await);
            if does {
                self.stop_pods().await;
                // The machine goes on.
                lock = None;
            } else {
                drop(lock.take());
                let (again, new) = blocking(move || {
                    let new = logind.inhibit()?;
                    Ok((logind, new))
                })
                .await?;
                (logind, lock) = (again, Some(new));
            }
        }
    }

    async fn stop_pods(&self) {
        let began = Timestamp::now();
        self.note(began, None).await;
        let pods = self.active();
        let priorities: Vec<i32> = pods.iter().map(|(_, priority)| *priority).collect();
        for (period, members) in self.settings.periods.groups(&priorities) {
            let group: Vec<PodUid> = members.into_iter().map(|place| pods[place].0.clone()).collect();
            self.stop_group(period, &group).await;
        }
        self.note(began, Some(Timestamp::now())).await;
        tracing::info!("all pods were stopped; the machine goes down");
    }

    /// kubelet 1.36: the next group begins when this one has ended, or when its time is over.
    async fn stop_group(&self, period: Period, group: &[PodUid]) {
        let mut version = self.picture.version();
        for uid in group {
            let order = Order::ShutDown { grace_secs: Some(period.secs) };
            drop(self.roster.send(RosterNote::Order(uid.clone(), order)).await);
        }
        let has_ended = |uid: &PodUid| !self.picture.is_shown(uid) || self.picture.has_ended(uid);
        let all = async { while !group.iter().all(has_ended) && version.changed().await.is_ok() {} };
        let most = Duration::from_secs(u64::try_from(period.secs).unwrap_or(0));
        match tokio::time::timeout(most, all).await {
            Ok(()) => tracing::info!(priority = period.priority, pods = group.len(), "a group of pods has ended"),
            Err(_) => tracing::warn!(priority = period.priority, secs = period.secs, "a group of pods takes too long"),
        }
    }

    /// Pods that have not ended, with their priorities.
    fn active(&self) -> Vec<(PodUid, i32)> {
        let uid = |s: &crate::picture::Shown| PodUid::new(s.pod.metadata.uid.as_deref().unwrap_or_default());
        let priority = |s: &crate::picture::Shown| s.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let all = self.picture.listed().into_iter().map(|s| (uid(&s), priority(&s)));
        all.filter(|(uid, _)| !self.picture.has_ended(uid)).collect()
    }

    /// kubelet 1.36: both times, the second one a zero while it lasts.
    async fn note(&self, began: Timestamp, ended: Option<Timestamp>) {
        let secs = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
        self.metrics.node.shutdown_began.set(secs(began));
        self.metrics.node.shutdown_ended.set(ended.map_or(0.0, secs));
        let path = self.settings.state.clone();
        let wrote = rubelet_host::task::blocking(move || write(&path, began, ended)).await;
        if let Ok(Err(err)) = wrote {
            tracing::error!(err, "failed to store graceful shutdown state");
        }
    }
}

fn write(path: &Path, began: Timestamp, ended: Option<Timestamp>) -> Result<(), String> {
    let ended = ended.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
    let text = serde_json::json!({ "startTime": began.to_string(), "endTime": ended }).to_string();
    paths::write_atomic(path, text.as_bytes(), 0o644).map_err(|e| chain(&e))
}

/// Has logind wait long enough, and for us.
fn begin(places: &Places, wanted: Duration) -> Result<(Logind, OwnedFd), FollowError> {
    let mut logind = Logind::connect(places)?;
    if logind.delay_max()? < wanted {
        logind.set_delay_max(wanted)?;
        let mut pause = FIRST_PAUSE;
        for look in 1.. {
            let found = logind.delay_max()?;
            if found >= wanted {
                break;
            }
            if look == LOOKS {
                return Err(FollowError::Delay { wanted, found });
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
    let lock = logind.inhibit()?;
    logind.listen()?;
    Ok((logind, lock))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FollowError> + Send + 'static,
) -> Result<T, FollowError> {
    rubelet_host::task::blocking(work).await.unwrap_or(Err(FollowError::Broke))
}
