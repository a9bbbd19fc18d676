//! Which processes are in which cgroup outside of pods.

use std::fs;

use super::{CgroupError, Tree, Version, v1, v2, write_file};

/// The cgroup's processes, one pid a line.
const PROCS: &str = "cgroup.procs";

impl Tree {
    /// Moves a process into a cgroup, which is made where it is missing: in every hierarchy, and by the name as it is written,
    /// whatever the driver.
    ///
    /// # Errors
    /// The operation and the file it failed on.
    pub fn move_into(&self, name: &str, pid: u32) -> Result<(), CgroupError> {
        let name = super::components(name.trim_matches('/').as_ref())?.join("/");
        for hierarchy in &self.hierarchies {
            match self.version {
                Version::V1 => v1::make(hierarchy, &name)?,
                Version::V2 => v2::make(&hierarchy.mount, &name)?,
            }
            write_file(hierarchy.mount.join(&name).join(PROCS), &pid.to_string())?;
        }
        Ok(())
    }

    /// Processes that nobody has put anywhere: those in the top cgroup, but for the first of the machine and the kernel's own.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn homeless(&self) -> Result<Vec<u32>, CgroupError> {
        // kubelet 1.36: version 1 is asked by the hierarchy of devices.
        let devices = self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == "devices"));
        let Some(top) = devices.or(self.hierarchies.first()) else { return Ok(Vec::new()) };
        let path = top.mount.join(PROCS);
        let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        // 0 stands for a process of another namespace.
        let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1);
        Ok(pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok()).collect())
    }
}
