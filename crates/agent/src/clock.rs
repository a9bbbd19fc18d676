//! The one place that reads the clocks.

use rubelet_core::now::{Mono, Now, Wall};
use tokio::time::Instant;

/// Both clocks, counted from the agent's start. Follows tokio's virtual time in tests.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// In tests the wall clock follows virtual time from here.
    wall: Option<Wall>,
}

impl Clock {
    /// Starts counting now.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: None }
    }

    /// A clock whose wall time starts at `wall` and goes with tokio's time.
    pub fn virtual_from(wall: Wall) -> Self {
        Self { start: Instant::now(), wall: Some(wall) }
    }

    /// One reading of both clocks.
    pub fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let wall = self.wall.map_or_else(Wall::now, |start| start.saturating_add(elapsed).unwrap_or(start));
        Now { mono: Mono(elapsed), wall }
    }

    /// The runtime's instant for a moment that a decider named.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + at.0
    }
}
