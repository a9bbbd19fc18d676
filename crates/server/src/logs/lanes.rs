//! How much of a log may be on its way to one reader: much for a few of them, little for the others, so that many who read slowly take
//! little memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Readers who may have much on the way at a time.
const WIDE: usize = 8;
/// Pieces that wait for one of them: enough for as much as a core encrypts.
const WIDE_PIECES: usize = 8;
/// Pieces that wait for any other.
const NARROW_PIECES: usize = 2;

/// The lanes of all readers.
#[derive(Debug)]
pub(crate) struct Lanes(Arc<Semaphore>);

/// One reader's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    wide: Option<OwnedSemaphorePermit>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WIDE)))
    }
}

impl Lanes {
    /// A wide one as long as there are any, for who does not stay.
    pub(crate) fn take(&self, stays: bool) -> Lane {
        let wide = if stays { None } else { self.0.clone().try_acquire_owned().ok() };
        Lane { wide }
    }
}

impl Lane {
    /// Pieces that may wait to be taken.
    pub(crate) fn pieces(&self) -> usize {
        if self.wide.is_some() { WIDE_PIECES } else { NARROW_PIECES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_have_wide_ones_and_give_them_back() {
        let lanes = Lanes::default();
        let mut taken: Vec<Lane> = (0..WIDE + 1).map(|_| lanes.take(false)).collect();
        let pieces = |lanes: &[Lane]| lanes.iter().map(Lane::pieces).collect::<Vec<_>>();
        assert_eq!(pieces(&taken[..WIDE]), [WIDE_PIECES; WIDE]);
        assert_eq!(pieces(&taken[WIDE..]), [NARROW_PIECES]);
        taken.remove(0);
        assert_eq!(lanes.take(true).pieces(), NARROW_PIECES, "one who stays");
        assert_eq!(lanes.take(false).pieces(), WIDE_PIECES);
    }
}
