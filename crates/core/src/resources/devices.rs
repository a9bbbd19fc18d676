//! Devices that plugins bring: how many there are, which container has which, and what it is given with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_api::quantity::Amount;
use rubelet_api::v1;
use rubelet_proto::deviceplugin::{ContainerAllocateResponse, Device};
use rubelet_proto::{cri, podresources};

use super::numa::Nodes;
use crate::now::Mono;

mod near;
#[cfg(test)]
mod tests;

/// kubelet 1.36: how long a resource is still shown whose plugin is gone.
pub const GRACE: Duration = Duration::from_secs(5 * 60);
/// kubelet 1.36: the word of a device that may be used; every other means that it may not.
pub const HEALTHY: &str = "Healthy";
/// Version of the protocol.
pub const VERSION: &str = "v1beta1";
/// kubelet 1.36: what a pod's message and reason are when it cannot have its devices.
pub const UNEXPECTED: &str = "UnexpectedAdmissionError";

/// kubelet 1.36: the words.
#[must_use]
pub fn unexpected(why: &str) -> String {
    format!("Allocate failed due to {why}, which is unexpected")
}

/// Whether a plugin may count a resource of that name.
#[must_use]
pub fn is_resource_name(name: &str) -> bool {
    let is_part = |part: &str, more: &[u8]| {
        let is_end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let is_within = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
        is_end(part.bytes().next()) && is_end(part.bytes().last()) && part.bytes().all(is_within)
    };
    let Some((domain, own)) = name.split_once('/') else { return false };
    let is_domain = |domain: &str| {
        !domain.bytes().any(|b| b.is_ascii_uppercase()) && domain.split('.').all(|label| is_part(label, b"-"))
    };
    // kubelet 1.36: with the prefix that a quota would give it.
    crate::node::is_extended(name)
        && domain.len() + "requests.".len() <= 253
        && own.len() <= 63
        && is_domain(domain)
        && is_part(own, b"-_.")
}

/// How many devices of a resource there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub capacity: usize,
    pub allocatable: usize,
}

/// By resource.
pub type Counts = BTreeMap<String, Count>;

/// What one container has of one resource.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Grant {
    /// With the NUMA nodes that each is near.
    pub devices: BTreeMap<String, Vec<i64>>,
    /// What the plugin gives the container.
    pub given: ContainerAllocateResponse,
}

/// By resource.
pub type Grants = BTreeMap<String, Grant>;

/// Whose devices they are: by pod and container.
pub type Holdings = BTreeMap<PodUid, BTreeMap<String, Grants>>;

/// Devices of a pod's earlier containers that a later one may have, by resource.
pub type Reusable = BTreeMap<String, BTreeSet<String>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plugin {
    Connected,
    Stopped { since: Mono },
}

#[derive(Clone, PartialEq, Debug)]
struct Resource {
    plugin: Plugin,
    /// Whether the plugin ever said which devices there are.
    is_listed: bool,
    healthy: BTreeSet<String>,
    unhealthy: BTreeSet<String>,
}

/// All that is known of devices.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Devices {
    resources: BTreeMap<String, Resource>,
    /// What plugins said last of each device, also of resources that are gone.
    told: BTreeMap<String, BTreeMap<String, Device>>,
    held: Holdings,
    /// Resources that were shown once: there are none of them.
    gone: BTreeSet<String>,
}

/// What is to be done so that a container has its devices of one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It has them, or wants none.
    Made,
    /// These, and so many more of those that are free, the first ones if the plugin prefers none.
    Open { have: BTreeSet<String>, free: Vec<String>, missing: usize },
}

impl Choice {
    /// The devices, of which the plugin prefers some.
    #[must_use]
    pub fn closed(self, preferred: &[String]) -> BTreeSet<String> {
        match self {
            Self::Made => BTreeSet::new(),
            Self::Open { mut have, free, missing } => {
                let first = preferred.iter().filter(|id| free.contains(*id));
                let all: Vec<&String> = first.chain(&free).collect();
                let most = have.len() + missing;
                for id in all {
                    if have.len() >= most {
                        break;
                    }
                    have.insert(id.clone());
                }
                have
            }
        }
    }
}

