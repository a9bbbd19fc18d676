//! Answers that are remembered for a while: a bounded number of them, by a keyed hash, so that what was asked (a
//! token!) is not kept and nobody can choose what collides.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use tokio::time::Instant;

/// What stands for a question.
pub(super) type Key = [u8; 32];

/// Answers by question, the least recently used forgotten first.
pub(super) struct Cache<T> {
    secret: hmac::Key,
    entries_max: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    entries: HashMap<Key, Entry<T>>,
    /// Counts uses: which entry was used last.
    uses: u64,
}

struct Entry<T> {
    answer: T,
    until: Instant,
    used: u64,
}

impl<T: Clone> Cache<T> {
    pub(super) fn new(entries_max: usize) -> Self {
        let mut secret = [0; 32];
        // Without randomness the hash is still one-way; only its key is known.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret);
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            entries_max,
            state: Mutex::new(State { entries: HashMap::new(), uses: 0 }),
        }
    }

    /// Each part counts with its length: `ab`+`c` is not `a`+`bc`.
    pub(super) fn key(&self, parts: impl IntoIterator<Item = impl AsRef<str>>) -> Key {
        let mut hash = hmac::Context::with_key(&self.secret);
        for part in parts {
            let part = part.as_ref().as_bytes();
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.sign().as_ref());
        key
    }

    pub(super) fn get(&self, key: &Key) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let used = state.uses;
        let entry = state.entries.get_mut(key).filter(|entry| entry.until > Instant::now())?;
        entry.used = used;
        Some(entry.answer.clone())
    }

    /// Remembers for this long; not at all for 0.
    pub(super) fn put(&self, key: Key, answer: T, time: Duration) {
        let now = Instant::now();
        let Some(until) = now.checked_add(time).filter(|_| !time.is_zero()) else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.entries.len() >= self.entries_max && !state.entries.contains_key(&key) {
            state.entries.retain(|_, entry| entry.until > now);
        }
        if state.entries.len() >= self.entries_max && !state.entries.contains_key(&key) {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.map(|key| state.entries.remove(&key));
        }
        state.uses += 1;
        let used = state.uses;
        state.entries.insert(key, Entry { answer, until, used });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_in_time() {
        let cache = Cache::new(10);
        let key = cache.key(["a"]);
        cache.put(key, 1, MINUTE);
        tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
        assert_eq!(cache.get(&key), Some(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&key), None);
        cache.put(key, 2, Duration::ZERO);
        assert_eq!(cache.get(&key), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many() {
        let cache = Cache::new(3);
        let keys: Vec<Key> = ["a", "b", "c", "d"].iter().map(|part| cache.key([*part])).collect();
        for (number, key) in keys[..3].iter().enumerate() {
            cache.put(*key, number, MINUTE);
        }
        assert_eq!(cache.get(&keys[0]), Some(0));
        cache.put(keys[3], 3, MINUTE);
        let known: Vec<_> = keys.iter().map(|key| cache.get(key)).collect();
        assert_eq!(known, [Some(0), None, Some(2), Some(3)], "the one that nobody asked for went");
        tokio::time::advance(MINUTE).await;
        cache.put(keys[1], 1, MINUTE);
        assert_eq!(cache.state.lock().unwrap().entries.len(), 1, "what has had its time goes when room is needed");
    }

    #[test]
    fn parts_do_not_run_together() {
        let cache = Cache::<()>::new(1);
        assert_ne!(cache.key(["ab", "c"]), cache.key(["a", "bc"]));
        assert_ne!(cache.key(["a"]), cache.key(["a", ""]));
        assert_ne!(cache.key(["a"]), Cache::<()>::new(1).key(["a"]), "each cache has its own secret");
    }
}
