//! Whole stories of an agent on a runtime in memory, in virtual time.

mod adoption;
mod containerd;
mod edits;
mod roster;
mod speed;
mod world;
