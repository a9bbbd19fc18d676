//! SPDY/3.1, as API servers, kubectl and CRI clients speak it after an HTTP upgrade.
//!
//! [`Decoder`] and the functions of `encode` know frames and no socket; [`Connection`] carries streams over one.

mod connection;
mod decode;
mod dictionary;
mod encode;
mod frame;
mod headers;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Incoming, OpenError, Options};
pub use decode::{DecodeError, Decoder, Event};
pub use encode::Encoder;
pub use frame::{Frame, StreamId};
pub use headers::Headers;

/// What a peer calls the protocol in the header `Upgrade`.
pub const NAME: &str = "SPDY/3.1";
/// Status of a reset: the protocol was broken.
pub const PROTOCOL_ERROR: u32 = 1;
/// Status of a reset: the stream was not looked at.
pub const REFUSED_STREAM: u32 = 3;
/// Status of a reset: the stream is no longer wanted.
pub const CANCEL: u32 = 5;
