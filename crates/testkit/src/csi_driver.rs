//! A CSI driver for tests: volumes are folders (or files, for block devices) below one folder, made when they are first used.
//!
//! It registers as any driver does, by a socket in `plugins_registry`, and does what CSI asks of a node. What it was asked is in
//! `calls.jsonl`; what it shall refuse is told by files. Run as a program (`src/bin/csi-driver.rs`), it survives the kubelet.

mod node;
mod options;
mod volumes;

use std::fs;
use std::io;

use rubelet_proto::registration::PluginInfo;

pub use options::{Options, OptionsError, USAGE};

use crate::calls::{self, Calls};
use crate::grpc::{Refusal, Served, Service};

/// A driver that serves its two sockets until it is dropped.
pub struct CsiDriver(Served);

impl CsiDriver {
    /// Listens, and is found by the node from then on. Within a tokio runtime.
    ///
    /// # Errors
    /// A folder, a socket or the log cannot be made.
    pub fn start(options: Options) -> io::Result<Self> {
        let sockets = vec![options.socket.clone(), options.registration_socket()];
        for folder in ["volumes", "sizes", "inline", "abnormal"] {
            fs::create_dir_all(options.data.join(folder))?;
        }
        let calls = Calls::open(&options.data, "csi-driver")?;
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
        let (shown, done) = match self.calls.asked_to_fail(method) {
            Some(refusal) => (node::shown(method, body), Err(refusal)),
            None if path.starts_with("/pluginregistration.") => calls::register(method, body, || self.info()),
            None => (node::shown(method, body), node::answer(&self.options, method, body)),
        };
        // Asked all the time, and of no interest.
        if !matches!(method, "NodeGetCapabilities" | "Probe") {
            self.calls.note(method, &shown, done.as_ref().err());
        }
        done
    }
}

impl Driver {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.options.name.clone(),
            endpoint: self.options.socket.to_string_lossy().into_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests;
