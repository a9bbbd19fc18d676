//! One file of device descriptions: JSON or YAML.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// Bytes of a file at most.
const FILE_MAX: u64 = 4 << 20;
const VERSIONS: [&str; 7] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Document {
    pub(super) cdi_version: String,
    /// `vendor.com/class`.
    pub(super) kind: String,
    annotations: serde_json::Map<String, Value>,
    pub(super) devices: Vec<Described>,
    pub(super) container_edits: Edits,
}

/// A device.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Described {
    pub(super) name: String,
    annotations: serde_json::Map<String, Value>,
    pub(super) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Mounted>,
    pub(super) additional_gids: Vec<u32>,
    hooks: Vec<Value>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) host_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Mounted {
    pub(super) host_path: String,
    pub(super) container_path: String,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
        if size > FILE_MAX {
            return Err(format!("it has {size} bytes, at most {FILE_MAX}"));
        }
        Self::parse(&fs::read(path).map_err(|e| e.to_string())?)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_value(rubelet_api::json_of(text)?)
            .map_err(|e| format!("failed to parse CDI Spec: {e}"))?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            return Err(format!("invalid or unsupported CDI version {:?}", self.cdi_version));
        }
        let is_kind = self.kind.split_once('/').is_some_and(|(vendor, class)| {
            is_name(vendor, "._-") && vendor.starts_with(|c: char| c.is_ascii_alphabetic()) && is_name(class, "_-.")
        });
        if !is_kind {
            return Err(format!("invalid kind {:?}", self.kind));
        }
        if self.devices.is_empty() {
            return Err("invalid spec, no devices".to_owned());
        }
        for (at, device) in self.devices.iter().enumerate() {
            if !is_name(&device.name, "_-.:") {
                return Err(format!("invalid device name {:?}", device.name));
            }
            if self.devices[..at].iter().any(|other| other.name == device.name) {
                return Err(format!("multiple devices {:?}", device.name));
            }
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

/// Letters and digits, with some others between them.
fn is_name(name: &str, between: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(is_plain) && name.ends_with(is_plain) && name.chars().all(|c| is_plain(c) || between.contains(c))
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        for entry in &self.env {
            if !entry.contains('=') {
                return Err(format!("invalid environment variable {entry:?}"));
            }
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("invalid (empty) device path".to_owned());
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("device {:?}: invalid type {:?}", node.path, node.kind));
            }
            if !node.permissions.chars().all(|letter| "rwm".contains(letter)) {
                return Err(format!("device {:?}: invalid permissions {:?}", node.path, node.permissions));
            }
        }
        match self.mounts.iter().find(|mount| mount.host_path.is_empty() || mount.container_path.is_empty()) {
            Some(mount) => Err(format!("invalid mount, empty path: {mount:?}")),
            None => Ok(()),
        }
    }

    /// What cannot be done must not be left out silently.
    pub(super) fn refuse_unknown(&self) -> Result<(), String> {
        let refused = [
            (!self.hooks.is_empty(), "hooks"),
            (self.intel_rdt.is_some(), "intelRdt"),
            (!self.net_devices.is_empty(), "netDevices"),
        ];
        match refused.into_iter().find(|(is_there, _)| *is_there) {
            Some((_, what)) => Err(format!("{what} are not supported")),
            None => Ok(()),
        }
    }
}