impl Devices {
    /// What an earlier life wrote down: who has which devices, and of which resources there were some. There are none of those until
    /// their plugins are back.
    #[must_use]
    pub fn restored(held: Holdings, registered: impl IntoIterator<Item = String>, now: Mono) -> Self {
        let empty = Resource {
            plugin: Plugin::Stopped { since: now },
            is_listed: true,
            healthy: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
        };
        let resources = registered.into_iter().map(|name| (name, empty.clone())).into_map();
        Self { resources, held, ..Self::default() }
    }

    /// A plugin has registered.
    pub fn connect(&mut self, resource: &str) {
        let entry = self.resources.entry(resource.to_owned()).or_insert_with(|| Resource {
            plugin: Plugin::Connected,
            is_listed: false,
            healthy: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
        });
        entry.plugin = Plugin::Connected;
    }

    /// A plugin says which devices there are. Returns the pods whose devices are well, or not, from now on.
    pub fn list(&mut self, resource: &str, devices: Vec<Device>) -> BTreeSet<PodUid> {
        let Some(entry) = self.resources.get_mut(resource) else { return BTreeSet::new() };
        entry.is_listed = true;
        self.gone.remove(resource);
        let ids = |is_healthy: bool| {
            let of = devices.iter().filter(|d| (d.health == HEALTHY) == is_healthy);
            of.map(|d| d.id.clone()).collect()
        };
        (entry.healthy, entry.unhealthy) = (ids(true), ids(false));
        let told: BTreeMap<String, Device> = devices.into_iter().map(|d| (d.id.clone(), d)).into_map();
        let before = self.told.insert(resource.to_owned(), told).unwrap_or_default();
        let now = &self.told[resource];
        let has_changed = |id: &String| now.get(id).map(|d| &d.health) != before.get(id).map(|d| &d.health);
        let of_pod = |pod: &BTreeMap<String, Grants>| {
            pod.values().filter_map(|grants| grants.get(resource)).flat_map(|g| g.devices.keys()).any(has_changed)
        };
        self.held.iter().filter(|(_, pod)| of_pod(pod)).map(|(uid, _)| uid.clone()).collect()
    }

    /// A plugin is gone: none of its devices may be used.
    pub fn stop(&mut self, resource: &str, now: Mono) {
        let Some(entry) = self.resources.get_mut(resource) else { return };
        entry.plugin = Plugin::Stopped { since: now };
        entry.unhealthy.append(&mut entry.healthy);
    }

    /// Forgets resources whose plugins have been gone for too long; whether there were any.
    pub fn expire(&mut self, now: Mono) -> bool {
        let is_over = |r: &Resource| matches!(r.plugin, Plugin::Stopped { since } if now >= since + GRACE);
        let over: Vec<String> = self.resources.extract_if(.., |_, r| is_over(r)).map(|(name, _)| name).collect();
        let any = !over.is_empty();
        self.gone.extend(over);
        any
    }

    /// When the next resource is to be forgotten.
    #[must_use]
    pub fn expires_at(&self) -> Option<Mono> {
        let ends = self.resources.values().filter_map(|r| match r.plugin {
            Plugin::Stopped { since } => Some(since + GRACE),
            Plugin::Connected => None,
        });
        ends.min()
    }

