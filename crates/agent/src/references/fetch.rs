//! One task for each thing that is needed: it tells what the thing is, and again when that changes, until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rubelet_api::groups::node_v1::RuntimeClass;
use rubelet_api::v1;
use rubelet_apiserver::{Change, Client, Error, Object, Path, Selector};
use rubelet_core::pod::needs::{Got, Need};
use rubelet_core::pod::services::Service;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::objects::{self, Kind};
use super::{Report, Root, anchors, certificates, claims, csi, resource_claims, tokens};
use crate::events::Events;
use crate::life::Life;
use crate::metrics::Metrics;

/// How long the first answer may take before pods are told that it does.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// `configMapAndSecretChangeDetectionStrategy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// One watch for each object.
    Watch,
    /// Asked for again now and then; the API server may answer from memory.
    Cache,
    /// Asked for again now and then.
    Get,
}

impl Strategy {
    /// By its name in `KubeletConfiguration`; validation refused all others.
    pub fn of(name: &str) -> Self {
        match name {
            "Cache" => Self::Cache,
            "Get" => Self::Get,
            _ => Self::Watch,
        }
    }
}

/// From where objects are fetched, and how.
#[derive(Clone)]
pub struct ReferenceSettings {
    pub client: Client,
    pub strategy: Strategy,
    /// Asked for again after so long, where nothing is watched.
    pub period: Duration,
    /// What waits are spread by; another number on each node.
    pub seed: u64,
}

/// Whom else those who fetch know.
#[derive(Clone)]
pub(crate) struct Around {
    /// Rung when the node has no room for a volume.
    pub full: Arc<Notify>,
    /// The node's name.
    pub node: String,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

/// What those who fetch share.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) client: Client,
    pub(super) strategy: Strategy,
    pub(super) period: Duration,
    pub(super) around: Around,
    /// Keys are made one at a time: that is work.
    pub(super) keys: Arc<Semaphore>,
    seeds: Arc<AtomicU64>,
    life: Life,
}

/// Where one fetch reports.
pub(super) struct Teller {
    root: Root,
    number: u64,
    reports: mpsc::Sender<Report>,
}

impl Teller {
    pub(super) async fn tell(&self, got: Got) {
        let report = Report { root: self.root.clone(), number: self.number, got };
        if self.reports.send(report).await.is_err() {
            tracing::trace!("an object came after the references had ended");
        }
    }
}

impl Tools {
    pub(super) fn new(settings: ReferenceSettings, around: Around, life: Life) -> Self {
        let ReferenceSettings { client, strategy, period, seed } = settings;
        Self {
            client,
            strategy,
            period,
            around,
            keys: Arc::new(Semaphore::new(1)),
            seeds: Arc::new(AtomicU64::new(seed)),
            life,
        }
    }

    /// A seed of its own for each who asks.
    pub(super) fn seed(&self) -> u64 {
        self.seeds.fetch_add(0x9e37_79b9, Ordering::Relaxed)
    }

    /// Starts the task of one thing.
    pub(super) fn start(&self, root: Root, number: u64, reports: mpsc::Sender<Report>) -> AbortHandle {
        let tools = self.clone();
        self.life.spawn(async move {
            let teller = Teller { root: root.clone(), number, reports };
            match root {
                Root::Services => services(&tools, &teller).await,
                Root::Of(Need::ConfigMap(of)) => {
                    objects::follow::<v1::ConfigMap>(of, Kind::ConfigMap, &tools, &teller).await
                }
                Root::Of(Need::Secret(of)) => objects::follow::<v1::Secret>(of, Kind::Secret, &tools, &teller).await,
                Root::Of(Need::Token(of)) => tokens::follow(of, &tools, &teller).await,
                Root::Of(Need::Claim(of)) => claims::follow(of, &tools, &teller).await,
                Root::Of(Need::CsiDriver(name)) => csi::driver(&name, &tools, &teller).await,
                Root::Of(Need::Attachment(of)) => csi::attachment(&of, &tools, &teller).await,
                Root::Of(Need::TrustAnchors(of)) => anchors::follow(&of, &tools, &teller).await,
                Root::Of(Need::Certificate(of)) => certificates::follow(*of, &tools, &teller).await,
                Root::Of(Need::RuntimeClass(name)) => runtime_class(&name, &tools, &teller).await,
                Root::Of(Need::ResourceClaim(of)) => resource_claims::follow(of, &tools, &teller).await,
                // They are fetched as a whole.
                Root::Of(Need::Services { .. }) => {}
            }
        })
    }
}

