//! Where the things of a sandbox or container are during a boot.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Below `/run/rubelet`, but for what is too large for memory.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    run: PathBuf,
    volumes: PathBuf,
}

/// The name of the file in a bundle that tells which cgroup is its own.
const CGROUP: &str = "cgroup";

impl Places {
    pub(crate) fn new(run: &Path, root: &Path) -> io::Result<Self> {
        let run = fs::canonicalize(run)?;
        let volumes = root.join("volumes");
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&volumes)?;
        for kind in ["sandboxes", "containers"] {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(run.join(kind))?;
        }
        Ok(Self { run, volumes })
    }

    /// The bundle of the pause process, and the pod's own files.
    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.run.join("sandboxes").join(id)
    }

    /// The bundle of a container.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// What containers of the pod have at `/dev/shm`.
    pub(crate) fn shm(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("shm")
    }

    /// What containers of the pod have at `/etc/resolv.conf` unless they are told otherwise.
    pub(crate) fn resolv_conf(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("resolv.conf")
    }

    pub(crate) fn hostname(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("hostname")
    }

    pub(crate) fn hosts(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("hosts")
    }

    /// Volumes that a container's image declares; on the disk, and gone with the container.
    pub(crate) fn volumes(&self, container: &str) -> PathBuf {
        self.volumes.join(container)
    }

    /// Where a container's file system is mounted.
    pub(crate) fn rootfs(&self, container: &str) -> PathBuf {
        self.container(container).join("rootfs")
    }

    /// Ids of all sandboxes that have a directory.
    pub(crate) fn sandboxes(&self) -> io::Result<Vec<String>> {
        names(&self.run.join("sandboxes"))
    }

    /// Ids of all containers that have a directory or volumes.
    pub(crate) fn containers(&self) -> io::Result<Vec<String>> {
        let mut all = names(&self.run.join("containers"))?;
        all.extend(names(&self.volumes)?);
        Ok(all)
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Notes which cgroup belongs to a bundle; before it is made.
pub(crate) fn note_cgroup(bundle: &Path, cgroup: &str) -> io::Result<()> {
    fs::write(bundle.join(CGROUP), cgroup)
}

/// The cgroup that was noted.
pub(crate) fn noted_cgroup(bundle: &Path) -> Option<String> {
    fs::read_to_string(bundle.join(CGROUP)).ok().filter(|text| !text.is_empty())
}
