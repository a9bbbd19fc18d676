//! Resource claims (DRA): which a pod may use, what drivers have prepared for them, and what containers get of that.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::gather::Gather;
use rubelet_api::groups::resource_v1::ResourceClaim;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_proto::{cri, podresources};

use crate::pod::needs::ObjectName;

pub mod health;
pub mod wishes;

#[cfg(test)]
mod tests;

pub use health::Health;
pub use wishes::{Named, is_extended, named};

/// Services of drivers that we speak, the newest first.
pub const SERVICES: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];

/// The service by which a driver is called: the first of its own that we speak.
///
/// # Errors
/// It has none, in upstream's words.
pub fn service(driver: &str, endpoint: &str, offered: &[String]) -> Result<&'static str, String> {
    let quoted = |all: &[&str]| all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" ");
    let found = offered.iter().find_map(|one| SERVICES.iter().find(|ours| *ours == one));
    found.copied().ok_or_else(|| {
        let why = if offered.is_empty() {
            "empty list of supported gRPC services (aka supported versions)".to_owned()
        } else {
            let theirs: Vec<&str> = offered.iter().map(String::as_str).collect();
            format!(
                "none of services supported by the plugin ([{}]) are supported by the kubelet ([{}])",
                quoted(&theirs),
                quoted(&SERVICES)
            )
        };
        format!("invalid supported gRPC versions of DRA driver plugin {driver} at endpoint {endpoint}: {why}")
    })
}

/// What matters of a ResourceClaim to a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClaimFacts {
    pub uid: String,
    /// UID of the object that the claim was made for.
    pub owner: Option<String>,
    /// UIDs of those that may use it.
    pub reserved_for: BTreeSet<String>,
    /// The drivers that have something of it; `None`: nothing was allocated.
    pub drivers: Option<BTreeSet<String>>,
}

impl ClaimFacts {
    /// From the API's object.
    #[must_use]
    pub fn of(claim: &ResourceClaim) -> Self {
        let owners = claim.metadata.owner_references.iter().flatten();
        let status = claim.status.as_ref();
        let allocation = status.and_then(|s| s.allocation.as_ref());
        Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            owner: owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next(),
            reserved_for: status
                .iter()
                .flat_map(|s| s.reserved_for.iter().flatten())
                .map(|consumer| consumer.uid.clone())
                .collect(),
            drivers: allocation.map(|allocation| {
                let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
                results.map(|result| result.driver.clone()).collect()
            }),
        }
    }

    /// Whether a pod may use it as it is: what is so stays so while the pod lives.
    #[must_use]
    pub fn is_ready_for(&self, pod_uid: &str) -> bool {
        self.drivers.is_some() && self.reserved_for.contains(pod_uid)
    }

    /// What is to be prepared of a claim that a pod names.
    ///
    /// # Errors
    /// The pod may not use it, in upstream's words.
    pub fn wish(&self, pod: &v1::Pod, named: &Named) -> Result<Wish, String> {
        let claim = ObjectName::beside(pod, &named.claim);
        let (pod_name, pod_uid) =
            (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.uid.as_deref().unwrap_or_default());
        if named.is_generated && self.owner.as_deref() != Some(pod_uid) {
            let ObjectName { namespace, name } = &claim;
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{pod_name} (Pod is not owner)"
            ));
        }
        let (name, uid) = (&claim.name, &self.uid);
        if !self.reserved_for.contains(pod_uid) {
            return Err(format!("pod {pod_name} ({pod_uid}) is not allowed to use ResourceClaim {name} ({uid})"));
        }
        let Some(drivers) = &self.drivers else { return Err(format!("ResourceClaim {name}: not allocated")) };
        Ok(Wish { uid: self.uid.clone(), drivers: drivers.clone(), claim })
    }
}

/// A claim that is to be prepared for a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    pub claim: ObjectName,
    pub uid: String,
    pub drivers: BTreeSet<String>,
}

