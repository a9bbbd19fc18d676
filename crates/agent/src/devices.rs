//! Devices that plugins bring: who has registered, which container has which, and the file in which that outlives the agent.
//!
//! Rules are in `rubelet_core::resources::devices`; here is who is asked, and in which order.

mod checkpoint;
mod plugin;
mod registration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_core::now::Mono;
use rubelet_core::render::uid_of;
use rubelet_core::resources::claims;
use rubelet_core::resources::devices::{self as rules, Choice, Counts, Grants, Reusable};
use rubelet_core::resources::numa::{Hints, Nodes};
use rubelet_host::{chain, paths};
use rubelet_proto::deviceplugin::ContainerAllocateResponse;
use rubelet_proto::podresources::ContainerDevices;
use tokio::sync::{Mutex as Turn, MutexGuard as TurnGuard, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::life::Life;
use crate::metrics::Metrics;
use plugin::Plugin;

pub(crate) use registration::{spawn, tell_pods};

/// Kubelet 1.36: not configurable, and not below the root directory.
pub const DEVICE_PLUGINS_DIR: &str = "/var/lib/kubelet/device-plugins";
/// In that directory.
pub(crate) const CHECKPOINT: &str = "kubelet_internal_checkpoint";
const SOCKET: &str = "kubelet.sock";
/// How long a plugin may think about a pod: all that comes after waits.
const ALLOCATE_PATIENCE: Duration = Duration::from_secs(30);
/// kubelet 1.36: how long a plugin may take before a container is started.
const PRE_START_PATIENCE: Duration = Duration::from_secs(30);

/// All devices of the node and who has them. Shared.
pub struct Devices {
    dir: PathBuf,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Held while devices are chosen and given: nobody else may choose the same.
    turn: Turn<()>,
    /// Held while the file is written.
    file: Turn<()>,
    counts: watch::Sender<Counts>,
    /// Pods whose devices changed their health and that nobody was told of yet.
    changed: watch::Sender<BTreeSet<PodUid>>,
    /// Why no plugin can register.
    problem: Mutex<Option<String>>,
}

#[derive(Default)]
struct State {
    devices: rules::Devices,
    plugins: BTreeMap<String, Connected>,
    /// Counts connections.
    number: u64,
}

/// A plugin that is connected.
struct Connected {
    plugin: Plugin,
    /// Tells it from one that registered before or after it.
    number: u64,
    listener: Option<AbortHandle>,
}

impl Devices {
    /// Reads what an earlier life wrote down.
    pub(crate) fn open(dir: &Path, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let devices = match std::fs::read_to_string(dir.join(CHECKPOINT)) {
            Ok(text) => match checkpoint::parse(&text) {
                Ok((held, registered)) => rules::Devices::restored(held, registered, clock.now().mono),
                Err(err) => {
                    tracing::error!(
                        err,
                        "Continue after failing to read checkpoint file. Device allocation info may NOT be up-to-date"
                    );
                    rules::Devices::default()
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => rules::Devices::default(),
            Err(e) => {
                tracing::error!(err = %e, dir = %dir.display(), "reading which devices containers have failed; they are asked for anew");
                rules::Devices::default()
            }
        };
        let counts = watch::Sender::new(devices.counts());
        Self {
            dir: dir.to_owned(),
            clock,
            metrics,
            state: Mutex::new(State { devices, ..State::default() }),
            turn: Turn::default(),
            file: Turn::default(),
            counts,
            changed: watch::Sender::default(),
            problem: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Mono {
        self.clock.now().mono
    }

    /// Whether the file of an earlier life, or of this one, is there.
    pub(crate) fn remembers(&self) -> bool {
        self.dir.join(CHECKPOINT).exists()
    }

    /// Why no plugin can register; `None`: it can.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What monitoring is told of a container.
    pub fn shown(&self, pod: &PodUid, container: &str) -> Vec<ContainerDevices> {
        self.state().devices.shown(pod, container)
    }

    /// What monitoring is told of what there is.
    pub fn shown_allocatable(&self) -> Vec<ContainerDevices> {
        self.state().devices.shown_allocatable()
    }

    /// How a pod's devices are, by container.
    pub(crate) fn health(&self, pod: &PodUid) -> BTreeMap<String, Vec<v1::ResourceStatus>> {
        self.state().devices.health(pod)
    }

    /// How many devices of each resource pods have.
    pub(crate) fn used(&self) -> BTreeMap<String, i64> {
        self.state().devices.used()
    }

    /// Takes in a plugin that registered, and listens to it.
    ///
    /// # Errors
    /// Why it is not taken, in upstream's words.
    pub(crate) async fn connect(self: &Arc<Self>, resource: &str, socket: &Path, life: &Life) -> Result<(), String> {
        let plugin = Plugin::dial(socket).await?;
        let number = {
            let mut state = self.state();
            state.number += 1;
            let number = state.number;
            state.devices.connect(resource);
            let connected = Connected { plugin: plugin.clone(), number, listener: None };
            if let Some(Connected { listener: Some(listener), .. }) =
                state.plugins.insert(resource.to_owned(), connected)
            {
                listener.abort();
            }
            number
        };
        tracing::info!(resource, socket = %socket.display(), "device plugin registered");
        let (all, name) = (self.clone(), resource.to_owned());
        let listener = life.spawn(async move {
            let why = all.listen(&name, number, &plugin).await;
            tracing::error!(resource = name, err = why, "ListAndWatch ended unexpectedly for device plugin");
            all.disconnect(&name, number).await;
        });
        if let Some(known) = self.state().plugins.get_mut(resource).filter(|known| known.number == number) {
            known.listener = Some(listener);
        }
        self.tell();
        Ok(())
    }

    /// Takes in what a plugin says, until it ends.
    async fn listen(&self, resource: &str, number: u64, plugin: &Plugin) -> String {
        let mut lists = match plugin.list_and_watch().await {
            Ok(lists) => lists,
            Err(why) => return why,
        };
        loop {
            let list = match lists.message().await {
                Ok(Some(list)) => list,
                Ok(None) => return "EOF".to_owned(),
                Err(status) => return plugin::words(&status),
            };
            let (count, pods) = {
                let mut state = self.state();
                if state.plugins.get(resource).is_none_or(|known| known.number != number) {
                    return "another plugin has registered".to_owned();
                }
                (list.devices.len(), state.devices.list(resource, list.devices))
            };
            tracing::info!(resource, count, "device plugin told of its devices");
            self.tell();
            self.changed.send_if_modified(|known| {
                let before = known.len();
                known.extend(pods);
                known.len() != before
            });
            self.write().await;
        }
    }

    async fn disconnect(&self, resource: &str, number: u64) {
        {
            let now = self.now();
            let mut state = self.state();
            if state.plugins.get(resource).is_none_or(|known| known.number != number) {
                return;
            }
            state.plugins.remove(resource);
            state.devices.stop(resource, now);
        }
        self.tell();
        self.write().await;
    }

    /// The socket of a plugin that was found is gone.
    pub(crate) async fn lost(&self, resource: &str) {
        let known = self.state().plugins.get_mut(resource).map(|known| (known.number, known.listener.take()));
        if let Some((number, listener)) = known {
            if let Some(listener) = listener {
                listener.abort();
            }
            self.disconnect(resource, number).await;
        }
    }

    /// The node is told when it counts otherwise.
    fn tell(&self) {
        let new = self.state().devices.counts();
        self.counts.send_if_modified(|known| {
            let has_changed = *known != new;
            *known = new;
            has_changed
        });
    }

    /// Forgets resources whose plugins have been gone for too long, for ever.
    async fn expire(&self) {
        let mut counts = self.counts.subscribe();
        loop {
            if self.state().devices.expire(self.clock.now().mono) {
                self.tell();
                self.write().await;
            }
            let next: Option<Instant> = self.state().devices.expires_at().map(|at| self.clock.instant(at));
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                changed = counts.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Nobody else chooses among devices meanwhile.
    pub(crate) async fn turn(&self) -> TurnGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Only these pods keep their devices.
    pub(crate) fn keep(&self, is_there: impl Fn(&PodUid) -> bool) {
        self.state().devices.retain(is_there);
    }

    /// A pod is not let in after all, or it is gone.
    pub(crate) async fn give_back(&self, uid: &PodUid) {
        let had_some = self.state().devices.retain(|held| held != uid);
        if had_some {
            self.write().await;
        }
    }

    /// Whether a pod wants some of a plugin.
    pub(crate) fn wants_any(&self, pod: &v1::Pod) -> bool {
        rubelet_core::render::containers(pod).any(|container| !self.wanted(pod, container).is_empty())
    }

    /// What a container wants of plugins. kubelet 1.36: not what it has by a resource claim.
    fn wanted(&self, pod: &v1::Pod, container: &v1::Container) -> Vec<(String, usize)> {
        let mut wanted = self.state().devices.wanted(container);
        wanted.retain(|(resource, _)| !claims::is_extended(pod, &container.name, resource));
        wanted
    }

    /// Which of the machine's NUMA nodes could give a container what it wants.
    pub(crate) fn hints(&self, pod: &v1::Pod, container: &v1::Container, reusable: &Reusable, machine: Nodes) -> Hints {
        let wanted = self.wanted(pod, container);
        self.state().devices.hints(&uid_of(pod), &container.name, &wanted, reusable, machine)
    }

    /// The same of all that a pod wants at a time.
    pub(crate) fn pod_hints(&self, pod: &v1::Pod, machine: Nodes) -> Hints {
        self.state().devices.pod_hints(&uid_of(pod), pod, machine)
    }

    /// Gives a container what it wants and does not have yet, if it can be from these NUMA nodes. Held by the caller: the turn.
    ///
    /// # Errors
    /// Why it cannot have it, in upstream's words.
    pub(crate) async fn give(
        &self,
        pod: &v1::Pod,
        container: &v1::Container,
        reusable: &Reusable,
        near: Option<Nodes>,
    ) -> Result<(), String> {
        let uid = uid_of(pod);
        for (resource, count) in self.wanted(pod, container) {
            self.give_one(&uid, &container.name, (&resource, count), reusable, near).await?;
        }
        Ok(())
    }

    /// What later containers of the pod may have of what this one has.
    pub(crate) fn pass_on(&self, pod: &v1::Pod, container: &v1::Container, is_init: bool, reusable: &mut Reusable) {
        self.state().devices.pass_on(&uid_of(pod), container, is_init, reusable);
    }

    /// Gives one container of a pod that was let in what it lacks.
    async fn give_late(&self, pod: &v1::Pod, only: &str) -> Result<(), String> {
        let mut reusable = Reusable::new();
        for (container, is_init) in in_order(pod) {
            if container.name == only {
                self.give(pod, container, &reusable, None).await?;
            }
            self.pass_on(pod, container, is_init, &mut reusable);
        }
        Ok(())
    }

    async fn give_one(
        &self,
        uid: &PodUid,
        container: &str,
        (resource, count): (&str, usize),
        reusable: &Reusable,
        near: Option<Nodes>,
    ) -> Result<(), String> {
        let choice = self.state().devices.choose(uid, container, (resource, count), reusable, near)?;
        let Choice::Open { have, free, missing } = &choice else { return Ok(()) };
        let plugin = self.state().plugins.get(resource).map(|known| known.plugin.clone());
        let Some(plugin) = plugin else { return Err(format!("endpoint {resource} has been stopped")) };
        let preferred = if plugin.options.get_preferred_allocation_available && *missing > 0 {
            let available = free.iter().chain(have).cloned().collect::<BTreeSet<_>>().into_iter().collect();
            plugin.prefers(available, have.iter().cloned().collect(), count, ALLOCATE_PATIENCE).await?
        } else {
            Vec::new()
        };
        let ids = choice.closed(&preferred);
        let since = Instant::now();
        let answer = plugin.allocate(ids.iter().cloned().collect(), ALLOCATE_PATIENCE).await;
        self.metrics.node.device_alloc.of(&[resource]).observe(since.elapsed().as_secs_f64());
        let given: ContainerAllocateResponse = answer?
            .container_responses
            .into_iter()
            .next()
            .ok_or_else(|| "no containers return in allocation response".to_owned())?;
        tracing::info!(%uid, container, resource, devices = ?ids, "devices are given to a container");
        self.state().devices.grant(uid, container, resource, &ids, given);
        Ok(())
    }

    /// What a container is given with its devices, just before it is made.
    ///
    /// # Errors
    /// Why it cannot be made, in upstream's words.
    pub(crate) async fn prepare(&self, pod: &v1::Pod, container: &str) -> Result<Grants, String> {
        let uid = uid_of(pod);
        let Some(of) = rubelet_core::render::containers(pod).find(|c| c.name == container) else {
            return Ok(Grants::new());
        };
        let wanted = self.wanted(pod, of);
        if wanted.is_empty() {
            return Ok(Grants::new());
        }
        let mut lacks_some = false;
        for (resource, _) in wanted.iter().filter(|(_, count)| *count > 0) {
            let (plugin, ids) = {
                let state = self.state();
                let grant = state.devices.of(&uid, container).and_then(|grants| grants.get(resource));
                let ids: Option<Vec<String>> = grant.map(|grant| grant.devices.keys().cloned().collect());
                (state.plugins.get(resource).map(|known| known.plugin.clone()), ids)
            };
            lacks_some |= ids.is_none();
            if let Some(plugin) = plugin.filter(|plugin| plugin.options.pre_start_required) {
                let ids = ids.ok_or_else(|| {
                    format!(
                        "no devices found allocated in local cache for pod {uid}, container {container}, resource {resource}"
                    )
                })?;
                plugin.pre_start(ids, PRE_START_PATIENCE).await?;
            }
        }
        if lacks_some {
            // It was let in by an earlier life that nobody remembers.
            let _turn = self.turn.lock().await;
            let given = self.give_late(pod, container).await;
            self.write().await;
            given?;
        }
        Ok(self.state().devices.of(&uid, container).cloned().unwrap_or_default())
    }

    /// Writes down who has what.
    pub(crate) async fn write(&self) {
        let _turn = self.file.lock().await;
        let text = checkpoint::text(&self.state().devices);
        let path = self.dir.join(CHECKPOINT);
        let write = move |text: String| paths::write_atomic(&path, text.as_bytes(), 0o600).map_err(|e| chain(&e));
        let written = match text {
            Ok(text) => rubelet_host::task::blocking(move || write(text)).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let Err(err) = written.and_then(|written| written) else { return };
        tracing::error!(
            err,
            "Failed to write checkpoint file; after a restart the devices of containers are not known"
        );
    }
}

/// A pod's containers in the order in which they are given what they want; whether each is an init container.
pub(crate) fn in_order(pod: &v1::Pod) -> impl Iterator<Item = (&v1::Container, bool)> {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.map(|c| (c, true)).chain(pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| (c, false)))
}

/// kubelet 1.36: sockets of plugins that were there before go, so that their plugins notice.
fn remove_sockets(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
