//! CSI drivers of the node: found by their sockets in `plugins_registry`, made known to the cluster. Device plugins and drivers of
//! resource claims that are found there are handed on.

mod known;
mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rubelet_api::metrics::{Gauge, Labelled};
use rubelet_apiserver::Client;
use rubelet_host::chain;
use rubelet_host::watch::Watcher;
use rubelet_volumes::csi::{self, Driver, NodeFacts, Plugin};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::hands::Hands;
use crate::life::Life;

/// Pause before a plugin that could not be registered is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Without inotify, or in case it missed something: how often the registry is read.
const LOOK_PERIOD: Duration = Duration::from_secs(30);

/// Tells of the sockets that there are, and of those that have registered. kubelet 1.36: the words for both.
fn count(plugins: &Labelled<Gauge>, found: &BTreeSet<PathBuf>, is_registered: impl Fn(&Path) -> bool) {
    const THERE: &str = "actual_state_of_world";
    plugins.forget(|labels| {
        let socket = Path::new(&*labels[0]);
        !found.contains(socket) || (&*labels[1] == THERE && !is_registered(socket))
    });
    for socket in found {
        let name = socket.to_string_lossy();
        plugins.of(&[&name, "desired_state_of_world"]).set(1.0);
        if is_registered(socket) {
            plugins.of(&[&name, THERE]).set(1.0);
        }
    }
}

/// Starts looking for drivers. When the answer is rung, those that there are say anew how many volumes the node takes.
pub(crate) fn spawn(life: &Life, hands: Arc<Hands>, node: String) -> Arc<Notify> {
    let full = Arc::new(Notify::new());
    let registrar = Registrar {
        registry: hands.root_dir.join("plugins_registry"),
        client: hands.client.clone(),
        hands,
        node,
        full: full.clone(),
        life: life.clone(),
        known: BTreeMap::new(),
        told: BTreeMap::new(),
    };
    life.spawn(registrar.run());
    full
}

/// What a socket in the registry turned out to be.
enum Known {
    /// With who keeps its limits up to date.
    Driver(String, Option<AbortHandle>),
    /// It brings devices of this resource.
    Devices(String),
    /// A plugin of a driver of resource claims, where it does its work, and which file its socket was.
    Claims(String, PathBuf, Option<FileId>),
    /// Not for us, and told so.
    Other,
}

struct Registrar {
    registry: PathBuf,
    hands: Arc<Hands>,
    node: String,
    client: Option<Client>,
    full: Arc<Notify>,
    life: Life,
    known: BTreeMap<PathBuf, Known>,
    /// The last trouble with each socket, so that it is told once.
    told: BTreeMap<PathBuf, String>,
}

