//! A view made up for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rubelet_api::v1;
use rubelet_cri::Runtime;
use rubelet_proto::podresources::{
    AllocatableResourcesResponse, ContainerDevices, ContainerResources, DynamicResource,
};
use rubelet_testkit::FakeRuntime;
use rubelet_testkit::runtime::Temper;
use serde_json::{Value, json};

use crate::{Premises, Switches, View};

#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) pods: Vec<Arc<v1::Pod>>,
    pub(crate) sync_loop: Result<(), String>,
    /// By container.
    pub(crate) devices: BTreeMap<String, Vec<ContainerDevices>>,
    pub(crate) dynamic_resources: BTreeMap<String, Vec<DynamicResource>>,
    pub(crate) device_plugins: Result<(), String>,
    pub(crate) runtime: FakeRuntime,
    pub(crate) premises: Premises,
    pub(crate) verbosity: Arc<AtomicU32>,
}

impl View for Shown {
    fn pods(&self) -> Vec<Arc<v1::Pod>> {
        self.pods.clone()
    }

    fn configz(&self) -> Value {
        json!({ "port": 10250 })
    }

    fn sync_loop(&self) -> Result<(), String> {
        self.sync_loop.clone()
    }

    fn allocated(&self, _pod: &str, container: &str) -> ContainerResources {
        let devices = self.devices.get(container).cloned().unwrap_or_default();
        ContainerResources { devices, cpu_ids: vec![2, 3], ..ContainerResources::default() }
    }

    fn dynamic_resources(&self, _pod: &v1::Pod, container: &v1::Container) -> Vec<DynamicResource> {
        self.dynamic_resources.get(&container.name).cloned().unwrap_or_default()
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        let devices = self.devices.values().flatten().cloned().collect();
        AllocatableResourcesResponse { devices, cpu_ids: vec![1, 2, 3], ..AllocatableResourcesResponse::default() }
    }

    fn device_plugins(&self) -> Result<(), String> {
        self.device_plugins.clone()
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn set_verbosity(&self, level: u32) {
        self.verbosity.store(level, Ordering::Relaxed);
    }
}

pub(crate) fn healthy() -> Shown {
    Shown {
        pods: Vec::new(),
        sync_loop: Ok(()),
        devices: BTreeMap::new(),
        dynamic_resources: BTreeMap::new(),
        device_plugins: Ok(()),
        runtime: FakeRuntime::new(Temper { latency: Duration::ZERO, ..Temper::default() }),
        premises: Premises {
            switches: Switches {
                has_system_logs: true,
                has_system_log_query: false,
                has_profiling: true,
                has_debug_flags: true,
                splits_log_streams: false,
                translates_web_sockets: true,
                has_checkpoints: true,
                has_flagz: true,
                has_statusz: true,
            },
            log_dir: PathBuf::from("/nowhere"),
            checkpoints_dir: PathBuf::from("/checkpoints"),
            flags: BTreeMap::from([("v".to_owned(), "2".to_owned()), ("address".to_owned(), "0.0.0.0".to_owned())]),
            version: "1.36.3+x".to_owned(),
            emulated_version: "1.36".to_owned(),
            started_at: UNIX_EPOCH,
        },
        verbosity: Arc::default(),
    }
}

pub(crate) fn pod(name: &str) -> Arc<v1::Pod> {
    let mut pod = v1::Pod::default();
    pod.metadata.name = Some(name.to_owned());
    Arc::new(pod)
}

/// A pod from JSON.
pub(crate) fn pod_of(value: Value) -> Arc<v1::Pod> {
    Arc::new(serde_json::from_value(value).unwrap())
}
