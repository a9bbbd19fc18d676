//! How the devices of claims are, as their drivers say, for as long as that holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;
use rubelet_proto::dra_health::{DeviceHealth, HealthStatus};

use super::{Claims, Device, wishes};
use crate::now::Mono;
use crate::pod::needs::ObjectName;

/// kubelet 1.36: how long a driver's word holds when it does not say.
const HOLDS: Duration = Duration::from_secs(30);
/// kubelet 1.36: bytes of a message.
const MESSAGE_BYTES_MAX: usize = 1024;
const UNKNOWN: &str = "Unknown";

/// By driver, pool and device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    of: BTreeMap<String, BTreeMap<(String, String), Word>>,
}

/// What a driver said of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Word {
    health: HealthStatus,
    message: String,
    until: Mono,
}

impl Health {
    /// A driver says how its devices are. Those of which there is something new.
    pub fn told(&mut self, driver: &str, devices: &[DeviceHealth], now: Mono) -> BTreeSet<(String, String)> {
        let known = self.of.entry(driver.to_owned()).or_default();
        let mut changed = BTreeSet::new();
        for device in devices {
            let of = device.device.clone().unwrap_or_default();
            let key = (of.pool_name, of.device_name);
            let holds = match u64::try_from(device.health_check_timeout_seconds) {
                Ok(secs @ 1..) => Duration::from_secs(secs),
                Ok(_) | Err(_) => HOLDS,
            };
            let word = Word { health: device.health(), message: cut(&device.message), until: now + holds };
            let before = known.insert(key.clone(), word.clone());
            let was = before.filter(|before| before.until > now).map(|before| (before.health, before.message));
            if was != Some((word.health, word.message)) {
                changed.insert(key);
            }
        }
        changed
    }

    /// A driver says nothing any more. Whether it ever did.
    pub fn forget(&mut self, driver: &str) -> bool {
        self.of.remove(driver).is_some_and(|known| !known.is_empty())
    }

    /// Forgets what was said too long ago; the drivers and devices that it was about.
    pub fn expire(&mut self, now: Mono) -> BTreeSet<(String, (String, String))> {
        let over = self.of.iter_mut().flat_map(|(driver, known)| {
            let over = known.extract_if(.., |_, word| word.until <= now).map(|(device, _)| device);
            over.map(|device| (driver.clone(), device)).collect::<Vec<_>>()
        });
        over.collect()
    }

    /// When the next word ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<Mono> {
        self.of.values().flat_map(BTreeMap::values).map(|word| word.until).min()
    }

    fn shown(&self, driver: &str, device: &Device, with_message: bool) -> v1::ResourceHealth {
        let word = self.of.get(driver).and_then(|of| of.get(&(device.pool.clone(), device.name.clone())));
        let health = match word.map(|word| word.health) {
            Some(HealthStatus::Healthy) => "Healthy",
            Some(HealthStatus::Unhealthy) => "Unhealthy",
            Some(HealthStatus::Unknown) | None => UNKNOWN,
        };
        let message = word.map(|word| word.message.clone()).filter(|text| with_message && !text.is_empty());
        let id = device.cdi.first().cloned();
        v1::ResourceHealth {
            health: Some(health.to_owned()),
            message,
            resource_id: id.unwrap_or_else(|| format!("{driver}/{}/{}", device.pool, device.name)),
        }
    }
}

/// kubelet 1.36: cut off with three dots.
fn cut(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    format!("{}...", &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX - 3)])
}

impl Claims {
    /// The pods that have one of these devices of a driver.
    #[must_use]
    pub fn pods_with(&self, driver: &str, devices: &BTreeSet<(String, String)>) -> BTreeSet<PodUid> {
        let has_one = |given: &Vec<Device>| given.iter().any(|d| devices.contains(&(d.pool.clone(), d.name.clone())));
        let held = self.held.values().filter(|held| held.drivers.get(driver).is_some_and(has_one));
        held.flat_map(|held| held.pods.iter().cloned()).collect()
    }

    /// The pods that have devices of a driver.
    #[must_use]
    pub fn pods_of(&self, driver: &str) -> BTreeSet<PodUid> {
        let held = self.held.values().filter(|held| held.drivers.contains_key(driver));
        held.flat_map(|held| held.pods.iter().cloned()).collect()
    }

    /// How the devices of a pod's claims are, by container. kubelet 1.36: of regular containers; what is there twice once.
    #[must_use]
    pub fn health(
        &self,
        pod: &v1::Pod,
        health: &Health,
        with_message: bool,
    ) -> BTreeMap<String, Vec<v1::ResourceStatus>> {
        let mut all = BTreeMap::new();
        for container in pod.spec.iter().flat_map(|s| &s.containers) {
            let mut of: BTreeMap<String, Vec<v1::ResourceHealth>> = BTreeMap::new();
            for (name, claim, request) in wishes::statuses(pod, container) {
                let Some(held) = self.held.get(&ObjectName::beside(pod, &claim)) else { continue };
                // Devices are told by the request; which of its alternatives was chosen does not matter.
                let request = request.split('/').next().unwrap_or_default();
                let mut shown: Vec<v1::ResourceHealth> = Vec::new();
                for (driver, devices) in &held.drivers {
                    for device in devices.iter().filter(|device| device.is_for(request)) {
                        let one = health.shown(driver, device, with_message);
                        if !shown.iter().any(|known| known.resource_id == one.resource_id) {
                            shown.push(one);
                        }
                    }
                }
                if !shown.is_empty() {
                    of.insert(name, shown);
                }
            }
            if !of.is_empty() {
                let status = |(name, shown)| v1::ResourceStatus { name, resources: Some(shown) };
                all.insert(container.name.clone(), of.into_iter().map(status).collect());
            }
        }
        all
    }
}
