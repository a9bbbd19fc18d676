//! Whole stories of an agent on a runtime in memory, in virtual time.

mod adoption;
mod edits;
mod roster;
mod speed;
mod world;
