//! A view made up for tests.

use std::sync::Arc;

use rubelet_api::v1;
use serde_json::{Value, json};

use crate::View;

#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) pods: Vec<Arc<v1::Pod>>,
    pub(crate) sync_loop: Result<(), String>,
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
}

pub(crate) fn healthy() -> Shown {
    Shown { pods: Vec::new(), sync_loop: Ok(()) }
}

pub(crate) fn pod(name: &str) -> Arc<v1::Pod> {
    let mut pod = v1::Pod::default();
    pod.metadata.name = Some(name.to_owned());
    Arc::new(pod)
}
