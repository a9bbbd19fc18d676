//! What `config.json` does not say: the log, standard input, cgroups. It lies beside it as `shim.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// OCI's file.
pub const CONFIG_FILE: &str = "config.json";
/// Ours.
pub const SETUP_FILE: &str = "shim.json";
/// Where the shim listens.
pub const SOCKET_FILE: &str = "shim.sock";
/// Written when the container is created: who its processes are.
pub const BIRTH_FILE: &str = "birth.json";
/// Written when the container has ended.
pub const EXIT_FILE: &str = "exit.json";
/// What went wrong in the shim itself; empty when all is well. As long as there is a shim, it is locked (`flock`).
pub const ERRORS_FILE: &str = "shim.log";

/// Everything about a container that is not OCI's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// Used in messages.
    pub id: String,
    /// File for the container's output in CRI's format; without one the output is dropped.
    pub log_path: Option<PathBuf>,
    /// Whether standard input is a pipe that can be attached to; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Whether standard input is closed when the first attached client has closed its own.
    pub stdin_once: bool,
    /// The built-in pause process runs instead of a program.
    pub pause: bool,
    /// Directories of the cgroups that the container joins. They exist, and their values are set.
    pub cgroups: Vec<Cgroup>,
    /// Directories of cgroups that the shim itself joins.
    pub shim_cgroups: Vec<PathBuf>,
    /// The root is mounted with the container's id mappings (needs a file system that can).
    pub id_mapped_root: bool,
    /// The OCI runtime that creates the container, such as `/usr/sbin/runc`; none: the shim does. It makes the cgroup that the
    /// specification names, or joins it.
    pub runtime: Option<PathBuf>,
    /// The runtime makes the cgroup as a scope of systemd.
    pub has_systemd_scope: bool,
}

/// One directory of a cgroup hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Cgroup v1: the name of the hierarchy's mount, such as `memory`, `cpu,cpuacct`, `systemd`. Empty: the cgroup v2 hierarchy.
    pub name: String,
    /// The container's directory in it.
    pub dir: PathBuf,
}

impl Cgroup {
    /// Whether it is one of version 2.
    pub fn is_unified(&self) -> bool {
        self.name.is_empty()
    }
}

/// Writes both files of a bundle.
pub fn write_bundle(dir: &Path, spec: &Spec, setup: &Setup) -> io::Result<()> {
    fs::write(dir.join(CONFIG_FILE), serde_json::to_vec(spec)?)?;
    fs::write(dir.join(SETUP_FILE), serde_json::to_vec(setup)?)
}

/// Runs something with another path of the same file, short enough for the address of a socket, which holds 107 bytes.
pub(crate) fn with_short_path<T>(
    path: &Path,
    work: impl FnOnce(&Path) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, Mode, OFlags, openat};
    let (dir, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let dir = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    work(&PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

pub(crate) fn read_bundle(dir: &Path) -> io::Result<(Spec, Setup)> {
    let spec = serde_json::from_slice(&fs::read(dir.join(CONFIG_FILE))?)?;
    let setup = serde_json::from_slice(&fs::read(dir.join(SETUP_FILE))?)?;
    Ok((spec, setup))
}
