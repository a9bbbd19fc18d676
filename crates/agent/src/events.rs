//! Kubernetes events: a line in the log, and objects on the API server where there is one.
//!
//! Nobody waits for an event to be told: it goes into a queue, which one task empties in its own time. What has no room there is lost,
//! and the log says so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::backoff::Chance;
use rubelet_apiserver::{Client, Error, events};
use rubelet_core::event::{About, Correlator, Happening, Told};
use rubelet_core::pod::PodEvent;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::clock::Clock;
use crate::life::Life;

/// kubelet 1.36: events that wait for the API server.
const QUEUE: usize = 1000;
/// kubelet 1.36: how often one is tried, and the pause between; the first pause is a random part of it.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_secs(10);
/// The API server's word for a namespace that takes nothing new.
const TERMINATING: &str = "NamespaceTerminating";

/// The API server's part in events.
#[derive(Clone)]
pub struct EventSettings {
    /// At the rate of `eventRecordQPS` and `eventBurst`.
    pub client: Client,
    /// What waits are spread by; another number on each node.
    pub seed: u64,
}

/// Where events are told. Clones share one queue.
#[derive(Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Happening>>,
    clock: Clock,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("has_api_server", &self.queue.is_some()).finish_non_exhaustive()
    }
}

impl Events {
    /// Without an API server: the log is all there is.
    pub fn standalone(clock: Clock) -> Self {
        Self { queue: None, clock }
    }

    /// Starts the task that writes them to an API server, in the name of a node.
    pub fn start(settings: EventSettings, node_name: &str, clock: Clock, life: &Life) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let correlator = Correlator::new(node_name);
        let EventSettings { client, seed } = settings;
        life.spawn(Scribe { client, correlator, clock, chance: Chance::new(seed) }.run(waiting));
        Self { queue: Some(queue), clock }
    }

    /// Tells of an event about a node.
    pub fn tell_of_node(&self, name: &str, type_: &'static str, reason: &str, message: &str) {
        tracing::info!(
            target: "event",
            object = %name,
            fieldPath = %"",
            kind = "Node",
            apiVersion = "v1",
            r#type = %type_,
            reason = %reason,
            message = %message,
            "Event occurred"
        );
        self.queue(|at| Happening {
            about: About::node(name),
            type_,
            reason: reason.to_owned(),
            message: message.to_owned(),
            annotations: BTreeMap::new(),
            at,
        });
    }

    /// Tells of an event about a pod: of a static pod under its own UID, not that of its mirror.
    ///
    /// Kubelet 1.36: seen in the log at `--v` ≥ 3 only, in exactly this line.
    pub fn tell(&self, pod: &v1::Pod, event: &PodEvent) {
        let word = |of: &'_ Option<String>| of.clone().unwrap_or_default();
        let (namespace, name) = (word(&pod.metadata.namespace), word(&pod.metadata.name));
        tracing::info!(
            target: "event",
            object = %format_args!("{namespace}/{name}"),
            fieldPath = %event.field_path,
            kind = "Pod",
            apiVersion = "v1",
            r#type = %event.type_,
            reason = %event.reason,
            message = %event.message,
            "Event occurred"
        );
        self.queue(|at| Happening {
            about: About::pod(pod, &event.field_path),
            type_: event.type_,
            reason: event.reason.clone(),
            message: event.message.clone(),
            annotations: event.annotations.clone(),
            at,
        });
    }

    fn queue(&self, happening: impl FnOnce(rubelet_core::now::Wall) -> Happening) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(lost)) = queue.try_send(happening(self.clock.now().wall)) {
            let Happening { about, reason, message, .. } = lost;
            tracing::error!(
                object = about.name,
                reason,
                message,
                "Unable to record event: too many queued events, dropped event"
            );
        }
    }
}

/// The task that writes events to the API server, one after the other.
struct Scribe {
    client: Client,
    correlator: Correlator,
    clock: Clock,
    chance: Chance,
}

impl Scribe {
    async fn run(mut self, mut waiting: mpsc::Receiver<Happening>) {
        while let Some(happening) = waiting.recv().await {
            if let Some(told) = self.correlator.tell(happening, self.clock.now()) {
                self.write(&told).await;
            }
        }
    }

    /// Tries until the server has it, does not want it, or cannot be reached for too long.
    async fn write(&mut self, told: &Told) {
        let event = &told.event;
        let (name, reason) = (event.metadata.name.as_deref().unwrap_or_default(), event.reason.as_deref());
        for tries in 1.. {
            let Err(err) = self.try_once(told).await else { return };
            match &err {
                Error::Refused { .. } if err.is_already_exists() || is_terminating(&err) => {
                    tracing::debug!(event = name, reason, %err, "Server rejected event (will not retry!)");
                    return;
                }
                Error::Refused { .. } => {
                    tracing::error!(event = name, reason, %err, "Server rejected event (will not retry!)");
                    return;
                }
                Error::Connect { .. }
                | Error::Broken { .. }
                | Error::Late { .. }
                | Error::TooLong { .. }
                | Error::Unreadable { .. }
                | Error::Credentials { .. } => {
                    tracing::warn!(event = name, reason, %err, "Unable to write event (may retry after sleeping)");
                }
            }
            if tries >= TRIES {
                tracing::error!(event = name, reason, "Unable to write event (retry limit exceeded!)");
                return;
            }
            let pause = if tries == 1 { PAUSE.mul_f64(self.chance.share()) } else { PAUSE };
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_once(&self, told: &Told) -> Result<(), Error> {
        let event = &told.event;
        if let Some(change) = &told.change {
            let namespace = event.metadata.namespace.as_deref().unwrap_or(events::CLUSTER_NAMESPACE);
            let name = event.metadata.name.as_deref().unwrap_or_default();
            match events::repeat(&self.client, namespace, name, change.clone()).await {
                // The server forgets events after an hour.
                Err(e) if e.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        events::create(&self.client, event).await.map(drop)
    }
}

fn is_terminating(error: &Error) -> bool {
    let details = error.refusal().and_then(|r| r.status.details.as_ref());
    let mut causes = details.and_then(|d| d.causes.as_deref()).unwrap_or_default().iter();
    causes.any(|cause| cause.reason.as_deref() == Some(TERMINATING))
}

#[cfg(test)]
mod tests;
