//! Maps from iterators, in little code.
//!
//! `collect` sorts before it builds a map: five kilobytes of machine code for each place that calls it. Most of the agent's maps have a handful of
//! entries.

use std::collections::BTreeMap;

/// Iterators over pairs.
pub trait Gather<K: Ord, V>: Iterator<Item = (K, V)> + Sized {
    /// Puts one after another into a map; of equal keys the last one counts, as with `collect`.
    fn into_map(self) -> BTreeMap<K, V> {
        let mut map = BTreeMap::new();
        for (key, value) in self {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord, V, I: Iterator<Item = (K, V)>> Gather<K, V> for I {}

/// Iterators over what may be pairs.
pub trait TryGather<K: Ord, V, E>: Iterator<Item = Result<(K, V), E>> + Sized {
    /// Puts one after another into a map.
    ///
    /// # Errors
    /// The first one of the iterator's.
    fn try_into_map(self) -> Result<BTreeMap<K, V>, E> {
        let mut map = BTreeMap::new();
        for pair in self {
            let (key, value) = pair?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<K: Ord, V, E, I: Iterator<Item = Result<(K, V), E>>> TryGather<K, V, E> for I {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_as_collected() {
        let pairs = [(2, 'b'), (1, 'a'), (2, 'c')];
        assert_eq!(pairs.into_iter().into_map(), pairs.into_iter().collect());
        let tried = |pairs: &[Result<(u8, char), &'static str>]| pairs.iter().copied().try_into_map();
        assert_eq!(tried(&[Ok((1, 'a'))]), Ok(BTreeMap::from([(1, 'a')])));
        assert_eq!(tried(&[Ok((1, 'a')), Err("no"), Err("never")]), Err("no"));
    }
}
