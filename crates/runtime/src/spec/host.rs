//! What of this process and its kernel limits what containers can be given.

use std::fs;
use std::path::{Path, PathBuf};

use rubelet_proto::cri::SeLinuxOption;

use super::{SpecError, apparmor};

const SYS_RESOURCE: u64 = 1 << 24;

/// Facts of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// Capabilities of this process, by the kernel's numbers: a container gets no others.
    pub capabilities: u64,
    /// The least `oom_score_adj` that may be given: its own, without the right to lower it.
    pub oom_score_least: i32,
    /// Whether one cgroup hierarchy holds all, which containers then see from a namespace of their own.
    pub has_cgroup_v2: bool,
    pub has_apparmor: bool,
    pub has_selinux: bool,
    /// Where CDI specifications are; what a later one says of a device wins.
    pub cdi_dirs: Vec<PathBuf>,
}

impl HostFacts {
    /// Looks at this process and the kernel.
    pub fn look(has_cgroup_v2: bool) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = effective(&status);
        let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|t| t.trim().parse().ok());
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            capabilities,
            oom_score_least: if capabilities & SYS_RESOURCE == 0 { own.unwrap_or(0) } else { -1000 },
            has_cgroup_v2,
            has_apparmor: apparmor::is_enabled(),
            has_selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }

    pub(super) fn oom_score(&self, wanted: i32) -> i32 {
        wanted.max(self.oom_score_least)
    }

    /// Labels are not given to anything here. Without SELinux in the kernel nobody misses them.
    pub(super) fn check_selinux(&self, wanted: Option<&SeLinuxOption>) -> Result<(), SpecError> {
        let is_asked = wanted.is_some_and(|options| *options != SeLinuxOption::default());
        if self.has_selinux && is_asked {
            return Err(SpecError::new("SELinux options are not supported, and SELinux is enabled on the host"));
        }
        Ok(())
    }
}

fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_this_machine() {
        assert_eq!(effective("CapPrm:\tf\nCapEff:\t000001ffffffffff\n"), (1 << 41) - 1);
        let host = HostFacts::look(true);
        assert!(!host.name.is_empty() && host.has_cgroup_v2);
        assert!(host.oom_score(1000) == 1000 && host.oom_score(-1000) >= host.oom_score_least);
    }

    #[test]
    fn labels_are_refused_where_they_would_count() {
        let mut host = HostFacts::look(false);
        let level = SeLinuxOption { level: "s0:c1,c2".to_owned(), ..SeLinuxOption::default() };
        for (has_selinux, options, is_fine) in [
            (false, Some(&level), true),
            (true, Some(&level), false),
            (true, Some(&SeLinuxOption::default()), true),
            (true, None, true),
        ] {
            host.has_selinux = has_selinux;
            assert_eq!(host.check_selinux(options).is_ok(), is_fine, "{has_selinux} {options:?}");
        }
    }
}