    /// What the Node says. kubelet 1.36: of a resource that is gone there are none; it was there.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let gone = self.gone.iter().map(|name| (name.clone(), Count::default()));
        let is_shown = |r: &Resource| r.is_listed || matches!(r.plugin, Plugin::Stopped { .. });
        let shown = self.resources.iter().filter(|(_, r)| is_shown(r)).map(|(name, r)| {
            let (healthy, unhealthy) = (r.healthy.len(), r.unhealthy.len());
            (name.clone(), Count { capacity: healthy + unhealthy, allocatable: healthy })
        });
        gone.chain(shown).into_map()
    }

    /// Resources and their healthy devices, to be written down.
    pub fn registered(&self) -> impl Iterator<Item = (&String, &BTreeSet<String>)> {
        self.resources.iter().filter(|(_, r)| r.is_listed).map(|(name, r)| (name, &r.healthy))
    }

    /// Who has which devices.
    #[must_use]
    pub fn held(&self) -> &Holdings {
        &self.held
    }

    /// What a container has.
    #[must_use]
    pub fn of(&self, pod: &PodUid, container: &str) -> Option<&Grants> {
        self.held.get(pod)?.get(container)
    }

    /// What a container wants of plugins: resources and how many devices of each.
    #[must_use]
    pub fn wanted(&self, container: &v1::Container) -> Vec<(String, usize)> {
        let limits = container.resources.iter().flat_map(|r| r.limits.iter().flatten());
        let wanted = limits.filter(|(name, _)| self.is_known(name)).filter_map(|(name, amount)| {
            let pieces = Amount::parse(&amount.0).ok()?.units();
            Some((name.clone(), usize::try_from(pieces).ok()?))
        });
        wanted.collect()
    }

    fn is_known(&self, resource: &str) -> bool {
        self.resources.get(resource).is_some_and(|r| r.is_listed) || self.in_use(resource).next().is_some()
    }

    fn in_use<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a String> {
        let grants = self.held.values().flat_map(BTreeMap::values).filter_map(move |grants| grants.get(resource));
        grants.flat_map(|grant| grant.devices.keys())
    }

    /// Which devices a container may have, first those near these nodes.
    ///
    /// # Errors
    /// Why it can have none, in upstream's words.
    pub fn choose(
        &self,
        pod: &PodUid,
        container: &str,
        (resource, required): (&str, usize),
        reusable: &Reusable,
        near: Option<Nodes>,
    ) -> Result<Choice, String> {
        let has: Option<Vec<&String>> =
            self.of(pod, container).and_then(|g| g.get(resource)).map(|grant| grant.devices.keys().collect());
        if let Some(has) = has.as_ref().filter(|has| has.len() != required) {
            let count = has.len();
            return Err(format!(
                "pod {:?} container {container:?} changed request for resource {resource:?} from {count} to {required}",
                pod.as_str()
            ));
        }
        let known = self.resources.get(resource).filter(|r| r.is_listed);
        let Some(known) = known else { return Err(format!("cannot allocate unregistered device {resource}")) };
        if known.healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if has.iter().flatten().any(|id| !known.healthy.contains(*id)) {
            return Err(format!(
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            ));
        }
        if has.is_some() || required == 0 {
            return Ok(Choice::Made);
        }
        let mut have: BTreeSet<String> = reusable.get(resource).into_iter().flatten().take(required).cloned().collect();
        let missing = required - have.len();
        let used: BTreeSet<&String> = self.in_use(resource).collect();
        let is_free = |id: &&String| !used.contains(id) && !have.contains(*id);
        let free: Vec<String> = known.healthy.iter().filter(is_free).cloned().collect();
        if free.len() < missing {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {}",
                free.len()
            ));
        }
        let near::Split { aligned, others } = self.split(resource, free, near);
        if missing < aligned.len() {
            return Ok(Choice::Open { have, free: aligned, missing });
        }
        let missing = missing - aligned.len();
        have.extend(aligned);
        Ok(Choice::Open { have, free: others, missing })
    }

    /// A container has these devices from now on.
    pub fn grant(
        &mut self,
        pod: &PodUid,
        container: &str,
        resource: &str,
        ids: &BTreeSet<String>,
        given: ContainerAllocateResponse,
    ) {
        let told = self.told.get(resource);
        let nodes = |id: &String| {
            let topology = told.and_then(|told| told.get(id)?.topology.as_ref());
            topology.map(|t| t.nodes.iter().map(|node| node.id).collect()).unwrap_or_default()
        };
        let devices = ids.iter().map(|id| (id.clone(), nodes(id))).into_map();
        let of_pod = self.held.entry(pod.clone()).or_default();
        of_pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), Grant { devices, given });
    }

    /// Only these pods keep their devices; whether others had some.
    pub fn retain(&mut self, is_there: impl Fn(&PodUid) -> bool) -> bool {
        let before = self.held.len();
        self.held.retain(|uid, _| is_there(uid));
        self.held.len() != before
    }

    /// How many devices of each resource pods have.
    #[must_use]
    pub fn used(&self) -> BTreeMap<String, i64> {
        let mut used = BTreeMap::new();
        for (resource, grant) in self.held.values().flat_map(BTreeMap::values).flatten() {
            *used.entry(resource.clone()).or_insert(0) += i64::try_from(grant.devices.len()).unwrap_or(i64::MAX);
        }
        used
    }

    /// What later containers may have after this one. kubelet 1.36: what an init container had, but for a sidecar's.
    pub fn pass_on(&self, pod: &PodUid, container: &v1::Container, is_init: bool, reusable: &mut Reusable) {
        let ends = is_init && container.restart_policy.as_deref() != Some("Always");
        for (resource, grant) in self.of(pod, &container.name).into_iter().flatten() {
            let of = reusable.entry(resource.clone()).or_default();
            for id in grant.devices.keys() {
                if ends {
                    of.insert(id.clone());
                } else {
                    of.remove(id);
                }
            }
        }
    }

    /// How a pod's devices are, by container. kubelet 1.36: as their plugins said last; one that nobody knows is well.
    #[must_use]
    pub fn health(&self, pod: &PodUid) -> BTreeMap<String, Vec<v1::ResourceStatus>> {
        let is_ill = |resource: &str, id: &str| {
            let told = self.told.get(resource).and_then(|told| told.get(id));
            told.is_some_and(|device| device.health != HEALTHY)
        };
        let status = |(resource, grant): (&String, &Grant)| v1::ResourceStatus {
            name: resource.clone(),
            resources: Some(
                grant
                    .devices
                    .keys()
                    .map(|id| v1::ResourceHealth {
                        resource_id: id.clone(),
                        health: Some(if is_ill(resource, id) { "Unhealthy" } else { HEALTHY }.to_owned()),
                        ..v1::ResourceHealth::default()
                    })
                    .collect(),
            ),
        };
        let of_pod = self.held.get(pod).into_iter().flatten();
        of_pod.map(|(name, grants)| (name.clone(), grants.iter().map(status).collect())).into_map()
    }

    /// What monitoring is told of a container.
    #[must_use]
    pub fn shown(&self, pod: &PodUid, container: &str) -> Vec<podresources::ContainerDevices> {
        let grants = self.of(pod, container).into_iter().flatten();
        let all = grants.flat_map(|(name, grant)| grant.devices.iter().map(move |(id, nodes)| (name, id, nodes)));
        all.map(|(name, id, nodes)| shown(name, id, nodes)).collect()
    }

    /// What monitoring is told of what there is: healthy devices.
    #[must_use]
    pub fn shown_allocatable(&self) -> Vec<podresources::ContainerDevices> {
        let healthy = self.resources.iter().flat_map(|(name, r)| r.healthy.iter().map(move |id| (name, id)));
        let nodes = |name: &String, id: &String| {
            let topology = self.told.get(name).and_then(|told| told.get(id)?.topology.as_ref());
            topology.map(|t| t.nodes.iter().map(|node| node.id).collect::<Vec<_>>()).unwrap_or_default()
        };
        healthy.map(|(name, id)| shown(name, id, &nodes(name, id))).collect()
    }
}

