//! How plugins make themselves known: a socket in `plugins_registry` that says what it is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

use super::client::{CsiError, Driver};

/// kubelet 1.36: how long a plugin may take to say what it is, and to hear that it is registered.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
const NOTIFY_PATIENCE: Duration = Duration::from_secs(5);
/// Folders below the registry that are looked into.
const DEPTH_MAX: usize = 8;

/// What a registration socket says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plugin {
    /// `CSIPlugin`, `DevicePlugin`, `DRAPlugin`.
    pub kind: String,
    pub name: String,
    /// Where it does its work.
    pub endpoint: PathBuf,
    pub versions: Vec<String>,
}

impl Plugin {
    /// Whether it is a CSI driver of the version that we speak.
    ///
    /// # Errors
    /// Why it cannot be registered, in words for the plugin.
    pub fn check_csi(&self) -> Result<(), String> {
        if self.kind != "CSIPlugin" {
            return Err(format!("no handler registered for plugin type: {}", self.kind));
        }
        let is_ours = |v: &String| v.trim_start_matches('v').split('.').next() == Some("1");
        if self.versions.iter().any(is_ours) {
            return Ok(());
        }
        let versions = self.versions.join(", ");
        Err(format!("CSI driver {} supports [{versions}], this node needs 1.x", self.name))
    }
}

/// All sockets below the registry, but for hidden ones. None when it does not exist.
pub fn sockets(registry: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut ahead = vec![(registry.to_owned(), 0)];
    while let Some((dir, depth)) = ahead.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => ahead.push((entry.path(), depth + 1)),
                Ok(kind) if kind.is_socket() => drop(found.insert(entry.path())),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

/// Asks a registration socket what it is.
///
/// # Errors
/// It does not say.
pub async fn ask(socket: &Path) -> Result<Plugin, CsiError> {
    let plugin = Driver::at(socket);
    let info: PluginInfo =
        plugin.call_within("/pluginregistration.Registration/GetInfo", InfoRequest {}, ASK_PATIENCE).await?;
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(info.endpoint) };
    Ok(Plugin { kind: info.r#type, name: info.name, endpoint, versions: info.supported_versions })
}

/// Tells a plugin what became of its registration.
///
/// # Errors
/// It does not listen.
pub async fn notify(socket: &Path, outcome: Result<(), String>) -> Result<(), CsiError> {
    let status = RegistrationStatus { plugin_registered: outcome.is_ok(), error: outcome.err().unwrap_or_default() };
    let path = "/pluginregistration.Registration/NotifyRegistrationStatus";
    let _: RegistrationStatusResponse = Driver::at(socket).call_within(path, status, NOTIFY_PATIENCE).await?;
    Ok(())
}
