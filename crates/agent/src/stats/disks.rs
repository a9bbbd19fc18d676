//! How much directories hold. Where the kernel keeps account it is asked; else files are counted, some at a time, and the
//! count is kept for a while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_host::disk::{self, Scan, Use};
use tokio::time::Instant;

/// Files that are looked at for one answer. A larger tree is counted over several.
pub(super) const BUDGET: usize = 20_000;
/// What nobody asked for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(1800);

/// Counts of directories.
#[derive(Default)]
pub(super) struct Disks {
    known: BTreeMap<PathBuf, Known>,
}

struct Known {
    /// The last whole count, and when it ended.
    whole: Option<(Use, Instant)>,
    /// The count under way.
    scan: Option<Scan>,
    asked_at: Instant,
}

impl Disks {
    /// What a directory holds, at most `age_max` old if that can be had for `budget`; else the last whole count, or while
    /// there is none, what was counted so far. `None`: it is not there.
    pub(super) fn used(&mut self, dir: &Path, age_max: Duration, now: Instant, budget: &mut usize) -> Option<Use> {
        if let Some(used) = disk::counted(dir) {
            return Some(used);
        }
        let known = self.known.entry(dir.to_owned()).or_insert(Known { whole: None, scan: None, asked_at: now });
        known.asked_at = now;
        if let Some((used, at)) = known.whole
            && now.saturating_duration_since(at) < age_max
        {
            return Some(used);
        }
        let mut scan = match known.scan.take() {
            Some(scan) => scan,
            None => match Scan::new(dir) {
                Ok(scan) => scan,
                Err(_) => {
                    self.known.remove(dir);
                    return None;
                }
            },
        };
        match scan.go_on(budget) {
            Some(used) => {
                known.whole = Some((used, now));
                Some(used)
            }
            None => {
                let so_far = scan.so_far();
                known.scan = Some(scan);
                Some(known.whole.map_or(so_far, |(used, _)| used))
            }
        }
    }

    /// Forgets what nobody asks any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, known| now.saturating_duration_since(known.asked_at) < FORGET_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_and_large_ones_take_several_turns() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..10 {
            std::fs::create_dir(dir.path().join(i.to_string())).unwrap();
        }
        let (mut disks, start, age) = (Disks::default(), Instant::now(), Duration::from_secs(60));
        let mut ask = |secs: u64, mut budget: usize| {
            disks.used(dir.path(), age, start + Duration::from_secs(secs), &mut budget).map(|used| used.inodes)
        };
        assert_eq!(ask(0, 10), Some(11), "the list of the first directory, none of those below");
        assert_eq!(ask(0, 100), Some(11));
        std::fs::create_dir(dir.path().join("more")).unwrap();
        assert_eq!(ask(59, 100), Some(11), "kept");
        assert_eq!(ask(60, 1), Some(11), "the old count while the new one is under way");
        assert_eq!(ask(60, 100), Some(12));
        let gone = dir.path().join("gone");
        assert_eq!(disks.used(&gone, age, start, &mut 100), None);
        disks.sweep(start + Duration::from_secs(4000));
        assert!(disks.known.is_empty());
    }
}
