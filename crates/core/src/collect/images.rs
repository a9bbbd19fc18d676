//! Images that no container uses: how long, and which go when the disk fills.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::now::Mono;

/// The configuration's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// `imageGCHighThresholdPercent`: from here on images go.
    pub high_percent: i64,
    /// `imageGCLowThresholdPercent`: until this they go.
    pub low_percent: i64,
    /// `imageMinimumGCAge`: younger ones stay.
    pub age_min: Duration,
    /// `imageMaximumGCAge`: unused for longer they go, however much room there is; zero: never.
    pub age_max: Duration,
}

impl Policy {
    /// kubelet 1.36: whether images never go by themselves.
    pub fn is_off(&self) -> bool {
        self.high_percent == 100 && self.age_max.is_zero()
    }

    /// What must be freed of a file system; `None` when there is room.
    ///
    /// # Errors
    /// A file system that says that it has no size.
    pub fn excess(&self, capacity: u64, available: u64) -> Result<Option<Excess>, NoCapacity> {
        if capacity == 0 {
            return Err(NoCapacity);
        }
        let (capacity, available) = (i128::from(capacity), i128::from(available.min(capacity)));
        let used_percent = 100 - available * 100 / capacity;
        let bytes = capacity * i128::from(100 - self.low_percent) / 100 - available;
        Ok((used_percent >= i128::from(self.high_percent)).then(|| Excess {
            used_percent: i64::try_from(used_percent).unwrap_or(100),
            bytes: u64::try_from(bytes).unwrap_or(0),
        }))
    }
}

/// Too much is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excess {
    pub used_percent: i64,
    /// Bytes to free.
    pub bytes: u64,
}

impl Excess {
    /// kubelet 1.36: message when freeing images was not enough.
    pub fn not_enough(&self, capacity: u64, freed: u64) -> String {
        format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by \
             deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, \
             volumes, or other data.",
            self.used_percent,
            size(capacity)
        )
    }
}

/// A file system without a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid capacity 0 on image filesystem")]
pub struct NoCapacity;

/// An image as the runtime lists it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listed {
    pub id: String,
    pub bytes: u64,
    /// The runtime itself needs it.
    pub is_pinned: bool,
}

#[derive(Clone, Debug)]
struct Known {
    first: Mono,
    /// `None`: never seen in use.
    used: Option<Mono>,
    listed: Listed,
}

/// The images of the node and since when they are not used.
#[derive(Clone, Debug)]
pub struct Images {
    /// When looking at them began.
    began: Mono,
    known: BTreeMap<String, Known>,
    in_use: BTreeSet<String>,
}

impl Images {
    /// Nothing was seen yet.
    pub fn new(now: Mono) -> Self {
        Self { began: now, known: BTreeMap::new(), in_use: BTreeSet::new() }
    }

    /// Takes in a look at the runtime: its images, and the ids of those that containers use, running or not.
    pub fn detect(&mut self, listed: Vec<Listed>, in_use: BTreeSet<String>, now: Mono) {
        let mut before = std::mem::take(&mut self.known);
        for image in listed {
            let known = before.remove(&image.id);
            let used = if in_use.contains(&image.id) { Some(now) } else { known.as_ref().and_then(|k| k.used) };
            let first = known.map_or(now, |k| k.first);
            self.known.insert(image.id.clone(), Known { first, used, listed: image });
        }
        self.in_use = in_use;
    }

    /// All that are here.
    pub fn ids(&self) -> BTreeSet<String> {
        self.known.keys().cloned().collect()
    }

    /// The runtime removed it.
    pub fn removed(&mut self, id: &str) {
        self.known.remove(id);
    }

    /// Images that may go at all, the longest unused first, then the longest known. kubelet 1.36.
    fn unused(&self) -> Vec<&Known> {
        let mut unused: Vec<&Known> =
            self.known.values().filter(|k| !k.listed.is_pinned && !self.in_use.contains(&k.listed.id)).collect();
        unused.sort_by_key(|k| (k.used, k.first));
        unused
    }

