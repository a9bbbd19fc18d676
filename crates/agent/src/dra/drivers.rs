//! Drivers that have registered: their plugins, the connections to them, and what they say of their devices.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_core::resources::claims as rules;
use tokio::task::AbortHandle;
use tonic::Code;

use super::plugin::Plugin;
use super::{ResourceClaims, slices};
use crate::life::Life;

/// kubelet 1.36: how long a driver may be away before the cluster is told that its devices are.
const WIPE_AFTER: Duration = Duration::from_secs(30);
/// gRPC's: how long a plugin that is not there is left alone.
const REDIAL: Growth = Growth { first: Duration::from_secs(1), most: Duration::from_secs(120), jitter: 0.2 };
/// kubelet 1.36: how long a driver is left alone that stopped telling how its devices are.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// By name. A driver has several plugins while it is replaced.
#[derive(Default)]
pub(super) struct Drivers {
    /// In the order in which they registered.
    of: BTreeMap<String, Vec<Registered>>,
    /// Drivers that are away, and who will tell.
    wipes: BTreeMap<String, AbortHandle>,
}

struct Registered {
    plugin: Plugin,
    keeper: AbortHandle,
}

impl Drivers {
    /// The plugin to call. kubelet 1.36: the last that registered, and of those that are connected if there are any.
    pub(super) fn get(&self, driver: &str) -> Option<Plugin> {
        let all = self.of.get(driver)?;
        let connected = all.iter().rev().find(|one| one.plugin.is_connected());
        connected.or(all.last()).map(|one| one.plugin.clone())
    }

    fn is_usable(&self, driver: &str) -> bool {
        self.of.get(driver).into_iter().flatten().any(|one| one.plugin.is_connected())
    }
}

impl ResourceClaims {
    /// A plugin's socket was found in the registry.
    ///
    /// # Errors
    /// Why it is not registered, in words for the plugin.
    pub(crate) fn register(self: &Arc<Self>, plugin: &rubelet_volumes::csi::Plugin, life: &Life) -> Result<(), String> {
        let (driver, endpoint) = (&plugin.name, plugin.endpoint.display().to_string());
        // kubelet 1.36: the words.
        let service = rules::service(driver, &endpoint, &plugin.versions)
            .map_err(|why| format!("RegisterPlugin error -- plugin validation failed with err: {why}"))?;
        let ours = Plugin::new(driver, plugin.endpoint.clone(), service);
        {
            let mut state = self.state();
            let known = state.drivers.of.entry(driver.clone()).or_default();
            if known.iter().any(|one| *one.plugin.endpoint == *plugin.endpoint) {
                return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {driver}"));
            }
            let keeper = life.spawn(self.clone().keep(ours.clone(), life.clone()));
            known.push(Registered { plugin: ours, keeper });
        }
        tracing::info!(driver, endpoint, service, "DRA driver registered");
        self.sync(driver, life);
        self.tell_waiting();
        Ok(())
    }

    /// The socket of a plugin that was found is gone.
    pub(crate) fn deregister(self: &Arc<Self>, driver: &str, endpoint: &Path, life: &Life) {
        {
            let mut state = self.state();
            let Some(known) = state.drivers.of.get_mut(driver) else { return };
            for gone in known.extract_if(.., |one| *one.plugin.endpoint == *endpoint) {
                gone.keeper.abort();
                gone.plugin.lost();
            }
            if known.is_empty() {
                state.drivers.of.remove(driver);
            }
        }
        tracing::info!(driver, endpoint = %endpoint.display(), "plugin of a DRA driver is gone");
        self.forget_health(driver);
        self.sync(driver, life);
    }

    /// Holds the connection to a plugin, and listens to it, until it is gone for good.
    async fn keep(self: Arc<Self>, plugin: Plugin, life: Life) {
        let mut backoff = Backoff::new(REDIAL, u64::from(std::process::id()));
        loop {
            if let Ok(driving) = plugin.connect().await {
                backoff.reset();
                self.sync(&plugin.driver, &life);
                self.tell_waiting();
                let ended = tokio::select! {
                    ended = driving => ended,
                    never = self.listen(&plugin), if self.settings.watches_health => match never {},
                };
                let err = ended.err().map(|e| rubelet_host::chain(&e));
                tracing::debug!(driver = %plugin.driver, err, "the connection to a DRA driver has ended");
                plugin.lost();
                self.forget_health(&plugin.driver);
                self.sync(&plugin.driver, &life);
            }
            tokio::time::sleep(backoff.fail()).await;
        }
    }

    /// Takes in what a driver says of its devices, for as long as it is connected.
    async fn listen(&self, plugin: &Plugin) -> std::convert::Infallible {
        loop {
            let ended = self.listen_once(plugin).await;
            self.forget_health(&plugin.driver);
            if ended == Some(Code::Unimplemented) {
                // It will not learn before it comes back as another one.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    async fn listen_once(&self, plugin: &Plugin) -> Option<Code> {
        let mut words = match plugin.watch().await {
            Ok(words) => words,
            Err(status) => return Some(status.code()),
        };
        loop {
            let next = self.state().health.expires_at().map(|at| self.clock.instant(at));
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = words.message() => match told {
                    Ok(Some(told)) => {
                        let now = self.clock.now().mono;
                        let pods = {
                            let mut state = self.state();
                            let changed = state.health.told(&plugin.driver, &told.devices, now);
                            state.claims.pods_with(&plugin.driver, &changed)
                        };
                        self.tell(pods);
                    }
                    Ok(None) => return None,
                    Err(status) => return Some(status.code()),
                },
                () = due => self.expire_health(),
            }
        }
    }

    fn expire_health(&self) {
        let pods = {
            let mut state = self.state();
            let over = state.health.expire(self.clock.now().mono);
            let of = |(driver, device): (String, _)| state.claims.pods_with(&driver, &[device].into());
            over.into_iter().flat_map(of).collect::<Vec<_>>()
        };
        self.tell(pods);
    }

    fn forget_health(&self, driver: &str) {
        let pods = {
            let mut state = self.state();
            if !state.health.forget(driver) {
                return;
            }
            state.claims.pods_of(driver)
        };
        self.tell(pods);
    }

    /// Pods that something failed for may try again.
    fn tell_waiting(&self) {
        let waiting = std::mem::take(&mut self.state().waiting);
        self.tell(waiting);
    }

    /// kubelet 1.36: when a driver is away for a while, the cluster is told that its devices are.
    fn sync(self: &Arc<Self>, driver: &str, life: &Life) {
        let Some(client) = self.client.clone() else { return };
        let mut state = self.state();
        if state.drivers.is_usable(driver) {
            if let Some(wipe) = state.drivers.wipes.remove(driver) {
                wipe.abort();
            }
            return;
        }
        if state.drivers.wipes.contains_key(driver) {
            return;
        }
        let (all, driver, node) = (self.clone(), driver.to_owned(), self.settings.node.clone());
        let name = driver.clone();
        let wipe = life.spawn(async move {
            tokio::time::sleep(WIPE_AFTER).await;
            slices::wipe(client, node, Some(driver.clone())).await;
            all.state().drivers.wipes.remove(&driver);
        });
        state.drivers.wipes.insert(name, wipe);
    }
}
