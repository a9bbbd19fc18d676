//! A driver of resource claims (DRA) for tests: each claim gets a device of its own, described to runtimes in a CDI file.
//!
//! It registers as any driver does, by a socket in `plugins_registry`. What it was asked is in `calls.jsonl`; what it shall refuse,
//! and how its devices are, is told by files. Run as a program (`src/bin/dra-driver.rs`), it survives the kubelet.

mod options;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use rubelet_host::watch::Watcher;
use rubelet_proto::dra::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use rubelet_proto::dra_health::{DeviceHealth, DeviceIdentifier, HealthStatus, NodeWatchResourcesResponse};
use rubelet_proto::registration::PluginInfo;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use options::{Options, OptionsError, USAGE};

use crate::calls::{self, Calls};
use crate::grpc::{Refusal, Served, Service};

/// Devices that it has.
const DEVICES: usize = 8;

/// A driver that serves its two sockets until it is dropped.
pub struct DraDriver(Served);

impl DraDriver {
    /// Listens, and is found by the node from then on. Within a tokio runtime.
    ///
    /// # Errors
    /// A folder, a socket or the log cannot be made.
    pub fn start(options: Options) -> io::Result<Self> {
        let sockets = vec![options.socket.clone(), options.registration_socket()];
        for folder in [options.data.join("health"), options.data.join("prepared"), options.cdi.clone()] {
            fs::create_dir_all(folder)?;
        }
        let calls = Calls::open(&options.data, "dra-driver")?;
        Served::start(sockets, Driver { options, calls }).map(Self)
    }

    /// Serves until the future is dropped.
    pub async fn run(self) {
        self.0.run().await;
    }
}

struct Driver {
    options: Options,
    calls: Calls,
}

impl Service for Driver {
    fn answer(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let method = path.rsplit('/').next().unwrap_or_default();
        let refused = self.calls.asked_to_fail(method);
        let (shown, done) = if path.starts_with("/pluginregistration.") {
            calls::register(method, body, || self.info())
        } else if !path.starts_with(&format!("/k8s.io.kubelet.pkg.apis.dra.{}.", self.options.version)) {
            (json!({}), Err(Refusal::unimplemented(path)))
        } else {
            self.work(method, body, refused)
        };
        self.calls.note(method, &shown, done.as_ref().err());
        done
    }

    fn stream(self: Arc<Self>, path: &str) -> Option<mpsc::Receiver<Vec<u8>>> {
        if path != "/v1alpha1.DRAResourceHealth/NodeWatchResources" || !self.options.has_health {
            return None;
        }
        self.calls.note("NodeWatchResources", &json!({}), None);
        let (tx, rx) = mpsc::channel(1);
        tokio::spawn(tell_health(self, tx));
        Some(rx)
    }
}

