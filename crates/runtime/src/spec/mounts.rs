//! What is mounted in a container: the usual file systems, the pod's files, and what CRI asks for.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use rubelet_host::mount as host;
use rubelet_proto::cri::{self, MountPropagation, NamespaceMode};
use rubelet_shim::spec::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::volumes::Volume;
use super::{SpecError, Surroundings, mappings, pods_namespaces};

#[cfg(test)]
mod tests;

fn usual(kind: &str, destination: &str, options: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    }
}

/// All mounts, in the order in which they are made.
///
/// containerd 2: what CRI mounts takes the place of what is usual there, a `/dev` of its own of all below it too; the rest comes after the
/// usual ones, by the depth of its place, of equals CRI's before the pod's before the image's volumes.
pub(super) fn mounts(
    config: &cri::ContainerConfig,
    around: &Surroundings<'_>,
    volumes: &[Volume],
) -> Result<Vec<Mount>, SpecError> {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    let access = if security.is_some_and(|s| s.privileged) { "rw" } else { "ro" };
    let mut all = vec![
        usual("proc", "/proc", "nosuid,noexec,nodev"),
        usual("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k"),
        usual("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        usual("mqueue", "/dev/mqueue", "nosuid,noexec,nodev"),
        usual("sysfs", "/sys", &format!("nosuid,noexec,nodev,{access}")),
        usual("cgroup", "/sys/fs/cgroup", &format!("nosuid,noexec,nodev,relatime,{access}")),
    ];
    let mut own = Vec::new();
    for mount in &config.mounts {
        own.push(bind(mount)?);
    }
    own.extend(pods_files(config, around));
    own.extend(volumes.iter().map(|volume| Mount {
        destination: volume.place.display().to_string(),
        ..mapped(around, &volume.source, "rw")
    }));
    let is_own = |place: &str| own.iter().any(|mount| mount.destination == place);
    let is_covered = |place: &str| is_own(place) || (place.starts_with("/dev/") && is_own("/dev"));
    all.retain(|mount| !is_covered(&mount.destination));
    own.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    all.extend(own);
    Ok(all)
}

/// How the container's root propagates mounts: as its most open mount needs it.
pub(super) fn of_root(config: &cri::ContainerConfig) -> &'static str {
    let has = |wanted: MountPropagation| config.mounts.iter().any(|mount| mount.propagation() == wanted);
    match (has(MountPropagation::PropagationBidirectional), has(MountPropagation::PropagationHostToContainer)) {
        (true, _) => "rshared",
        (false, true) => "rslave",
        (false, false) => "",
    }
}

/// An absolute path without `.`, `..` and double slashes; links are not looked at.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(out.pop()),
            name => out.push(name),
        }
    }
    out
}

/// Whether CRI mounts something at a place.
pub(super) fn is_taken(config: &cri::ContainerConfig, place: &Path) -> bool {
    config.mounts.iter().any(|mount| clean(&mount.container_path) == place)
}

fn ours(source: &Path, access: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
        ..Mount::default()
    }
}

/// The same with the pod's id mappings.
fn mapped(around: &Surroundings<'_>, source: &Path, access: &str) -> Mount {
    let users = pods_namespaces(around.config).userns_options;
    let users = users.filter(|users| users.mode() == NamespaceMode::Pod).unwrap_or_default();
    Mount { uid_mappings: mappings(&users.uids), gid_mappings: mappings(&users.gids), ..ours(source, access) }
}

/// Names, name resolution and shared memory, unless CRI brings them.
fn pods_files(config: &cri::ContainerConfig, around: &Surroundings<'_>) -> Vec<Mount> {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    let access = if security.is_some_and(|s| s.readonly_rootfs) { "ro" } else { "rw" };
    let is_hosts = pods_namespaces(around.config).ipc() == NamespaceMode::Node;
    // The pod's shared memory belongs to its users already.
    let shm = if is_hosts { Path::new("/dev/shm") } else { around.shm };
    [
        ("/etc/hostname", mapped(around, around.hostname, access)),
        ("/etc/hosts", mapped(around, around.hosts, access)),
        ("/etc/resolv.conf", mapped(around, around.resolv_conf, access)),
        ("/dev/shm", ours(shm, "rw")),
    ]
    .into_iter()
    .filter(|(place, _)| !is_taken(config, Path::new(place)))
    .map(|(place, mount)| Mount { destination: place.to_owned(), ..mount })
    .collect()
}

