//! Kernel tunables that containers need on any node.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A tunable's name below `/proc/sys` and the value that it must have; from kubelet 1.36.
pub const TUNABLES: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// A tunable that is not what it must be; shown in upstream's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Name below `/proc/sys`.
    pub name: &'static str,
    /// What it must be.
    pub wanted: i64,
    /// What it is.
    pub found: i64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid kernel flag: {}, expected value: {}, actual value: {}", self.name, self.wanted, self.found)
    }
}

/// Why a tunable could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TunableError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The tunable's file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file holds no number.
    #[error("{path} holds no number: {text:?}")]
    NoNumber {
        /// The tunable's file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The file cannot be written.
    #[error("write {value} to {path}")]
    Write {
        /// The tunable's file.
        path: PathBuf,
        /// What it should hold.
        value: i64,
        /// The system's answer.
        source: io::Error,
    },
}

/// The tunables that are not what they must be.
///
/// # Errors
/// The first that cannot be read.
pub fn differences() -> Result<Vec<Difference>, TunableError> {
    differences_below(Path::new("/proc/sys"))
}

/// Sets one tunable to what it must be.
///
/// # Errors
/// The file's.
pub fn settle(difference: &Difference) -> Result<(), TunableError> {
    settle_below(Path::new("/proc/sys"), difference)
}

fn differences_below(root: &Path) -> Result<Vec<Difference>, TunableError> {
    let mut all = Vec::new();
    for (name, wanted) in TUNABLES {
        let path = root.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(TunableError::Read { path, source }),
        };
        let Ok(found) = text.trim().parse() else { return Err(TunableError::NoNumber { path, text }) };
        if found != wanted {
            all.push(Difference { name, wanted, found });
        }
    }
    Ok(all)
}

fn settle_below(root: &Path, difference: &Difference) -> Result<(), TunableError> {
    let path = root.join(difference.name);
    std::fs::write(&path, difference.wanted.to_string()).map_err(|source| TunableError::Write {
        path,
        value: difference.wanted,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let root = tempfile::tempdir().unwrap();
        for (name, wanted) in TUNABLES {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("{wanted}\n")).unwrap();
        }
        assert!(differences_below(root.path()).unwrap().is_empty());
        std::fs::write(root.path().join("kernel/panic"), "1\n").unwrap();
        let found = differences_below(root.path()).unwrap();
        assert_eq!(found, [Difference { name: "kernel/panic", wanted: 10, found: 1 }]);
        assert_eq!(found[0].to_string(), "invalid kernel flag: kernel/panic, expected value: 10, actual value: 1");
        settle_below(root.path(), &found[0]).unwrap();
        assert!(differences_below(root.path()).unwrap().is_empty());
        std::fs::write(root.path().join("kernel/panic"), "x").unwrap();
        assert!(matches!(differences_below(root.path()), Err(TunableError::NoNumber { .. })));
        std::fs::remove_file(root.path().join("kernel/panic")).unwrap();
        assert!(matches!(differences_below(root.path()), Err(TunableError::Read { .. })));
    }

    /// Reading only: this machine's values are not this test's to change.
    #[test]
    fn this_kernel_has_them_all() {
        differences().unwrap();
    }
}
