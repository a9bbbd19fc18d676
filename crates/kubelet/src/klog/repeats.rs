//! Leaves out lines that say nothing new, so that a pod that is broken does not fill the disk.
//!
//! A line that was just shown is shown again after 10 s at the earliest, later each time, up to 5 min; and each place in
//! the program has so many lines for one pod, and so many for the rest, however they differ. The next line that is shown
//! says how many were left out. Memory: [`KNOWN_MAX`] lines and places, some 100 bytes each.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use super::fields::{Fields, Shown};

/// How long the same line is left out for, at first and at last.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Lines and places that are remembered.
const KNOWN_MAX: usize = 1024;
/// Values that name what a line is about.
const OBJECTS: [&str; 2] = ["pod", "object"];

/// Lines of one place: how many at once, and how long until there may be one more.
struct Allowance {
    at_once: u32,
    one_more: Duration,
}

const OF_AN_OBJECT: Allowance = Allowance { at_once: 30, one_more: Duration::from_secs(5) };
const OF_A_PLACE: Allowance = Allowance { at_once: 300, one_more: Duration::from_secs(1) };

/// What was shown lately.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    lines: HashMap<u64, Line>,
    places: HashMap<u64, Place>,
}

#[derive(Debug)]
struct Line {
    shown_at: Duration,
    wait: Duration,
    left_out: u64,
}

#[derive(Debug)]
struct Place {
    /// In which all of the allowance is there again.
    full_at: Duration,
    left_out: u64,
}

impl Repeats {
    /// `None`: leave the line out. Otherwise how many like it were left out before.
    ///
    /// `place`: file and line in the source. `now`: since any time, never going back.
    pub(super) fn admit(&mut self, place: (&str, u32), said: &Fields, now: Duration) -> Option<u64> {
        let same = self.admit_line(place, said, now)?;
        let alike = self.admit_place(place, said, now)?;
        Some(same + alike)
    }

    fn admit_line(&mut self, place: (&str, u32), said: &Fields, now: Duration) -> Option<u64> {
        let key = self.hasher.hash_one((place, &said.message, Values(said)));
        if let Some(line) = self.lines.get_mut(&key) {
            if now.saturating_sub(line.shown_at) < line.wait {
                line.left_out += 1;
                return None;
            }
            let left_out = std::mem::take(&mut line.left_out);
            line.wait = if left_out > 0 { (line.wait * 2).min(WAIT_MAX) } else { WAIT };
            line.shown_at = now;
            return Some(left_out);
        }
        if self.lines.len() >= KNOWN_MAX {
            self.lines.retain(|_, line| now.saturating_sub(line.shown_at) < line.wait);
        }
        // Full of lines that are still new: the places' allowance holds them.
        if self.lines.len() < KNOWN_MAX {
            self.lines.insert(key, Line { shown_at: now, wait: WAIT, left_out: 0 });
        }
        Some(0)
    }

    fn admit_place(&mut self, place: (&str, u32), said: &Fields, now: Duration) -> Option<u64> {
        let object = said.values.iter().find(|(name, _)| OBJECTS.contains(name)).map(|(_, value)| value);
        let allowance = if object.is_some() { OF_AN_OBJECT } else { OF_A_PLACE };
        let mut key = self.hasher.hash_one((place, object.map(text)));
        if self.places.len() >= KNOWN_MAX && !self.places.contains_key(&key) {
            self.places.retain(|_, known| known.full_at > now || known.left_out > 0);
            if self.places.len() >= KNOWN_MAX {
                // More objects than can be told apart share one.
                key = 0;
            }
        }
        let known = self.places.entry(key).or_insert(Place { full_at: now, left_out: 0 });
        let full_at = known.full_at.max(now) + allowance.one_more;
        if full_at > now + allowance.one_more * allowance.at_once {
            known.left_out += 1;
            return None;
        }
        known.full_at = full_at;
        Some(std::mem::take(&mut known.left_out))
    }
}

/// A line's values, for hashing.
struct Values<'a>(&'a Fields);

impl Hash for Values<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for (name, value) in &self.0.values {
            (name, text(value)).hash(state);
        }
    }
}

fn text(value: &Shown) -> String {
    match value {
        Shown::Text(text) | Shown::Structure(text) => text.clone(),
        Shown::Signed(number) => number.to_string(),
        Shown::Unsigned(number) => number.to_string(),
        Shown::Float(number) => number.to_string(),
        Shown::Switch(on) => on.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (&str, u32) = ("worker.rs", 7);

    fn line(pod: Option<&str>, error: &str) -> Fields {
        let pod = pod.map(|pod| ("pod", Shown::Text(pod.to_owned())));
        let values = pod.into_iter().chain([("err", Shown::Text(error.to_owned()))]).collect();
        Fields { message: "It failed".to_owned(), values }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_same_line_comes_seldom_and_then_more_seldom() {
        let mut repeats = Repeats::default();
        let said = line(Some("default/a"), "no");
        let shown: Vec<(u64, u64)> =
            (0..1000).filter_map(|at| Some((at, repeats.admit(PLACE, &said, secs(at))?))).collect();
        assert_eq!(shown, [(0, 0), (10, 9), (30, 19), (70, 39), (150, 79), (310, 159), (610, 299), (910, 299)]);
        assert_eq!(repeats.admit(("worker.rs", 8), &said, secs(1000)), Some(0), "elsewhere it is another line");
        assert_eq!(repeats.admit(PLACE, &line(Some("default/b"), "no"), secs(1000)), Some(0));
    }

    #[test]
    fn what_comes_now_and_then_is_always_shown() {
        let mut repeats = Repeats::default();
        let said = line(None, "no");
        assert!((0..100).all(|n| repeats.admit(PLACE, &said, secs(n * 11)) == Some(0)));
    }

    #[test]
    fn a_pod_that_fails_each_time_otherwise_has_its_allowance() {
        let mut repeats = Repeats::default();
        let mut shown = 0;
        for n in 0..36_000_u64 {
            let said = line(Some("default/a"), &format!("attempt {n}"));
            shown += u64::from(repeats.admit(PLACE, &said, Duration::from_millis(n * 100)).is_some());
        }
        assert!((730..=752).contains(&shown), "{shown} lines in an hour");
        assert_eq!(repeats.admit(PLACE, &line(Some("default/b"), "no"), secs(3600)), Some(0), "others are shown");
        let next = repeats.admit(PLACE, &line(Some("default/a"), "at last"), secs(3610)).unwrap();
        assert!(next > 0, "it is told how many were left out");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut repeats = Repeats::default();
        for n in 0..10_000_u64 {
            let _ = repeats.admit(PLACE, &line(Some(&n.to_string()), "no"), Duration::from_millis(n));
        }
        assert!(repeats.lines.len() <= KNOWN_MAX && repeats.places.len() <= KNOWN_MAX + 1);
    }
}
