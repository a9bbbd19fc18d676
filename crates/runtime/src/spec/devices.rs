//! Device nodes of a container, and which it may use.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rubelet_proto::cri;
use rubelet_shim::spec::{Device, DeviceRule};

use super::SpecError;

/// Nodes that are found below a directory, at most.
const NODES_MAX: usize = 4096;
/// Directories in directories.
const DEPTH_MAX: usize = 16;
/// Directories that have no devices of the machine.
const NOT_DEVICES: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Nodes to make and rules for their use; what every container has is not among them.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<Device>,
    pub(super) rules: Vec<DeviceRule>,
}

/// A privileged container has and may use all.
pub(super) fn devices(config: &cri::ContainerConfig, is_privileged: bool) -> Result<Devices, SpecError> {
    let everything = |allow| DeviceRule { allow, access: "rwm".to_owned(), ..DeviceRule::default() };
    let mut found = Devices { nodes: Vec::new(), rules: vec![everything(is_privileged)] };
    for wanted in &config.devices {
        for node in nodes_of(wanted)? {
            if !is_privileged && !wanted.permissions.is_empty() {
                found.rules.push(rule(&node, &wanted.permissions)?);
            }
            found.nodes.push(node);
        }
    }
    if is_privileged {
        let mut all = Vec::new();
        below(Path::new("/dev"), Path::new("/dev"), 0, &mut all).map_err(SpecError::io("look through /dev"))?;
        all.retain(|node| !found.nodes.iter().any(|own| own.path == node.path));
        found.nodes.extend(all);
    }
    Ok(found)
}

/// Who may use a node: letters of `rwm`.
pub(super) fn rule(node: &Device, access: &str) -> Result<DeviceRule, SpecError> {
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(SpecError::new(format!("invalid permissions {access:?} of device {:?}", node.path)));
    }
    Ok(DeviceRule {
        allow: true,
        kind: node.kind.clone(),
        major: Some(node.major),
        minor: Some(node.minor),
        access: access.to_owned(),
    })
}

fn nodes_of(wanted: &cri::Device) -> Result<Vec<Device>, SpecError> {
    let own = if wanted.container_path.is_empty() { &wanted.host_path } else { &wanted.container_path };
    let inside = super::mounts::clean(own);
    let lstat = |e: &io::Error| SpecError::new(SpecError::go(&format!("lstat {}", wanted.host_path), e));
    let host = fs::canonicalize(&wanted.host_path).map_err(|e| lstat(&e))?;
    let stat = fs::symlink_metadata(&host).map_err(|e| lstat(&e))?;
    let words = || format!("get device path: {:?} containerPath: {:?} error:", wanted.host_path, wanted.container_path);
    if stat.is_dir() {
        let mut nodes = Vec::new();
        below(&host, &inside, 0, &mut nodes).map_err(|e| SpecError::new(SpecError::go(&words(), &e)))?;
        return Ok(nodes);
    }
    node(&inside, &stat).map(|node| vec![node]).ok_or_else(|| SpecError::new(format!("{} not a device node", words())))
}

/// The node of a file, when it is one.
pub(super) fn node(inside: &Path, stat: &Metadata) -> Option<Device> {
    let kind = stat.file_type();
    let letter = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    Some(Device {
        path: inside.display().to_string(),
        kind: letter.to_owned(),
        major: rustix::fs::major(stat.rdev()).into(),
        minor: rustix::fs::minor(stat.rdev()).into(),
        file_mode: Some(stat.mode() & 0o7777),
        uid: Some(stat.uid()),
        gid: Some(stat.gid()),
    })
}

/// The nodes below a directory, under the names that the container has for them. What goes while we look is left out.
fn below(host: &Path, inside: &Path, depth: usize, into: &mut Vec<Device>) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("directories are nested more than {DEPTH_MAX} times")));
    }
    let mut names: Vec<PathBuf> = match fs::read_dir(host) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?.flatten().map(|entry| PathBuf::from(entry.file_name())).collect(),
    };
    names.sort();
    for name in names {
        let stat = match fs::symlink_metadata(host.join(&name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if stat.is_dir() {
            if !NOT_DEVICES.iter().any(|other| name == Path::new(other)) {
                below(&host.join(&name), &inside.join(&name), depth + 1, into)?;
            }
        } else if name != Path::new("console") {
            into.extend(node(&inside.join(&name), &stat));
        }
        if into.len() > NODES_MAX {
            return Err(io::Error::other(format!("there are more than {NODES_MAX} devices")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &str, inside: &str, permissions: &str) -> cri::ContainerConfig {
        let device =
            cri::Device { host_path: host.into(), container_path: inside.into(), permissions: permissions.into() };
        cri::ContainerConfig { devices: vec![device], ..Default::default() }
    }

    fn error(host: &str) -> String {
        devices(&wanted(host, "/dev/d", "rwm"), false).unwrap_err().to_string()
    }

    #[test]
    fn a_node_under_another_name() {
        let Devices { nodes, rules } = devices(&wanted("/dev/null", "/dev/nothing", "rw"), false).unwrap();
        assert_eq!((nodes[0].path.as_str(), nodes[0].major, nodes[0].minor), ("/dev/nothing", 1, 3));
        assert!(!rules[0].allow && rules[0].access == "rwm");
        assert_eq!((rules[1].access.as_str(), rules[1].major, rules[1].kind.as_str()), ("rw", Some(1), "c"));
        // /dev/stdin and the like: links are resolved; without a place in the container it is the host's.
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let found = devices(&wanted(link.to_str().unwrap(), "", ""), false).unwrap();
        assert_eq!((found.nodes[0].path.as_str(), found.nodes[0].minor), (link.to_str().unwrap(), 5));
        assert_eq!(found.rules.len(), 1, "no permission");
    }

    #[test]
    fn what_is_no_device_is_refused() {
        assert_eq!(error("/dev/no-such"), "lstat /dev/no-such: no such file or directory");
        let words = "get device path: \"/etc/passwd\" containerPath: \"/dev/d\" error: not a device node";
        assert_eq!(error("/etc/passwd"), words);
        assert!(devices(&wanted("/dev/null", "/dev/d", "rx"), false).unwrap_err().to_string().contains("\"rx\""));
    }

    #[test]
    fn directories_are_walked() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: nodes need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/pts")).unwrap();
        for (name, minor) in [("b", 3), ("sub/a", 5), ("sub/pts/0", 7), ("sub/console", 8)] {
            let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o640));
            rustix::fs::mknodat(rustix::fs::CWD, dir.path().join(name), kind, mode, rustix::fs::makedev(1, minor))
                .unwrap();
        }
        fs::write(dir.path().join("file"), "").unwrap();
        let found = devices(&wanted(dir.path().to_str().unwrap(), "/dev/d", "r"), false).unwrap();
        let paths: Vec<&str> = found.nodes.iter().map(|n| n.path.as_str()).collect();
        assert_eq!(paths, ["/dev/d/b", "/dev/d/sub/a"]);
        assert_eq!((found.rules.len(), found.nodes[0].file_mode), (3, Some(0o640)));
    }

    #[test]
    fn the_privileged_have_all() {
        let Devices { nodes, rules } = devices(&wanted("/dev/null", "/dev/zero", "r"), true).unwrap();
        assert!(nodes.iter().any(|n| n.path == "/dev/null") && !nodes.iter().any(|n| n.path.starts_with("/dev/pts/")));
        assert_eq!(nodes.iter().filter(|n| n.path == "/dev/zero").count(), 1);
        assert_eq!((rules.len(), rules[0].allow, rules[0].kind.as_str()), (1, true, ""));
    }
}