    /// Images that were unused for too long. kubelet 1.36: none before that long has passed since the start. One that was never
    /// used counts from when it was first seen, so that what was just pulled stays.
    pub fn too_old(&self, policy: &Policy, now: Mono) -> Vec<Listed> {
        if policy.age_max.is_zero() || now.since(self.began) <= policy.age_max {
            return Vec::new();
        }
        let is_old = |k: &&Known| now.since(k.used.unwrap_or(k.first)) > policy.age_max;
        self.unused().into_iter().filter(is_old).map(|k| k.listed.clone()).collect()
    }

    /// Images that go for room, in this order, until there is enough. kubelet 1.36: those first seen less than the minimum age
    /// ago stay.
    pub fn for_room(&self, policy: &Policy, now: Mono) -> Vec<Listed> {
        let is_of_age = |k: &&Known| now.since(k.first) >= policy.age_min;
        self.unused().into_iter().filter(is_of_age).map(|k| k.listed.clone()).collect()
    }
}

/// A size for people. kubelet 1.36.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    for unit in ["KiB", "MiB", "GiB"] {
        value /= 1024.0;
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{:.1} TiB", value / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120), age_max: Duration::ZERO };

    fn image(id: &str) -> Listed {
        Listed { id: id.into(), bytes: 10, is_pinned: id.starts_with("pinned") }
    }

    fn look(images: &mut Images, listed: &[&str], used: &[&str], secs: u64) {
        let used = used.iter().map(|id| (*id).to_owned()).collect();
        images.detect(listed.iter().map(|id| image(id)).collect(), used, Mono::from_secs(secs));
    }

    fn ids(images: Vec<Listed>) -> Vec<String> {
        images.into_iter().map(|i| i.id).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_the_young_the_used_and_the_pinned_stay() {
        let mut images = Images::new(Mono::from_secs(0));
        look(&mut images, &["a", "b", "pinned", "used"], &["a", "used"], 0);
        look(&mut images, &["a", "b", "c", "pinned", "used"], &["used"], 100);
        look(&mut images, &["a", "b", "c", "d", "pinned", "used"], &["used"], 200);
        assert_eq!(ids(images.for_room(&POLICY, Mono::from_secs(219))), ["b", "a"]);
        assert_eq!(ids(images.for_room(&POLICY, Mono::from_secs(220))), ["b", "c", "a"]);
        images.removed("b");
        look(&mut images, &["a", "c", "d", "pinned"], &[], 300);
        assert_eq!(ids(images.for_room(&POLICY, Mono::from_secs(320))), ["c", "d", "a"], "used is not there any more");
    }

    #[test]
    fn age_counts_only_when_the_agent_has_run_that_long() {
        let policy = Policy { age_max: Duration::from_secs(600), ..POLICY };
        let mut images = Images::new(Mono::from_secs(1000));
        look(&mut images, &["a", "b"], &["b"], 1000);
        look(&mut images, &["a", "b", "c"], &[], 1500);
        assert_eq!(ids(images.too_old(&policy, Mono::from_secs(1600))), [""; 0]);
        assert_eq!(ids(images.too_old(&policy, Mono::from_secs(1601))), ["a", "b"]);
        assert_eq!(ids(images.too_old(&POLICY, Mono::from_secs(9999))), [""; 0]);
    }

    #[test]
    fn room_is_made_from_the_high_mark_to_the_low_one() {
        assert_eq!(POLICY.excess(1000, 160), Ok(None));
        assert_eq!(
            POLICY.excess(1000, 151),
            Ok(Some(Excess { used_percent: 85, bytes: 49 })),
            "what is free is rounded down"
        );
        assert_eq!(POLICY.excess(1000, 150), Ok(Some(Excess { used_percent: 85, bytes: 50 })));
        assert_eq!(POLICY.excess(1000, 2000), Ok(None), "more available than there is");
        assert_eq!(POLICY.excess(0, 0), Err(NoCapacity));
        let excess = Excess { used_percent: 91, bytes: 5 };
        assert!(excess.not_enough(3 << 29, 7).starts_with(
            "Insufficient free disk space on the node's image filesystem (91% of 1.5 GiB used). Failed to free sufficient space \
             by deleting unused images (freed 7 bytes). "
        ));
        assert_eq!((size(1023), size(1 << 20), size(3 << 40)), ("1023 B".into(), "1.0 MiB".into(), "3.0 TiB".into()));
    }
}
