//! Lines of containers' logs, as runtimes write them. No file, no clock.
//!
//! A crate of its own because it looks at each byte of logs of gigabytes: it is compiled for speed, when most else is compiled to be small.

mod decode;
mod moment;

pub use decode::{DecodeError, Decoder, Flow, Wanted};
pub use moment::{Moment, Written};