/// A device as its driver described it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device {
    pub pool: String,
    pub name: String,
    pub share: Option<String>,
    /// The claim's requests that it is for; none: for all.
    pub requests: Vec<String>,
    pub cdi: Vec<String>,
}

impl Device {
    fn is_for(&self, request: &str) -> bool {
        request.is_empty() || self.requests.is_empty() || self.requests.iter().any(|one| one == request)
    }
}

/// A claim that pods of this node use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Held {
    pub uid: String,
    pub pods: BTreeSet<PodUid>,
    /// By driver; also of those that gave none.
    pub drivers: BTreeMap<String, Vec<Device>>,
    /// By this agent, in this life: a driver is asked again after a restart.
    pub is_prepared: bool,
}

/// What drivers are to be asked, each with the claims by their UIDs.
pub type Batches = BTreeMap<String, BTreeMap<String, ObjectName>>;

/// All claims that pods of this node use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    held: BTreeMap<ObjectName, Held>,
}

impl Claims {
    /// What an earlier life wrote down.
    #[must_use]
    pub fn restored(held: impl IntoIterator<Item = (ObjectName, Held)>) -> Self {
        Self { held: held.into_iter().into_map() }
    }

    /// To be written down.
    pub fn held(&self) -> impl Iterator<Item = (&ObjectName, &Held)> {
        self.held.iter()
    }

    /// A pod begins to use claims; who is to be asked before it may.
    ///
    /// # Errors
    /// Another claim of the same name is in use still, in upstream's words. What was begun goes on being the pod's.
    pub fn begin(&mut self, pod: &PodUid, wishes: &[Wish]) -> Result<Batches, String> {
        let mut batches = Batches::new();
        for wish in wishes {
            let held = self.held.entry(wish.claim.clone()).or_insert_with(|| Held {
                uid: wish.uid.clone(),
                drivers: wish.drivers.iter().map(|driver| (driver.clone(), Vec::new())).into_map(),
                ..Held::default()
            });
            if held.uid != wish.uid {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                    wish.claim.name, held.uid
                ));
            }
            held.pods.insert(pod.clone());
            if !held.is_prepared {
                for driver in held.drivers.keys() {
                    batches.entry(driver.clone()).or_default().insert(wish.uid.clone(), wish.claim.clone());
                }
            }
        }
        Ok(batches)
    }

    /// What a driver has prepared for a claim.
    pub fn give(&mut self, claim: &ObjectName, driver: &str, devices: Vec<Device>) {
        if let Some(held) = self.held.get_mut(claim) {
            held.drivers.insert(driver.to_owned(), devices);
        }
    }

    /// All drivers of these claims have done their part.
    pub fn prepared(&mut self, wishes: &[Wish]) {
        for wish in wishes {
            if let Some(held) = self.held.get_mut(&wish.claim).filter(|held| held.uid == wish.uid) {
                held.is_prepared = true;
            }
        }
    }

    /// The claims that a pod uses.
    #[must_use]
    pub fn of(&self, pod: &PodUid) -> BTreeSet<ObjectName> {
        self.held.iter().filter(|(_, held)| held.pods.contains(pod)).map(|(claim, _)| claim.clone()).collect()
    }

    /// A pod is over: it uses no more what others use, too. Who is to be asked to take back the rest.
    pub fn leave(&mut self, pod: &PodUid) -> Batches {
        let mut batches = Batches::new();
        for (claim, held) in self.held.iter_mut().filter(|(_, held)| held.pods.contains(pod)) {
            if held.pods.len() > 1 {
                held.pods.remove(pod);
                continue;
            }
            held.is_prepared = false;
            for driver in held.drivers.keys() {
                batches.entry(driver.clone()).or_default().insert(held.uid.clone(), claim.clone());
            }
        }
        batches
    }

    /// What a pod used alone was taken back.
    pub fn left(&mut self, pod: &PodUid) {
        self.held.retain(|_, held| held.pods.len() != 1 || !held.pods.contains(pod));
    }

    /// All pods that use something.
    #[must_use]
    pub fn pods(&self) -> BTreeSet<PodUid> {
        self.held.values().flat_map(|held| held.pods.iter().cloned()).collect()
    }

    /// How many claims are prepared, by driver.
    #[must_use]
    pub fn in_use(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::from([(ANY_DRIVER, 0)]);
        for held in self.held.values().filter(|held| held.is_prepared) {
            for driver in held.drivers.keys().map(String::as_str).chain([ANY_DRIVER]) {
                *counts.entry(driver).or_default() += 1;
            }
        }
        counts
    }

    /// The CDI devices that a container gets.
    ///
    /// # Errors
    /// A claim was not prepared, in upstream's words.
    pub fn cdi_devices(&self, pod: &v1::Pod, container: &v1::Container, extended: bool) -> Result<Vec<String>, String> {
        let mut all: Vec<String> = Vec::new();
        for (claim, requests) in wishes::of_container(pod, container, extended)? {
            let claim = ObjectName::beside(pod, &claim);
            let held = self.held.get(&claim).ok_or_else(|| {
                let ObjectName { namespace, name } = &claim;
                format!("internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}")
            })?;
            let devices = || held.drivers.values().flatten();
            let of = requests.iter().flat_map(|request| devices().filter(move |device| device.is_for(request)));
            all.extend(of.flat_map(|device| device.cdi.iter().cloned()));
        }
        let mut seen = BTreeSet::new();
        all.retain(|id| seen.insert(id.clone()));
        Ok(all)
    }

    /// What monitoring is told of a container.
    #[must_use]
    pub fn shown(
        &self,
        pod: &v1::Pod,
        container: &v1::Container,
        extended: bool,
    ) -> Vec<podresources::DynamicResource> {
        let names = wishes::shown(pod, container, extended);
        let found = names.iter().filter_map(|name| self.held.get_key_value(&ObjectName::beside(pod, name)));
        found.map(|(claim, held)| shown(claim, held)).collect()
    }
}

