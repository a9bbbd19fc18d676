//! Some CPUs, by their numbers.

use std::fmt;

#[cfg(test)]
mod tests;

/// Some CPUs, by their numbers. Its text is the kernel's list: `0-3,7`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct CpuSet {
    /// A bit for each CPU; the last word is never zero.
    words: Vec<u64>,
}

impl CpuSet {
    /// Higher numbers cannot be named: more than any kernel has.
    pub const NUMBERS: usize = 1 << 16;

    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Adds one; a number that cannot be named is left out.
    pub fn insert(&mut self, cpu: usize) {
        if cpu >= Self::NUMBERS {
            return;
        }
        if self.words.len() <= cpu / 64 {
            self.words.resize(cpu / 64 + 1, 0);
        }
        self.words[cpu / 64] |= 1 << (cpu % 64);
    }

    #[must_use]
    pub fn has(&self, cpu: usize) -> bool {
        self.words.get(cpu / 64).is_some_and(|word| word & (1 << (cpu % 64)) != 0)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Their numbers, from below.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.words.len() * 64).filter(|&cpu| self.has(cpu))
    }

    /// Those that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut words = self.words.clone();
        words.resize(words.len().max(other.words.len()), 0);
        words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
        Self { words }
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self::trimmed(self.words.iter().zip(&other.words).map(|(one, other)| one & other).collect())
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut words = self.words.clone();
        words.iter_mut().zip(&other.words).for_each(|(word, less)| *word &= !less);
        Self::trimmed(words)
    }

    /// Whether the other has all of them.
    #[must_use]
    pub fn is_subset(&self, of: &Self) -> bool {
        self.difference(of).is_empty()
    }

    /// Whether the other has none of them.
    #[must_use]
    pub fn is_disjoint(&self, from: &Self) -> bool {
        self.intersection(from).is_empty()
    }

    fn trimmed(mut words: Vec<u64>) -> Self {
        while words.last() == Some(&0) {
            words.pop();
        }
        Self { words }
    }

    /// From the kernel's list.
    ///
    /// # Errors
    /// It is none, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set = Self::new();
        if text.is_empty() {
            return Ok(set);
        }
        for range in text.split(',') {
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(range)?, number(range)?),
            };
            if first > last {
                return Err(format!("invalid range {range:?} ({first} > {last})"));
            }
            (first..=last).for_each(|cpu| set.insert(cpu));
        }
        Ok(set)
    }
}

fn number(text: &str) -> Result<usize, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let why = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match digits.parse() {
            Ok(number) if number < CpuSet::NUMBERS => return Ok(number),
            _ => "value out of range",
        }
    };
    Err(format!("strconv.Atoi: parsing {text:?}: {why}"))
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::new();
        numbers.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

/// kubelet 1.36: nothing for none.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = 0;
        let mut separator = "";
        for cpu in self.numbers() {
            if cpu == 0 || !self.has(cpu - 1) {
                first = cpu;
            }
            if self.has(cpu + 1) {
                continue;
            }
            if first == cpu {
                write!(f, "{separator}{cpu}")?;
            } else {
                write!(f, "{separator}{first}-{cpu}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}
