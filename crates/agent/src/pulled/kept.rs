//! What of a folder of records is in memory: all, or those that were used last.

use std::collections::BTreeMap;

/// At most `max` values by key.
#[derive(Debug)]
pub(super) struct Kept<T> {
    max: usize,
    uses: u64,
    held: BTreeMap<String, (u64, T)>,
    /// What is not here is nowhere.
    is_whole: bool,
}

impl<T: Clone> Kept<T> {
    /// Nothing, of a folder in which there is nothing.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), uses: 0, held: BTreeMap::new(), is_whole: true }
    }

    pub(super) fn get(&mut self, key: &str) -> Option<T> {
        self.uses += 1;
        let (used, value) = self.held.get_mut(key)?;
        *used = self.uses;
        Some(value.clone())
    }

    /// Beyond the most that are kept, what was not used for the longest goes.
    pub(super) fn put(&mut self, key: &str, value: T) {
        self.uses += 1;
        self.held.insert(key.to_owned(), (self.uses, value));
        if self.held.len() > self.max
            && let Some(oldest) = self.held.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            self.held.remove(&oldest);
            self.is_whole = false;
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.held.remove(key);
    }

    /// There is more than could be read.
    pub(super) fn lacks_some(&mut self) {
        self.is_whole = false;
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How much of the room is in use.
    pub(super) fn percent(&self) -> usize {
        self.held.len() * 100 / self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_goes() {
        let mut kept = Kept::new(2);
        kept.put("a", 1);
        kept.put("b", 2);
        assert_eq!((kept.get("a"), kept.is_whole(), kept.percent()), (Some(1), true, 100));
        kept.put("c", 3);
        assert_eq!((kept.get("a"), kept.get("b"), kept.get("c")), (Some(1), None, Some(3)));
        assert!(!kept.is_whole(), "what is not there may be on the disk");
        kept.remove("a");
        assert_eq!((kept.get("a"), kept.percent()), (None, 50));
    }
}
