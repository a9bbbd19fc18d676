//! What all drivers for tests do: register, note their calls, fail when a file says so.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use prost::Message;
use rubelet_proto::registration::{PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use serde_json::{Value, json};

use crate::grpc::Refusal;

/// The record of calls in `<data>/calls.jsonl`, and `<data>/fail`.
pub(crate) struct Calls {
    data: PathBuf,
    who: &'static str,
    log: Mutex<fs::File>,
}

impl Calls {
    pub(crate) fn open(data: &Path, who: &'static str) -> io::Result<Self> {
        fs::create_dir_all(data.join("fail"))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(data.join("calls.jsonl"))?;
        Ok(Self { data: data.to_owned(), who, log: Mutex::new(log) })
    }

    /// `fail/<method>` holds a gRPC code's number and a message.
    pub(crate) fn asked_to_fail(&self, method: &str) -> Option<Refusal> {
        let text = fs::read_to_string(self.data.join("fail").join(method)).ok()?;
        let (code, message) = text.trim().split_once(' ').unwrap_or(("13", text.trim()));
        Some(Refusal { code: code.parse().unwrap_or(13), message: message.to_owned() })
    }

    pub(crate) fn note(&self, method: &str, request: &Value, refusal: Option<&Refusal>) {
        let refused = refusal.map(|r| json!({"code": r.code, "message": r.message}));
        let line = format!("{}\n", json!({"method": method, "request": request, "refused": refused}));
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.write_all(line.as_bytes()) {
            let _ = writeln!(io::stderr(), "{}: write calls.jsonl: {error}", self.who);
        }
    }
}

/// A call of the kubelet's to the registration's socket: what was asked, and the answer.
pub(crate) fn register(
    method: &str,
    body: &[u8],
    info: impl FnOnce() -> PluginInfo,
) -> (Value, Result<Vec<u8>, Refusal>) {
    match method {
        "GetInfo" => (json!({}), Ok(info().encode_to_vec())),
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
