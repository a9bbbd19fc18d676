//! All decisions of rubelet, and nothing else: facts in, plans out.
//!
//! No clock, no file, no socket, no log: time, chance and the node's properties are arguments.

pub mod admit;
pub mod certificate;
pub mod collect;
pub mod event;
pub mod evict;
pub mod node;
pub mod now;
pub mod pem;
pub mod pod;
pub mod pulled;
pub mod render;
pub mod resources;
pub mod shutdown;

#[cfg(test)]
mod sample;