/// What users are told of a refusal: the API server's own words.
pub(super) fn refusal_text(error: &Error) -> String {
    let message = error.refusal().and_then(|r| r.status.message.clone()).filter(|m| !m.is_empty());
    message.unwrap_or_else(|| rubelet_host::chain(error))
}

/// All services, as far as the environment shows them.
async fn services(tools: &Tools, teller: &Teller) {
    let mut watch = tools.client.list_watch::<v1::Service>(Path::all::<v1::Service>(), Selector::all());
    let mut known: Option<Vec<Service>> = None;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut is_late = false;
    loop {
        let change = tokio::select! {
            change = watch.next() => change,
            () = tokio::time::sleep_until(deadline), if known.is_none() && !is_late => {
                is_late = true;
                // kubelet 1.36: the words.
                let why = "services have not yet been read at least once, cannot construct envvars";
                teller.tell(Got::Failed(why.to_owned())).await;
                continue;
            }
        };
        let before = known.clone();
        match change {
            None => return,
            Some(Change::Interrupted(error)) => {
                tracing::debug!(err = %error, "watching services is interrupted");
            }
            Some(Change::Replaced(all, _)) => {
                let mut all: Vec<Service> = all.iter().filter_map(Service::of).collect();
                all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
                known = Some(all);
            }
            Some(Change::Upserted(service) | Change::Removed(service)) if known.is_none() => drop(service),
            Some(Change::Upserted(service)) => replace(&mut known, &service, Service::of(&service)),
            Some(Change::Removed(service)) => replace(&mut known, &service, None),
        }
        if let Some(all) = known.clone().filter(|_| known != before) {
            teller.tell(Got::Services(Arc::new(all))).await;
        }
    }
}

/// The list with that service as it is now, in the same order.
fn replace(known: &mut Option<Vec<Service>>, object: &v1::Service, now: Option<Service>) {
    let Some(known) = known else { return };
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    known.retain(|s| (s.namespace.as_str(), s.name.as_str()) != (namespace, name));
    if let Some(service) = now {
        let at = known.partition_point(|s| (s.namespace.as_str(), s.name.as_str()) < (namespace, name));
        known.insert(at, service);
    }
}

/// The handler that a class stands for, for as long as somebody needs it.
async fn runtime_class(name: &str, tools: &Tools, teller: &Teller) {
    let late = format!("failed to lookup RuntimeClass {name}: it has not been read yet");
    let got = |class: Option<RuntimeClass>| match class {
        Some(class) => Got::RuntimeClass(class.handler.into()),
        // kubelet 1.36: the words.
        None => Got::NotFound(format!("runtimeclass.node.k8s.io \"{name}\" not found")),
    };
    follow_one(name, late, got, tools, teller).await;
}

/// Tells what follows from an object of the whole cluster, now and whenever it changes; `late` if nothing is known in time.
pub(super) async fn follow_one<T: Object>(
    name: &str,
    late: String,
    got: impl Fn(Option<T>) -> Got,
    tools: &Tools,
    teller: &Teller,
) {
    let mut watch = tools.client.list_watch::<T>(Path::all::<T>(), Selector::name(name));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (mut is_known, mut is_late) = (false, false);
    loop {
        let change = tokio::select! {
            change = watch.next() => change,
            () = tokio::time::sleep_until(deadline), if !is_known && !is_late => {
                is_late = true;
                teller.tell(Got::Failed(late.clone())).await;
                continue;
            }
        };
        let object = match change {
            None => return,
            Some(Change::Interrupted(error)) => {
                tracing::debug!(name, err = %error, "watching an object of the cluster is interrupted");
                continue;
            }
            Some(Change::Replaced(all, _)) => all.into_iter().next(),
            Some(Change::Upserted(object)) => Some(object),
            Some(Change::Removed(_)) => None,
        };
        is_known = true;
        teller.tell(got(object)).await;
    }
}