fn shown(resource: &str, id: &str, nodes: &[i64]) -> podresources::ContainerDevices {
    let nodes: Vec<_> = nodes.iter().map(|&id| podresources::NumaNode { id }).collect();
    podresources::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: (!nodes.is_empty()).then_some(podresources::TopologyInfo { nodes }),
    }
}

/// Gives a container what belongs to its devices. kubelet 1.36: before what the pod says, and what is there twice once.
pub fn fill_container(config: &mut cri::ContainerConfig, grants: &Grants) {
    let given = || grants.values().map(|grant| &grant.given);
    let mut envs: Vec<cri::KeyValue> = Vec::new();
    for (key, value) in given().flat_map(|g| &g.envs) {
        if !envs.iter().any(|e| e.key == *key) {
            envs.push(cri::KeyValue { key: key.clone(), value: value.clone().into_bytes() });
        }
    }
    config.envs.splice(..0, envs);
    let mut mounts: Vec<cri::Mount> = Vec::new();
    for mount in given().flat_map(|g| &g.mounts) {
        if !mounts.iter().any(|m| m.container_path == mount.container_path) {
            mounts.push(cri::Mount {
                container_path: mount.container_path.clone(),
                host_path: mount.host_path.clone(),
                readonly: mount.read_only,
                ..cri::Mount::default()
            });
        }
    }
    config.mounts.splice(..0, mounts);
    let mut devices: Vec<cri::Device> = Vec::new();
    for device in given().flat_map(|g| &g.devices) {
        if !devices.iter().any(|d| d.container_path == device.container_path) {
            devices.push(cri::Device {
                container_path: device.container_path.clone(),
                host_path: device.host_path.clone(),
                permissions: device.permissions.clone(),
            });
        }
    }
    config.devices.splice(..0, devices);
    for (key, value) in given().flat_map(|g| &g.annotations) {
        config.annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for device in given().flat_map(|g| &g.cdi_devices) {
        if !config.cdi_devices.iter().any(|d| d.name == device.name) {
            config.cdi_devices.push(cri::CdiDevice { name: device.name.clone() });
        }
    }
}
