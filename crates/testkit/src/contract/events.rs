//! Events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use rubelet_cri::RuntimeError;
use rubelet_proto::cri::{self, ContainerEventType};

use super::checks::{ensure, same, some, until};
use super::pod::SOON;
use super::{Bench, Pod, Result, suite};

suite! {
    "a container's life is told in events" => of_a_container;
    "a sandbox's life is told in events" [Processes] => of_a_sandbox;
    "everyone who listens is told" => listeners;
}

/// One who listens all the time: a runtime may wait for those who do not.
struct Listener {
    heard: Arc<Mutex<Vec<cri::ContainerEventResponse>>>,
    failure: Arc<Mutex<Option<RuntimeError>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// Listens. The stream may begin a moment after it was asked for, and what a runtime without events says comes with its
    /// first item: so something happens until something is heard.
    async fn start(bench: &Arc<Bench>) -> Result<Self> {
        let (heard, failure) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Option<_>>>::default());
        let mut events = bench.runtime().container_events();
        let task = tokio::spawn({
            let (heard, failure) = (heard.clone(), failure.clone());
            async move {
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => held(&heard).push(event),
                        Err(error) => *held(&failure) = Some(error),
                    }
                }
            }
        });
        let this = Self { heard, failure, task };
        let pod = bench.pod().await?;
        let mut config = pod.container("noise", &["true"]);
        for attempt in 0.. {
            if let Some(error) = held(&this.failure).take() {
                return Err(error.into());
            }
            if held(&this.heard).iter().any(|event| is_of(event, &pod)) {
                break;
            }
            config.metadata.get_or_insert_default().attempt = attempt;
            let id = pod.start(config.clone()).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            bench.runtime().stop_container(&id, 0).await?;
            bench.runtime().remove_container(&id).await?;
        }
        Ok(this)
    }

    /// The event of this kind about this container or sandbox.
    async fn hears(&self, id: &str, kind: ContainerEventType) -> Result<cri::ContainerEventResponse> {
        until(&format!("the event {kind:?} of {id}"), SOON, async || {
            let heard = held(&self.heard);
            Ok(heard.iter().find(|event| event.container_id == id && event.container_event_type() == kind).cloned())
        })
        .await
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_of(event: &cri::ContainerEventResponse, pod: &Pod) -> bool {
    event.pod_sandbox_status.as_ref().is_some_and(|status| status.id == pod.id.as_str())
}

async fn of_a_container(bench: Arc<Bench>) -> Result {
    let events = Listener::start(&bench).await?;
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    bench.runtime().stop_container(&id, 1).await?;
    let stopped = events.hears(id.as_str(), ContainerEventType::ContainerStoppedEvent).await?;
    ensure(stopped.created_at > 0, || "its time is not told".to_owned())?;
    let sandbox = some("the sandbox's status", stopped.pod_sandbox_status)?;
    same("the sandbox", sandbox.id.as_str(), pod.id.as_str())
}

async fn of_a_sandbox(bench: Arc<Bench>) -> Result {
    let events = Listener::start(&bench).await?;
    let pod = bench.pod().await?;
    events.hears(pod.id.as_str(), ContainerEventType::ContainerStartedEvent).await?;
    let id = pod.waiting("a").await?;
    events.hears(id.as_str(), ContainerEventType::ContainerCreatedEvent).await?;
    let started = events.hears(id.as_str(), ContainerEventType::ContainerStartedEvent).await?;
    let statuses: Vec<(&str, cri::ContainerState)> =
        started.containers_statuses.iter().map(|status| (status.id.as_str(), status.state())).collect();
    same("the statuses of the pod's containers", statuses, [(id.as_str(), cri::ContainerState::ContainerRunning)])?;
    bench.runtime().stop_container(&id, 1).await?;
    events.hears(id.as_str(), ContainerEventType::ContainerStoppedEvent).await?;
    bench.runtime().remove_container(&id).await?;
    events.hears(id.as_str(), ContainerEventType::ContainerDeletedEvent).await?;
    bench.runtime().stop_pod_sandbox(&pod.id).await?;
    events.hears(pod.id.as_str(), ContainerEventType::ContainerStoppedEvent).await?;
    bench.runtime().remove_pod_sandbox(&pod.id).await?;
    events.hears(pod.id.as_str(), ContainerEventType::ContainerDeletedEvent).await.map(drop)
}

async fn listeners(bench: Arc<Bench>) -> Result {
    let (one, two) = (Listener::start(&bench).await?, Listener::start(&bench).await?);
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    bench.runtime().stop_container(&id, 1).await?;
    one.hears(id.as_str(), ContainerEventType::ContainerStoppedEvent).await?;
    two.hears(id.as_str(), ContainerEventType::ContainerStoppedEvent).await.map(drop)
}
