//! Numbers that are counted from many tasks at once.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Family, Text};

/// Series of one family at most; what comes then is not counted by labels any more.
const SERIES_MAX: usize = 2000;

/// A number of some kind.
pub trait Value {
    /// Zero, for a series of this family.
    fn zero(family: &Family) -> Self;
    /// Tells one series.
    ///
    /// # Errors
    /// The sink's.
    fn tell(&self, text: &mut Text<'_>, family: &Family, labels: &[&str]) -> io::Result<()>;
}

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Value for Counter {
    fn zero(_: &Family) -> Self {
        Self::default()
    }

    fn tell(&self, text: &mut Text<'_>, family: &Family, labels: &[&str]) -> io::Result<()> {
        text.sample(family, labels, self.count() as f64)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The number from now on.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds, or takes away.
    pub fn add(&self, change: f64) {
        let changed = |bits: u64| Some((f64::from_bits(bits) + change).to_bits());
        // Always changes: the closure never says no.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// The number now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Value for Gauge {
    fn zero(_: &Family) -> Self {
        Self::default()
    }

    fn tell(&self, text: &mut Text<'_>, family: &Family, labels: &[&str]) -> io::Result<()> {
        text.sample(family, labels, self.get())
    }
}

/// Counts by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum: Gauge,
}

impl Histogram {
    /// One more of this size.
    pub fn observe(&self, size: f64) {
        let at = self.bounds.partition_point(|bound| *bound < size);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.add(size);
    }

    /// One more that took this long.
    pub fn took(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

impl Value for Histogram {
    fn zero(family: &Family) -> Self {
        let counts = (0..=family.buckets.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: family.buckets, counts, sum: Gauge::default() }
    }

    fn tell(&self, text: &mut Text<'_>, family: &Family, labels: &[&str]) -> io::Result<()> {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        text.distribution(family, labels, &counts, self.sum.get())
    }
}

/// A family without labels: there from the beginning.
#[derive(Debug)]
pub struct Plain<T> {
    family: &'static Family,
    value: T,
}

impl<T: Value> Plain<T> {
    pub fn new(family: &'static Family) -> Self {
        Self { family, value: T::zero(family) }
    }

    /// Head and number.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.head(self.family)?;
        self.value.tell(text, self.family, &[])
    }
}

impl<T> std::ops::Deref for Plain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A family with labels: a series is there once it was counted. Without labels: the one number is.
#[derive(Debug)]
pub struct Labelled<T> {
    family: &'static Family,
    /// In the order of their labels.
    series: Mutex<Vec<(Labels, Arc<T>)>>,
}

type Labels = Box<[Box<str>]>;

impl<T: Value> Labelled<T> {
    pub fn new(family: &'static Family) -> Self {
        Self { family, series: Mutex::default() }
    }

    /// The series with these values, in the family's order.
    pub fn of(&self, labels: &[&str]) -> Arc<T> {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        let mut series = self.lock();
        let compare = |known: &(Labels, Arc<T>)| known.0.iter().map(|one| &**one).cmp(labels.iter().copied());
        match series.binary_search_by(compare) {
            Ok(at) => series[at].1.clone(),
            Err(at) => {
                let new = Arc::new(T::zero(self.family));
                if series.len() < SERIES_MAX {
                    let labels = labels.iter().map(|&value| value.into()).collect();
                    series.insert(at, (labels, new.clone()));
                }
                new
            }
        }
    }

    /// Forgets the series whose labels are such.
    pub fn forget(&self, is_such: impl Fn(&[Box<str>]) -> bool) {
        self.lock().retain(|(labels, _)| !is_such(labels));
    }

    /// Head and all series; nothing when there are none.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        // A reader may be slow: nobody who counts waits for him.
        let all = self.lock().clone();
        if all.is_empty() {
            return Ok(());
        }
        text.head(self.family)?;
        let mut names = Vec::new();
        for (labels, value) in &all {
            names.clear();
            names.extend(labels.iter().map(|value| &**value));
            value.tell(text, self.family, &names)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Labels, Arc<T>)>> {
        // Each change is one insert or removal: a panic in between leaves a whole list.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
