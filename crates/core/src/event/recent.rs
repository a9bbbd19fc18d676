//! A memory that forgets what was not used for longest.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Words in short: a key of 16 bytes instead of all of an event's text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key([u8; 16]);

impl Key {
    pub(super) fn of(words: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for word in words {
            hash.update(word.len().to_le_bytes());
            hash.update(word);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

#[derive(Debug)]
pub(super) struct Recent<V> {
    most: usize,
    uses: u64,
    values: BTreeMap<Key, (u64, V)>,
    by_use: BTreeMap<u64, Key>,
}

impl<V> Recent<V> {
    /// Remembers so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, uses: 0, values: BTreeMap::new(), by_use: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    pub(super) fn take(&mut self, key: &Key) -> Option<V> {
        let (used, value) = self.values.remove(key)?;
        self.by_use.remove(&used);
        Some(value)
    }

    pub(super) fn put(&mut self, key: Key, value: V) {
        self.take(&key);
        if self.values.len() >= self.most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.values.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.values.insert(key, (self.uses, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let key = |word| Key::of(&[word]);
        let mut recent = Recent::new(2);
        recent.put(key("a"), 1);
        recent.put(key("b"), 2);
        recent.put(key("a"), 3);
        recent.put(key("c"), 4);
        assert_eq!([recent.get(&key("a")), recent.get(&key("b")), recent.get(&key("c"))], [Some(&3), None, Some(&4)]);
        assert_eq!(recent.take(&key("a")), Some(3));
        recent.put(key("d"), 5);
        assert_eq!(recent.get(&key("c")), Some(&4));
        assert_eq!((recent.values.len(), recent.by_use.len()), (2, 2));
    }

    #[test]
    fn words_are_told_apart_from_their_sum() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
    }
}