impl Registrar {
    async fn run(mut self) {
        let mut watcher =
            Watcher::new().map_err(|e| tracing::warn!(err = %e, "plugins are found by looking now and then")).ok();
        loop {
            let registry = self.registry.clone();
            if let Some(watcher) = &mut watcher {
                for (dir, error) in watcher.set(&dirs(&registry)) {
                    tracing::debug!(dir = %dir.display(), err = %error, "watching for plugins failed");
                }
            }
            let is_done = self.look().await;
            let pause = if is_done { LOOK_PERIOD } else { AGAIN };
            let changed = async {
                match &mut watcher {
                    Some(watcher) => drop(watcher.next().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed, if is_done => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Compares the registry with what is registered; false when something is to be tried again.
    async fn look(&mut self) -> bool {
        let found = csi::sockets(&self.registry);
        let is_other = |socket: &Path, known: &Known| match known {
            // Another one may have come while nobody looked.
            Known::Claims(_, _, file) => file_id(socket) != *file,
            Known::Driver(..) | Known::Devices(_) | Known::Other => false,
        };
        let is_gone = |(socket, known): &(&PathBuf, &Known)| !found.contains(*socket) || is_other(socket, known);
        let gone: Vec<PathBuf> = self.known.iter().filter(is_gone).map(|(socket, _)| socket.clone()).collect();
        for socket in gone {
            self.told.remove(&socket);
            match self.known.remove(&socket) {
                Some(Known::Driver(name, limits)) => {
                    if let Some(limits) = limits {
                        limits.abort();
                    }
                    self.hands.drivers.remove(&name);
                    tracing::info!(driver = name, "CSI driver is gone");
                    self.forget(&name).await;
                }
                Some(Known::Devices(name)) => self.hands.devices.lost(&name).await,
                Some(Known::Claims(name, endpoint, _)) => self.hands.claims.deregister(&name, &endpoint, &self.life),
                Some(Known::Other) | None => {}
            }
        }
        self.count(&found);
        let mut is_done = true;
        let fresh: Vec<PathBuf> = found.iter().filter(|s| !self.known.contains_key(*s)).cloned().collect();
        for socket in fresh {
            match self.register(&socket).await {
                Ok(known) => {
                    self.told.remove(&socket);
                    self.known.insert(socket, known);
                }
                Err(why) => {
                    is_done = false;
                    if self.told.get(&socket) != Some(&why) {
                        tracing::warn!(socket = %socket.display(), err = why, "registering a plugin failed, trying again");
                        self.told.insert(socket, why);
                    }
                }
            }
        }
        self.count(&found);
        is_done
    }

    fn count(&self, found: &BTreeSet<PathBuf>) {
        let is_registered = |known: &Known| !matches!(known, Known::Other);
        count(&self.hands.metrics.storage.plugins, found, |socket| self.known.get(socket).is_some_and(is_registered));
    }

    async fn register(&self, socket: &Path) -> Result<Known, String> {
        let plugin = csi::ask(socket).await.map_err(|e| chain(&e))?;
        if plugin.kind == "DevicePlugin" {
            let outcome = self.hands.devices.found(&plugin, &self.life).await;
            csi::notify(socket, outcome.clone()).await.map_err(|e| chain(&e))?;
            return outcome.map(|()| Known::Devices(plugin.name));
        }
        if plugin.kind == "DRAPlugin" {
            let outcome = self.hands.claims.register(&plugin, &self.life);
            csi::notify(socket, outcome.clone()).await.map_err(|e| chain(&e))?;
            return outcome.map(|()| Known::Claims(plugin.name, plugin.endpoint, file_id(socket)));
        }
        if let Err(why) = plugin.check_csi() {
            tracing::info!(plugin = plugin.name, kind = plugin.kind, why, "plugin is not registered");
            csi::notify(socket, Err(why)).await.map_err(|e| chain(&e))?;
            return Ok(Known::Other);
        }
        match self.take_in(&plugin).await {
            Ok(info) => {
                csi::notify(socket, Ok(())).await.map_err(|e| chain(&e))?;
                tracing::info!(driver = plugin.name, node_id = info.node_id, "CSI driver registered");
                if let Err(e) = csi::unstage_unused(&self.hands.root_dir, &plugin.name, &self.hands.drivers).await {
                    let err = chain(&e);
                    tracing::warn!(driver = plugin.name, err, "unstaging volumes that no pod has failed");
                }
                let limits = self.client.clone().map(|client| {
                    let (name, node, hands, full) =
                        (plugin.name.clone(), self.node.clone(), self.hands.clone(), self.full.clone());
                    self.life.spawn(limits::keep(client, node, name, hands, full))
                });
                Ok(Known::Driver(plugin.name, limits))
            }
            Err(why) => {
                self.hands.drivers.remove(&plugin.name);
                csi::notify(socket, Err(why.clone())).await.map_err(|e| chain(&e))?;
                Err(why)
            }
        }
    }

    async fn take_in(&self, plugin: &Plugin) -> Result<NodeFacts, String> {
        let driver = Driver::at(&plugin.endpoint).counted(&plugin.name, self.hands.drivers.counts().clone());
        let info = driver.node_info().await.map_err(|e| chain(&e))?;
        self.hands.drivers.add(&plugin.name, driver);
        if let Some(client) = &self.client {
            known::add(client, &self.node, &plugin.name, &info).await?;
        }
        Ok(info)
    }

    async fn forget(&self, name: &str) {
        if let Some(client) = &self.client
            && let Err(err) = known::remove(client, &self.node, name).await
        {
            tracing::warn!(driver = name, err, "taking a driver out of the CSINode failed");
        }
    }
}

/// Tells a file from one that takes its place: its number, and when it was made as far as the file system knows.
type FileId = (u64, Option<SystemTime>);

fn file_id(path: &Path) -> Option<FileId> {
    let of = std::fs::symlink_metadata(path).ok()?;
    Some((of.ino(), of.created().ok()))
}

/// The registry and the folders below it.
fn dirs(registry: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::from([registry.to_owned()]);
    for socket in csi::sockets(registry) {
        all.extend(socket.parent().map(Path::to_owned));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::StorageCounts;

    #[test]
    fn sockets_are_counted_until_they_go() {
        let counts = StorageCounts::default();
        let (one, two) = (PathBuf::from("/r/one.sock"), PathBuf::from("/r/two.sock"));
        let told = |found: &[&PathBuf], registered: &[&PathBuf]| {
            let found = found.iter().map(|socket| (*socket).clone()).collect();
            count(&counts.plugins, &found, |socket| registered.iter().any(|known| *known == socket));
            let mut page = Vec::new();
            counts.plugins.tell(&mut rubelet_api::metrics::Text::new(&mut page)).expect("a page");
            let page = String::from_utf8(page).expect("text");
            let rows =
                page.lines().filter_map(|line| line.strip_prefix("plugin_manager_total_plugins{socket_path=\"/r/"));
            rows.map(str::to_owned).collect::<Vec<_>>()
        };
        let wanted = |name: &str| format!("{name}.sock\",state=\"desired_state_of_world\"}} 1");
        let there = |name: &str| format!("{name}.sock\",state=\"actual_state_of_world\"}} 1");
        assert_eq!(told(&[&one, &two], &[&one]), [there("one"), wanted("one"), wanted("two")]);
        assert_eq!(told(&[&one, &two], &[&two]), [wanted("one"), there("two"), wanted("two")]);
        assert_eq!(told(&[&two], &[]), [wanted("two")]);
        assert_eq!(told(&[], &[]), Vec::<String>::new());
    }
}
