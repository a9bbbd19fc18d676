//! Limits of this process: open files and the OOM killer's preference.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sets how many files this process and its children may have open, soft and hard.
///
/// When the hard limit may not be raised, the soft one goes up to it.
///
/// # Errors
/// The kernel's refusal; what could be had is in force then.
pub fn set_open_files(count: u64) -> io::Result<()> {
    let wanted = Rlimit { current: Some(count), maximum: Some(count) };
    let refused = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    let present = getrlimit(Resource::Nofile);
    let reachable = present.maximum.map_or(count, |maximum| maximum.min(count));
    setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: present.maximum })?;
    Err(refused.into())
}

/// How many files this process may have open now; `None`: any number.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Writes this process' `oom_score_adj`, -1000 to 1000.
///
/// # Errors
/// The file's; lowering needs CAP_SYS_RESOURCE.
pub fn set_oom_score_adj(score: i32) -> io::Result<()> {
    write_oom_score_adj(Path::new("/proc/self/oom_score_adj"), score)
}

fn write_oom_score_adj(path: &Path, score: i32) -> io::Result<()> {
    std::fs::write(path, score.to_string())
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This process' effective user.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_go_down_and_to_the_reachable() {
        let before = getrlimit(Resource::Nofile);
        let maximum = before.maximum.unwrap_or(1_000_000);
        assert!(maximum > 64, "this test needs some files");
        set_open_files(maximum - 1).unwrap();
        assert_eq!(open_files(), Some(maximum - 1));
        // As root with CAP_SYS_RESOURCE it is raised again, else the soft limit stays at the hard one.
        let again = set_open_files(maximum);
        assert_eq!(open_files(), Some(if again.is_ok() { maximum } else { maximum - 1 }));
    }

    #[test]
    fn the_oom_score_may_go_up() {
        let present: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        set_oom_score_adj(present).unwrap();
        assert!(set_oom_score_adj(2000).is_err());
    }
}
