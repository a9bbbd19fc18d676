//! What the host must be like, and what is arranged on it before the agent starts.
//!
//! Checks refuse; arrangements that fail are logged, since the agent works without them, only less well.

use std::path::Path;

use rubelet_host::cgroup::Version;
use rubelet_host::tuning::kernel::Difference;
use rubelet_host::tuning::lock::{Contention, LockError, LockFile};
use rubelet_host::tuning::{kernel, limits, swap};
use tracing::{error, info, warn};

/// Why this host is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error(
        "failed to validate kubelet configuration, error: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release; set failCgroupV1: false (--fail-cgroupv1=false) to run here all the same"
    )]
    CgroupV1,
    #[error(
        "failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false. /proc/swaps contained: [{}]",
        .0.join(", ")
    )]
    Swap(Vec<String>),
    #[error("failed to run Kubelet: cannot exit on lock file contention: no lock file specified")]
    NoLockFile,
    #[error("failed to run Kubelet: {0}")]
    Lock(#[from] LockError),
    #[error("failed to start ContainerManager: {}", shown(.0))]
    Kernel(Vec<Difference>),
}

/// One difference alone, several in brackets.
fn shown(differences: &[Difference]) -> String {
    let all: Vec<String> = differences.iter().map(Difference::to_string).collect();
    match all.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// What the configuration says about the host.
#[derive(Clone, Debug)]
pub(crate) struct HostSettings {
    /// `failCgroupV1`.
    pub(crate) fail_cgroup_v1: bool,
    /// `failSwapOn`.
    pub(crate) fail_swap_on: bool,
    /// `protectKernelDefaults`.
    pub(crate) protect_kernel_defaults: bool,
    /// `maxOpenFiles`.
    pub(crate) max_open_files: u64,
    /// `oomScoreAdj`.
    pub(crate) oom_score_adj: i32,
}

/// Refuses a host with cgroup v1, unless told to take it.
///
/// # Errors
/// [`HostError::CgroupV1`].
pub(crate) fn check_cgroups(version: Version, fail: bool) -> Result<(), HostError> {
    match (version, fail) {
        (Version::V1, true) => Err(HostError::CgroupV1),
        (Version::V1, false) => {
            warn!("cgroup v1 detected. cgroup v1 support has been transitioned into maintenance mode");
            Ok(())
        }
        (Version::V2, _) => Ok(()),
    }
}

/// Refuses a host that swaps, unless told to take it.
///
/// # Errors
/// [`HostError::Swap`].
pub(crate) fn check_swap(fail: bool) -> Result<(), HostError> {
    match swap::areas() {
        Ok(areas) if areas.is_empty() => Ok(()),
        Ok(areas) if fail => Err(HostError::Swap(areas)),
        Ok(areas) => {
            info!("/proc/swaps contents" = ?areas, "Swap is on");
            Ok(())
        }
        Err(error) => {
            warn!(err = %error, "Cannot tell whether swap is on");
            Ok(())
        }
    }
}

/// Takes the lock file when one is named, waiting for whoever holds it.
///
/// # Errors
/// The file cannot be locked or watched, or contention is to be watched without a file.
pub(crate) fn take_lock(path: Option<&Path>, watch: bool) -> Result<Option<(LockFile, Option<Contention>)>, HostError> {
    let Some(path) = path else {
        return if watch { Err(HostError::NoLockFile) } else { Ok(None) };
    };
    info!(path = %path.display(), "Acquiring file lock");
    let lock = LockFile::acquire(path)?;
    let contention = if watch { Some(lock.watch()?) } else { None };
    Ok(Some((lock, contention)))
}

/// Arranges limits and kernel tunables.
///
/// # Errors
/// [`HostError::Kernel`] when tunables differ and may not be changed.
pub(crate) fn arrange(settings: &HostSettings) -> Result<(), HostError> {
    if !limits::is_root() {
        let said = format!("kubelet needs to run as uid `0`. It is being run as {}", limits::user());
        error!(err = %said, "Kubelet running with insufficient permissions");
    }
    if let Err(refused) = limits::set_open_files(settings.max_open_files) {
        error!(err = %refused, wanted = settings.max_open_files, have = limits::open_files(), "Failed to set rlimit on max file handles");
    }
    if let Err(refused) = limits::set_oom_score_adj(settings.oom_score_adj) {
        info!(err = %refused, oomScoreAdj = settings.oom_score_adj, "Failed to ApplyOOMScoreAdj");
    }
    arrange_kernel(settings.protect_kernel_defaults)
}

fn arrange_kernel(protect: bool) -> Result<(), HostError> {
    let differences = match kernel::differences() {
        Ok(differences) => differences,
        Err(unreadable) => {
            error!(err = &unreadable as &dyn std::error::Error, "Failed to read kernel tunables");
            return Ok(());
        }
    };
    if protect && !differences.is_empty() {
        return Err(HostError::Kernel(differences));
    }
    for difference in differences {
        match kernel::settle(&difference) {
            Ok(()) => info!(
                flag = difference.name,
                expectedValue = difference.wanted,
                actualValue = difference.found,
                "Updating kernel flag"
            ),
            Err(refused) => error!(err = &refused as &dyn std::error::Error, "Failed to update kernel flag"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v1_is_refused_with_the_flag_s_name() {
        let refused = check_cgroups(Version::V1, true).unwrap_err().to_string();
        assert!(
            refused.contains("kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release")
                && refused.contains("--fail-cgroupv1=false"),
            "{refused}"
        );
        check_cgroups(Version::V1, false).unwrap();
        check_cgroups(Version::V2, true).unwrap();
    }

    #[test]
    fn watching_needs_a_lock_file() {
        let refused = take_lock(None, true).unwrap_err().to_string();
        assert_eq!(refused, "failed to run Kubelet: cannot exit on lock file contention: no lock file specified");
        assert!(take_lock(None, false).unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        let (_lock, contention) = take_lock(Some(&dir.path().join("lock")), true).unwrap().unwrap();
        assert!(contention.is_some());
    }

    #[test]
    fn refusals_in_upstream_s_words() {
        let one = Difference { name: "vm/overcommit_memory", wanted: 1, found: 0 };
        assert_eq!(
            HostError::Kernel(vec![one.clone()]).to_string(),
            "failed to start ContainerManager: invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0"
        );
        assert!(HostError::Kernel(vec![one.clone(), one]).to_string().ends_with("actual value: 0]"));
        assert!(HostError::Swap(vec!["/dev/x".to_owned()]).to_string().starts_with(
            "failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
        ));
    }
}
