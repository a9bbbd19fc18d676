//! The cgroup of a container, in the way of the driver: a directory, or a scope of systemd.

use std::path::Path;

use rubelet_host::cgroup::systemd_name::slice_path;
use rubelet_host::cgroup::{CgroupError, Driver, Values};
use rubelet_shim::Parked;
use rubelet_shim::setup::Cgroup;

use crate::embedded::Engine;
use crate::places;
use crate::verbs::{Doing, Refusal};

/// What keeps a new cgroup there until the container's first process is in it.
pub(crate) struct Held {
    _parked: Option<Parked>,
}

/// The cgroup's name in the file system, below the parent that CRI names.
fn name(driver: Driver, parent: &str, id: &str) -> String {
    let parent = parent.trim_matches('/');
    match driver {
        Driver::Cgroupfs if parent.is_empty() => id.to_owned(),
        Driver::Cgroupfs => format!("{parent}/{id}"),
        Driver::Systemd => {
            // A slice may be named by its last part alone.
            let slice = match parent.rsplit('/').next().unwrap_or_default() {
                "" => "system.slice".to_owned(),
                last if parent == last => {
                    let parts: Vec<String> = last.trim_end_matches(".slice").split('-').map(str::to_owned).collect();
                    slice_path(&parts)
                }
                _ => parent.to_owned(),
            };
            format!("{slice}/rubelet-{id}.scope")
        }
    }
}

impl Engine {
    /// Notes which cgroup a bundle's container will have; nothing is made yet.
    pub(crate) fn plan_cgroup(&self, bundle: &Path, parent: &str, id: &str) -> Result<Vec<Cgroup>, Refusal> {
        let name = name(self.cgroup_driver, parent, id);
        let said = format!("prepare the cgroup {name}");
        places::note_cgroup(bundle, &name).doing(said.clone())?;
        let dirs = self.cgroups.dirs(&name).doing(said)?;
        Ok(dirs.into_iter().map(|(name, dir)| Cgroup { name, dir }).collect())
    }

    /// The planned cgroup as OCI runtimes are told it: its path, or slice, prefix and name of a scope.
    pub(crate) fn oci_cgroup(&self, bundle: &Path) -> String {
        oci_path(self.cgroup_driver, &places::noted_cgroup(bundle).unwrap_or_default())
    }

    /// Makes the cgroup that was planned, with these values. With systemd it is gone when the answer is dropped and nobody is in it.
    pub(crate) fn make_cgroup(&self, bundle: &Path, values: &Values) -> Result<Held, CgroupError> {
        let name = places::noted_cgroup(bundle).unwrap_or_default();
        match self.cgroup_driver {
            Driver::Cgroupfs => {
                self.cgroups.ensure(&name, values)?;
                Ok(Held { _parked: None })
            }
            Driver::Systemd => {
                let parked =
                    self.program.park().map_err(|source| CgroupError::Create { path: name.clone().into(), source })?;
                self.cgroups.start_scope(&name, parked.pid, values)?;
                Ok(Held { _parked: Some(parked) })
            }
        }
    }

    /// Gives the cgroup of a container that runs other values.
    pub(crate) fn change_cgroup(&self, bundle: &Path, values: &Values) -> Result<(), CgroupError> {
        let name = places::noted_cgroup(bundle).unwrap_or_default();
        match self.cgroup_driver {
            Driver::Cgroupfs => self.cgroups.ensure(&name, values),
            Driver::Systemd => self.cgroups.set_scope(&name, values),
        }
    }
}

fn oci_path(driver: Driver, name: &str) -> String {
    match driver {
        Driver::Cgroupfs => format!("/{name}"),
        Driver::Systemd => {
            let mut parts = name.rsplit('/');
            let scope = parts.next().unwrap_or_default().trim_end_matches(".scope");
            let (prefix, id) = scope.split_once('-').unwrap_or(("", scope));
            format!("{}:{prefix}:{id}", parts.next().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_oci_runtimes() {
        assert_eq!(oci_path(Driver::Cgroupfs, "kubepods/podx/1a"), "/kubepods/podx/1a");
        let name = "kubepods.slice/kubepods-besteffort.slice/rubelet-1a.scope";
        assert_eq!(oci_path(Driver::Systemd, name), "kubepods-besteffort.slice:rubelet:1a");
    }

    #[test]
    fn names_by_driver() {
        assert_eq!(name(Driver::Cgroupfs, "/kubepods/burstable/podx", "1a"), "kubepods/burstable/podx/1a");
        assert_eq!(name(Driver::Cgroupfs, "", "1a"), "1a");
        let long = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podx.slice";
        let want = format!("{}/rubelet-1a.scope", &long[1..]);
        assert_eq!(name(Driver::Systemd, long, "1a"), want);
        assert_eq!(name(Driver::Systemd, "kubepods-besteffort-podx.slice", "1a"), want);
        assert_eq!(name(Driver::Systemd, "", "1a"), "system.slice/rubelet-1a.scope");
    }
}
