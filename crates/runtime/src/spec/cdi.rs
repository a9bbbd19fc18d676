//! Devices by the Container Device Interface: names like `vendor.com/gpu=0`, and files on the host that say what a container gets with
//! them (versions 0.3 to 1.0). What is read of a file is in [`document`]; what a name brings is written into the specification here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rubelet_proto::cri;
use rubelet_shim::spec::{Device, Mount, Spec};

use super::SpecError;
use super::devices;

mod document;
#[cfg(test)]
mod tests;

use document::{Document, Edits, Node};

/// Devices by annotation: `cdi.k8s.io/WHOEVER: NAME,NAME`.
const ANNOTATION: &str = "cdi.k8s.io/";
/// Files in one directory, and devices of one container, at most.
const FILES_MAX: usize = 1024;
const DEVICES_MAX: usize = 1024;

/// Writes into `spec` what the container's devices bring.
pub(super) fn inject(spec: &mut Spec, config: &cri::ContainerConfig, dirs: &[PathBuf]) -> Result<(), SpecError> {
    let names = names(config)?;
    if names.is_empty() {
        return Ok(());
    }
    let failed = |why: String| SpecError::new(format!("CDI device injection failed: {why}"));
    let known = Registry::read(dirs).map_err(failed)?;
    let unknown: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !known.devices.contains_key(*name)).collect();
    if !unknown.is_empty() {
        let mut why = format!("unresolvable CDI devices {}", unknown.join(", "));
        for fault in &known.faults {
            why.push_str("; ");
            why.push_str(fault);
        }
        return Err(failed(why));
    }
    let mut seen = Vec::new();
    for name in &names {
        let (at, device) = known.devices[name];
        let document = &known.documents[at];
        if !seen.contains(&at) {
            seen.push(at);
            apply(spec, &document.container_edits).map_err(|why| failed(format!("{}: {why}", document.kind)))?;
        }
        let edits = &document.devices[device].container_edits;
        apply(spec, edits).map_err(|why| failed(format!("{name}: {why}")))?;
    }
    spec.mounts.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    Ok(())
}

/// What CRI lists, then what annotations list; each once.
fn names(config: &cri::ContainerConfig) -> Result<Vec<String>, SpecError> {
    let listed = config.cdi_devices.iter().map(|device| device.name.clone());
    let annotated = config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    let annotated = annotated.flat_map(|(_, value)| value.split(',')).map(|name| name.trim().to_owned());
    let mut names: Vec<String> = Vec::new();
    for name in listed.chain(annotated).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
        if names.len() > DEVICES_MAX {
            return Err(SpecError::new(format!("CDI device injection failed: more than {DEVICES_MAX} devices")));
        }
    }
    Ok(names)
}

/// All devices that the files know.
#[derive(Default)]
struct Registry {
    documents: Vec<Document>,
    /// By full name: which document, and which device in it.
    devices: BTreeMap<String, (usize, usize)>,
    /// Files that cannot be used, and why.
    faults: Vec<String>,
}

impl Registry {
    /// What a later directory says of a device wins; two files of one directory that say something of the same device cannot both be right.
    fn read(dirs: &[PathBuf]) -> Result<Self, String> {
        let mut all = Self::default();
        for dir in dirs {
            let mut here: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            let mut disputed = Vec::new();
            for path in files(dir)? {
                let document = match Document::read(&path) {
                    Ok(document) => document,
                    Err(why) => {
                        all.faults.push(format!("{}: {why}", path.display()));
                        continue;
                    }
                };
                let at = all.documents.len();
                for (number, device) in document.devices.iter().enumerate() {
                    let name = format!("{}={}", document.kind, device.name);
                    if here.insert(name.clone(), (at, number)).is_some() {
                        all.faults.push(format!("{}: conflicting device {name:?}", path.display()));
                        disputed.push(name);
                    }
                }
                all.documents.push(document);
            }
            all.devices.append(&mut here);
            for name in disputed {
                all.devices.remove(&name);
            }
        }
        Ok(all)
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: io::Error| format!("read {}: {e}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "json" || end == "yaml") && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(format!("{} has more than {FILES_MAX} files", dir.display()));
        }
    }
    files.sort();
    Ok(files)
}

/// What one device, or all of a file, changes.
fn apply(spec: &mut Spec, edits: &Edits) -> Result<(), String> {
    edits.refuse_unknown()?;
    for entry in &edits.env {
        let Some((name, _)) = entry.split_once('=') else {
            return Err(format!("invalid environment variable {entry:?}"));
        };
        let is_it = |known: &&mut String| known.split('=').next() == Some(name);
        match spec.process.env.iter_mut().find(is_it) {
            Some(known) => known.clone_from(entry),
            None => spec.process.env.push(entry.clone()),
        }
    }
    for node in &edits.device_nodes {
        add_node(spec, node)?;
    }
    for mount in &edits.mounts {
        let destination = super::mounts::clean(&mount.container_path).display().to_string();
        spec.mounts.retain(|known| known.destination != destination);
        spec.mounts.push(Mount {
            destination,
            kind: mount.kind.clone(),
            source: mount.host_path.clone(),
            options: mount.options.clone(),
            ..Mount::default()
        });
    }
    let groups = &mut spec.process.user.additional_gids;
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    Ok(())
}

fn add_node(spec: &mut Spec, node: &Node) -> Result<(), String> {
    let user = &spec.process.user;
    // A node without an owner is its user's.
    let owner = |own: Option<u32>, users: u32| own.or((users > 0).then_some(users));
    let device = Device { uid: owner(node.uid, user.uid), gid: owner(node.gid, user.gid), ..filled(node)? };
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    if device.kind != "p" {
        spec.linux.resources.devices.push(devices::rule(&device, access).map_err(|e| e.to_string())?);
    }
    spec.linux.devices.retain(|known| known.path != device.path);
    spec.linux.devices.push(device);
    Ok(())
}

/// The node with what the file does not say of it taken from the host's.
fn filled(node: &Node) -> Result<Device, String> {
    let mut device = Device {
        path: super::mounts::clean(&node.path).display().to_string(),
        kind: node.kind.clone(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        ..Device::default()
    };
    if !node.kind.is_empty() && (node.major != 0 || node.kind == "p") {
        return Ok(device);
    }
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let failed = |why: String| format!("failed to stat CDI host device {host:?}: {why}");
    let stat = fs::metadata(host).map_err(|e| failed(SpecError::go("stat", &e)))?;
    let found =
        devices::node(Path::new(&device.path), &stat).ok_or_else(|| failed("it is not a device node".to_owned()))?;
    if !node.kind.is_empty() && node.kind != found.kind && (node.kind.as_str(), found.kind.as_str()) != ("u", "c") {
        return Err(format!(
            "CDI device ({:?}, {host:?}), host type mismatch ({}, {})",
            node.path, node.kind, found.kind
        ));
    }
    (device.kind, device.major, device.minor) = (found.kind, found.major, found.minor);
    Ok(device)
}
