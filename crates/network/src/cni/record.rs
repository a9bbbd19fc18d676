//! What is remembered of a pod that plugins have attached: all that taking it back needs, whatever becomes of the configuration, the
//! cache or the machine meanwhile. Written, and on the disk, before the first plugin runs.
//!
//! Beside it goes libcni's record of the result, for other programs that look there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rubelet_host::paths::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::list::List;
use crate::error::file_error;
use crate::link::ETH0;
use crate::{NetworkError, Options};

/// One attachment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// For messages: `namespace/name`.
    pub(super) pod: String,
    /// A `.conflist`.
    list: Value,
    /// `CNI_ARGS`.
    pub(super) arguments: Vec<(String, String)>,
    /// Values for the plugins that have these capabilities.
    pub(super) capabilities: Map<String, Value>,
    /// What the last plugin said; `None` until all have been run.
    pub(super) result: Option<Value>,
}

fn dir(options: &Options) -> PathBuf {
    options.state_dir.join("cni")
}

fn path(options: &Options, id: &str) -> PathBuf {
    dir(options).join(format!("{id}.json"))
}

/// The sandboxes that have a record.
pub(super) fn ids(options: &Options) -> Result<Vec<String>, NetworkError> {
    let dir = dir(options);
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file_error("read", &dir))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // What begins with a dot was being written.
    Ok(names.filter(|name| !name.starts_with('.')).filter_map(|n| n.strip_suffix(".json").map(str::to_owned)).collect())
}

impl Record {
    pub(super) fn new(
        pod: String,
        list: &List,
        arguments: Vec<(String, String)>,
        capabilities: Map<String, Value>,
    ) -> Self {
        Self { pod, list: list.document(), arguments, capabilities, result: None }
    }

    /// The list by which the pod was attached.
    pub(super) fn list(&self, options: &Options, id: &str) -> Result<List, NetworkError> {
        List::parse(self.list.to_string().as_bytes(), &path(options, id), None)
    }

    pub(super) fn read(options: &Options, id: &str) -> Result<Option<Self>, NetworkError> {
        let path = path(options, id);
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error("read", &path)(e)),
            Ok(text) => {
                let wrong = |e: serde_json::Error| NetworkError::Configuration { path, problem: e.to_string() };
                serde_json::from_slice(&text).map(Some).map_err(wrong)
            }
        }
    }

    pub(super) fn write(&self, options: &Options, id: &str) -> Result<(), NetworkError> {
        let dir = dir(options);
        fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
        let path = path(options, id);
        let text = serde_json::to_vec(self).map_err(io::Error::other).map_err(file_error("write", &path))?;
        write_atomic(&path, &text, 0o600).map_err(|source| NetworkError::Record { path, source })
    }

    /// Forgets the pod.
    pub(super) fn remove(options: &Options, id: &str) -> Result<(), NetworkError> {
        remove_file(&path(options, id))
    }

    /// Writes libcni's record.
    pub(super) fn write_cache(
        &self,
        options: &Options,
        network: &str,
        id: &str,
        netns: &Path,
    ) -> Result<(), NetworkError> {
        let path = cached(options, network, id);
        let dir = cache_dir(options);
        fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
        let record = json!({
            "kind": "cniCacheV1",
            "containerId": id,
            "config": BASE64_STANDARD.encode(self.list.to_string()),
            "ifName": ETH0,
            "networkName": network,
            "netns": netns,
            "cniArgs": self.arguments,
            "capabilityArgs": self.capabilities,
            "result": self.result,
        });
        write_atomic(&path, record.to_string().as_bytes(), 0o600)
            .map_err(|source| NetworkError::Record { path, source })
    }
}

fn cache_dir(options: &Options) -> PathBuf {
    options.cni_cache_dir.join("results")
}

fn cached(options: &Options, network: &str, id: &str) -> PathBuf {
    cache_dir(options).join(format!("{network}-{id}-{ETH0}"))
}

/// Removes libcni's record.
pub(super) fn remove_cache(options: &Options, network: &str, id: &str) -> Result<(), NetworkError> {
    remove_file(&cached(options, network, id))
}

fn remove_file(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Attachments to a network that are in libcni's cache, whoever put them there: id and interface.
pub(super) fn in_cache(options: &Options, network: &str) -> Result<Vec<(String, String)>, NetworkError> {
    let dir = cache_dir(options);
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file_error("read", &dir))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(text) = fs::read(entry.path()) else { continue };
        let Ok(Value::Object(record)) = serde_json::from_slice::<Value>(&text) else { continue };
        let word = |name: &str| super::list::word(&record, name).to_owned();
        if word("networkName") == network {
            found.push((word("containerId"), word("ifName")));
        }
    }
    Ok(found)
}