fn bind(mount: &cri::Mount) -> Result<Mount, SpecError> {
    let place = clean(&mount.container_path);
    if mount.container_path.is_empty() || place == Path::new("/") {
        return Err(SpecError::new(format!("mount of {:?} has no place in the container", mount.host_path)));
    }
    let source = source(mount)?;
    let mut options = vec!["rbind"];
    options.push(match mount.propagation() {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => {
            require(&source, Propagation::SharedOrSlave)?;
            "rslave"
        }
        MountPropagation::PropagationBidirectional => {
            require(&source, Propagation::Shared)?;
            "rshared"
        }
    });
    options.push(match (mount.readonly, mount.recursive_read_only) {
        (false, false) => "rw",
        (true, false) => "ro",
        (is_read_only, true) => {
            let host_path = format!("(hostPath={:?})", mount.host_path);
            if !is_read_only {
                let words = format!("recursive read-only mount conflicts with RW mount {host_path}");
                return Err(SpecError::new(words));
            }
            if mount.propagation() != MountPropagation::PropagationPrivate {
                let got = mount.propagation().as_str_name();
                let words = format!("recursive read-only mount needs private propagation, got {got:?} {host_path}");
                return Err(SpecError::new(words));
            }
            "rro"
        }
    });
    Ok(Mount {
        destination: place.display().to_string(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: options.into_iter().map(str::to_owned).collect(),
        uid_mappings: mappings(&mount.uid_mappings),
        gid_mappings: mappings(&mount.gid_mappings),
    })
}

/// Where it comes from, with links resolved; a directory is made when there is nothing. Of an image the caller has mounted its root at
/// the host's path.
fn source(mount: &cri::Mount) -> Result<PathBuf, SpecError> {
    let path = Path::new(&mount.host_path);
    let image = mount.image.as_ref().map(|image| image.image.as_str()).filter(|image| !image.is_empty());
    if let Some(image) = image {
        if mount.host_path.is_empty() {
            return Err(SpecError::new(format!(
                "image volumes are not supported: {image:?} at {:?}",
                mount.container_path
            )));
        }
        return image_part(path, &mount.image_sub_path, image);
    }
    if !path.is_absolute() {
        return Err(SpecError::new(format!("failed to mkdir {:?}: the path is not absolute", mount.host_path)));
    }
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => rubelet_host::paths::ensure_dir(path, 0o755).map_err(|e| {
            SpecError::new(format!("failed to mkdir {:?}: {}", mount.host_path, rubelet_host::chain(&e)))
        })?,
        Err(e) => {
            let why = SpecError::go(&format!("stat {}", mount.host_path), &e);
            return Err(SpecError::new(format!("failed to stat {:?}: {why}", mount.host_path)));
        }
        Ok(_) => {}
    }
    fs::canonicalize(path).map_err(SpecError::io(format!("failed to resolve symlink {:?}", mount.host_path)))
}

/// What is at a path in a mounted image. Its links stay in the image; nothing in it changes while it is mounted.
pub(crate) fn image_part(root: &Path, sub: &str, image: &str) -> Result<PathBuf, SpecError> {
    let refused = |why: String| SpecError::new(format!("failed to mount image {image:?} sub path {sub:?}: {why}"));
    let is_below = Path::new(sub).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_below {
        return Err(refused("it must be a relative path without \"..\"".to_owned()));
    }
    if sub.is_empty() {
        return Ok(root.to_owned());
    }
    let failed = |e: rustix::io::Errno| refused(SpecError::go("look", &e.into()));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&dir, sub, flags, Mode::empty(), resolve).map_err(failed)?;
    fs::read_link(format!("/proc/thread-self/fd/{}", found.as_raw_fd()))
        .map_err(SpecError::io(format!("find the path of {sub:?} in image {image:?}")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Shared,
    SharedOrSlave,
}

/// What is mounted on the host later can reach the container only through such a mount.
fn require(path: &Path, wanted: Propagation) -> Result<(), SpecError> {
    let table = host::table().map_err(|e| SpecError::new(rubelet_host::chain(&e)))?;
    propagates(path, wanted, &table)
}

fn propagates(path: &Path, wanted: Propagation, table: &[host::Mount]) -> Result<(), SpecError> {
    // Of two mounts at one place the later covers the earlier.
    let depth = |mount: &&host::Mount| mount.target.components().count();
    let Some(mount) = table.iter().filter(|mount| path.starts_with(&mount.target)).max_by_key(depth) else {
        return Err(SpecError::new(format!("failed to find the mount info for {:?}", path.display().to_string())));
    };
    let (is_fine, what) = match wanted {
        Propagation::Shared => (mount.is_shared, "shared"),
        Propagation::SharedOrSlave => (mount.is_shared || mount.is_slave, "shared or slave"),
    };
    if is_fine {
        return Ok(());
    }
    let (path, target) = (path.display().to_string(), mount.target.display().to_string());
    Err(SpecError::new(format!("path {path:?} is mounted on {target:?} but it is not a {what} mount")))
}