impl Driver {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: self.options.name.clone(),
            endpoint: self.options.endpoint.as_ref().unwrap_or(&self.options.socket).to_string_lossy().into_owned(),
            supported_versions: vec![format!("{}.DRAPlugin", self.options.version)],
        }
    }

    fn work(&self, method: &str, body: &[u8], refused: Option<Refusal>) -> (Value, Result<Vec<u8>, Refusal>) {
        let claims = match method {
            "NodePrepareResources" => NodePrepareResourcesRequest::decode(body).map(|request| request.claims),
            "NodeUnprepareResources" => NodeUnprepareResourcesRequest::decode(body).map(|request| request.claims),
            other => return (json!({}), Err(Refusal::unimplemented(other))),
        };
        let claims = match claims {
            Ok(claims) => claims,
            Err(error) => return (json!({}), Err(Refusal::invalid(error.to_string()))),
        };
        let shown = json!(
            claims.iter().map(|c| json!({"namespace": c.namespace, "name": c.name, "uid": c.uid})).collect::<Vec<_>>()
        );
        let done = match refused {
            Some(refused) => Err(refused),
            None if method == "NodePrepareResources" => Ok(self.prepare_all(&claims)),
            None => Ok(self.unprepare_all(&claims)),
        };
        (shown, done)
    }

    fn prepare_all(&self, claims: &[Claim]) -> Vec<u8> {
        let one = |claim: &Claim| {
            let answer = match self.prepare(claim) {
                Ok(devices) => NodePrepareResourceResponse { devices, error: String::new() },
                Err(error) => NodePrepareResourceResponse { devices: Vec::new(), error: error.to_string() },
            };
            (claim.uid.clone(), answer)
        };
        NodePrepareResourcesResponse { claims: claims.iter().map(one).collect() }.encode_to_vec()
    }

    fn unprepare_all(&self, claims: &[Claim]) -> Vec<u8> {
        let one = |claim: &Claim| {
            let error = self.unprepare(claim).err().map(|error| error.to_string()).unwrap_or_default();
            (claim.uid.clone(), NodeUnprepareResourceResponse { error })
        };
        NodeUnprepareResourcesResponse { claims: claims.iter().map(one).collect() }.encode_to_vec()
    }

    fn cdi_file(&self, claim: &Claim) -> PathBuf {
        self.options.cdi.join(format!("{}-{}.json", self.options.name, claim.uid))
    }

    fn record(&self, claim: &Claim) -> PathBuf {
        self.options.data.join("prepared").join(&claim.uid)
    }

    /// One device for each request, as the options name them. The same again for a claim that is prepared.
    fn prepare(&self, claim: &Claim) -> io::Result<Vec<Device>> {
        let taken = self.taken()?;
        let names: Vec<String> = match taken.get(&claim.uid) {
            Some(names) => names.clone(),
            None => {
                let is_free = |name: &String| !taken.values().flatten().any(|one| one == name);
                let free: Vec<String> = (0..DEVICES).map(|n| format!("dev-{n}")).filter(is_free).collect();
                let wanted = self.options.requests.len().max(1);
                if free.len() < wanted {
                    return Err(io::Error::other("all devices are taken"));
                }
                free.into_iter().take(wanted).collect()
            }
        };
        let kind = format!("{}/device", self.options.name);
        let device = |(nth, name): (usize, &String)| {
            let request = self.options.requests.get(nth);
            let label = request.map_or_else(|| "ALL".to_owned(), |request| request.to_uppercase());
            let edits = json!({
                "env": [format!("DRA_{label}={name} of {}", claim.name)],
                "deviceNodes": [{"path": format!("/dev/{name}"), "hostPath": "/dev/null"}],
            });
            let id = format!("{}-{name}", claim.uid);
            let told = Device {
                request_names: request.cloned().into_iter().collect(),
                pool_name: self.options.pool.clone(),
                device_name: name.clone(),
                cdi_device_ids: vec![format!("{kind}={id}")],
                share_id: None,
            };
            (json!({"name": id, "containerEdits": edits}), told)
        };
        let (described, told): (Vec<Value>, Vec<Device>) = names.iter().enumerate().map(device).unzip();
        let cdi = json!({"cdiVersion": "0.5.0", "kind": kind, "devices": described});
        put(&self.cdi_file(claim), &cdi.to_string())?;
        put(&self.record(claim), &names.join("\n"))?;
        Ok(told)
    }

    fn unprepare(&self, claim: &Claim) -> io::Result<()> {
        for file in [self.cdi_file(claim), self.record(claim)] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The devices of claims that are prepared, by the claims' UIDs.
    fn taken(&self) -> io::Result<BTreeMap<String, Vec<String>>> {
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(self.options.data.join("prepared"))? {
            let entry = entry?;
            let names = fs::read_to_string(entry.path())?;
            taken.insert(entry.file_name().to_string_lossy().into_owned(), names.lines().map(str::to_owned).collect());
        }
        Ok(taken)
    }

    /// Devices are well unless a file says otherwise.
    fn health(&self) -> NodeWatchResourcesResponse {
        let one = |nth: usize| {
            let device_name = format!("dev-{nth}");
            let message = fs::read_to_string(self.options.data.join("health").join(&device_name)).ok();
            let health = if message.is_some() { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            DeviceHealth {
                device: Some(DeviceIdentifier { pool_name: self.options.pool.clone(), device_name }),
                health: health.into(),
                last_updated_time: 0,
                health_check_timeout_seconds: 3600,
                message: message.map(|text| text.trim().to_owned()).unwrap_or_default(),
            }
        };
        NodeWatchResourcesResponse { devices: (0..DEVICES).map(one).collect() }
    }
}

/// Tells how the devices are, now and whenever a file changes.
async fn tell_health(driver: Arc<Driver>, to: mpsc::Sender<Vec<u8>>) {
    let Ok(mut watcher) = Watcher::new() else { return };
    let _ = watcher.set(&[driver.options.data.join("health")].into());
    while to.send(driver.health().encode_to_vec()).await.is_ok() {
        tokio::select! {
            _ = watcher.next() => {}
            () = to.closed() => return,
        }
    }
}

/// Whole or not at all.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    fs::write(&beside, text)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests;