/// kubelet 1.36: stands for all drivers together.
const ANY_DRIVER: &str = "<any>";

fn shown(claim: &ObjectName, held: &Held) -> podresources::DynamicResource {
    let all = held.drivers.iter().flat_map(|(driver, devices)| devices.iter().map(move |device| (driver, device)));
    let resource = |(driver, device): (&String, &Device)| podresources::ClaimResource {
        cdi_devices: device.cdi.iter().map(|id| podresources::CdiDevice { name: id.clone() }).collect(),
        driver_name: driver.clone(),
        pool_name: device.pool.clone(),
        device_name: device.name.clone(),
        share_id: device.share.clone(),
    };
    podresources::DynamicResource {
        claim_name: claim.name.clone(),
        claim_namespace: claim.namespace.clone(),
        claim_resources: all.map(resource).collect(),
    }
}

/// What a driver said of each claim that it was asked about, by UID.
///
/// # Errors
/// It failed, was asked for nothing of the kind, or left claims out: in upstream's words.
pub fn check_answer<'a>(
    call: &str,
    asked: &BTreeMap<String, ObjectName>,
    answers: impl Iterator<Item = (&'a String, &'a str)>,
) -> Result<(), String> {
    let mut count = 0;
    for (uid, error) in answers {
        count += 1;
        let claim = asked.get(uid).ok_or_else(|| format!("{call} returned result for unknown claim UID {uid}"))?;
        if !error.is_empty() {
            return Err(format!("{call} failed for ResourceClaim {}: {error}", claim.name));
        }
    }
    match asked.len().saturating_sub(count) {
        0 => Ok(()),
        left => Err(format!("{call} skipped {left} ResourceClaims")),
    }
}

/// Gives a container its CDI devices; those of claims come before those of plugins, as upstream has them.
pub fn fill_container(config: &mut cri::ContainerConfig, devices: Vec<String>) {
    let fresh = devices.into_iter().filter(|id| !config.cdi_devices.iter().any(|d| d.name == *id));
    let fresh: Vec<cri::CdiDevice> = fresh.map(|name| cri::CdiDevice { name }).collect();
    config.cdi_devices.splice(..0, fresh);
}
