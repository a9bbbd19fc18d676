//! A CSI driver for tests: volumes are folders (or files, for block devices) below one folder, made when they are first used.
//!
//! It registers as any driver does, by a socket in `plugins_registry`, and does what CSI asks of a node. What it was asked is in
//! `calls.jsonl`; what it shall refuse is told by files. Run as a program (`src/bin/csi-driver.rs`), it survives the kubelet.

mod grpc;
mod node;
mod options;
mod volumes;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use rubelet_proto::registration::{PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use serde_json::{Value, json};
use tokio::net::UnixListener;

pub use options::{Options, OptionsError, USAGE};

use grpc::Refusal;

/// A driver that serves its two sockets until it is dropped.
pub struct CsiDriver {
    sockets: [PathBuf; 2],
    tasks: tokio::task::JoinSet<()>,
}

impl CsiDriver {
    /// Listens, and is found by the node from then on. Within a tokio runtime.
    ///
    /// # Errors
    /// A folder, a socket or the log cannot be made.
    pub fn start(options: Options) -> io::Result<Self> {
        let sockets = [options.socket.clone(), options.registration_socket()];
        for folder in ["volumes", "sizes", "inline", "fail", "abnormal"] {
            fs::create_dir_all(options.data.join(folder))?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(options.data.join("calls.jsonl"))?;
        let driver = Arc::new(Driver { options, log: Mutex::new(log) });
        let mut tasks = tokio::task::JoinSet::new();
        // Its work first: who finds the registration may ask at once.
        for socket in &sockets {
            let listener = listen(socket)?;
            tasks.spawn(grpc::serve(listener, driver.clone()));
        }
        Ok(Self { sockets, tasks })
    }

    /// Serves until the future is dropped.
    pub async fn run(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for CsiDriver {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // It may be gone already: a test took it away.
            let _ = fs::remove_file(socket);
        }
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(socket)
}

struct Driver {
    options: Options,
    log: Mutex<fs::File>,
}

impl Driver {
    /// One call by its path; the answer's bytes.
    fn answer(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let method = path.rsplit('/').next().unwrap_or_default();
        let (shown, done) = match self.asked_to_fail(method) {
            Some(refusal) => (node::shown(method, body), Err(refusal)),
            None if path.starts_with("/pluginregistration.") => self.register(method, body),
            None => (node::shown(method, body), node::answer(&self.options, method, body)),
        };
        // Asked all the time, and of no interest.
        if !matches!(method, "NodeGetCapabilities" | "Probe") {
            self.note(method, &shown, done.as_ref().err());
        }
        done
    }

    fn register(&self, method: &str, body: &[u8]) -> (Value, Result<Vec<u8>, Refusal>) {
        match method {
            "GetInfo" => {
                let info = PluginInfo {
                    r#type: "CSIPlugin".to_owned(),
                    name: self.options.name.clone(),
                    endpoint: self.options.socket.to_string_lossy().into_owned(),
                    supported_versions: vec!["1.0.0".to_owned()],
                };
                (json!({}), Ok(info.encode_to_vec()))
            }
            "NotifyRegistrationStatus" => match RegistrationStatus::decode(body) {
                Ok(status) => (
                    json!({"plugin_registered": status.plugin_registered, "error": status.error}),
                    Ok(RegistrationStatusResponse {}.encode_to_vec()),
                ),
                Err(error) => (json!({}), Err(Refusal::invalid(error.to_string()))),
            },
            other => (json!({}), Err(Refusal::unimplemented(other))),
        }
    }

    /// `fail/<method>` holds a gRPC code's number and a message.
    fn asked_to_fail(&self, method: &str) -> Option<Refusal> {
        let text = fs::read_to_string(self.options.data.join("fail").join(method)).ok()?;
        let (code, message) = text.trim().split_once(' ').unwrap_or(("13", text.trim()));
        Some(Refusal { code: code.parse().unwrap_or(13), message: message.to_owned() })
    }

    fn note(&self, method: &str, request: &Value, refusal: Option<&Refusal>) {
        let refused = refusal.map(|r| json!({"code": r.code, "message": r.message}));
        let line = format!("{}\n", json!({"method": method, "request": request, "refused": refused}));
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.write_all(line.as_bytes()) {
            let _ = writeln!(io::stderr(), "csi-driver: write calls.jsonl: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
