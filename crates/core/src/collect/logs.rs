//! Which of a container's older logs go and which are compressed when its newest one is rotated.

use std::collections::BTreeSet;

use jiff::civil::DateTime;

const COMPRESSED: &str = ".gz";
/// Of a file that is being compressed.
pub const UNFINISHED: &str = ".tmp";

/// When logs are rotated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// `containerLogMaxSize`: a log of this size is rotated.
    pub bytes_max: u64,
    /// `containerLogMaxFiles`, with the one that is written to.
    pub files_max: usize,
}

/// What is done with the older files, by name, before the newest is rotated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tidy {
    pub remove: Vec<String>,
    /// Each becomes [`compressed`].
    pub compress: Vec<String>,
}

impl Policy {
    /// `names`: what stands in the log's directory; other names than those of its older files do not count.
    ///
    /// kubelet 1.36: what was left half compressed goes, and what is there compressed, too; then the oldest, so that with
    /// the newest and the one that is rotated now there are not too many; what is left is compressed.
    pub fn tidy(&self, log: &str, names: impl IntoIterator<Item = String>) -> Tidy {
        let older: BTreeSet<String> = names.into_iter().filter(|name| is_older(log, name)).collect();
        let is_unused = |name: &&String| name.ends_with(UNFINISHED) || older.contains(&compressed(name));
        let (unused, used): (Vec<&String>, Vec<&String>) = older.iter().partition(is_unused);
        let excess = used.len().saturating_sub(self.files_max.saturating_sub(2));
        let (oldest, kept) = used.split_at(excess);
        Tidy {
            remove: unused.into_iter().chain(oldest.iter().copied()).cloned().collect(),
            compress: kept.iter().filter(|name| !name.ends_with(COMPRESSED)).map(|name| (*name).clone()).collect(),
        }
    }
}

/// Whether `name` is that of an older file of `log`.
fn is_older(log: &str, name: &str) -> bool {
    name.strip_prefix(log).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
}

/// The name of a log that is rotated now, so that names are in the order of time.
pub fn rotated(log: &str, now: DateTime) -> String {
    format!("{log}.{}", now.strftime("%Y%m%d-%H%M%S"))
}

/// The name of a compressed file.
pub fn compressed(name: &str) -> String {
    format!("{name}{COMPRESSED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidy(files_max: usize, names: &[&str]) -> (Vec<String>, Vec<String>) {
        let policy = Policy { bytes_max: 1, files_max };
        let Tidy { remove, compress } = policy.tidy("0.log", names.iter().map(|name| (*name).to_owned()));
        (remove, compress)
    }

    #[test]
    fn the_oldest_go_and_the_rest_is_compressed() {
        for (files_max, names, remove, compress) in [
            (5, &["0.log"][..], &[][..], &[][..]),
            (5, &["0.log", "0.log.1"], &[], &["0.log.1"]),
            (5, &["0.log.1.gz", "0.log.2"], &[], &["0.log.2"]),
            (5, &["0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4"], &["0.log.1.gz"], &["0.log.4"]),
            (3, &["0.log.2", "0.log.1.gz"], &["0.log.1.gz"], &["0.log.2"]),
            (2, &["0.log.1", "0.log.2.gz"], &["0.log.1", "0.log.2.gz"], &[]),
            // Half done, and done but for the removal.
            (5, &["0.log.1.tmp", "0.log.1"], &["0.log.1.tmp"], &["0.log.1"]),
            (5, &["0.log.1.gz", "0.log.1"], &["0.log.1"], &[]),
            (3, &["0.log.1.gz", "0.log.1", "0.log.2"], &["0.log.1", "0.log.1.gz"], &["0.log.2"]),
            // Not of this log.
            (2, &["10.log.1", "0.log", "0.log.", "0.logs", "1.log", "x"], &[], &[]),
        ] {
            let wanted = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            assert_eq!(tidy(files_max, names), (wanted(remove), wanted(compress)), "{files_max} {names:?}");
        }
    }

    #[test]
    fn a_rotated_log_has_the_time_in_its_name() {
        let at = jiff::civil::date(2026, 3, 9).at(7, 5, 1, 999);
        assert_eq!(compressed(&rotated("0.log", at)), "0.log.20260309-070501.gz");
    }
}
