//! WebSocket (RFC 6455), as far as this trade needs it: the handshake, frames, and channels in binary messages.
//!
//! Frames are handed on as they come, so that a long message needs no memory; a library that puts messages together first would.

mod channels;
mod decode;
mod encode;
mod handshake;
#[cfg(test)]
mod tests;

pub use channels::{Channels, Coding};
pub use decode::{DecodeError, Decoder, Event};
pub use encode::{Encoder, Opcode};
pub use handshake::accept_key;

/// Which end of the connection this is: a client masks what it sends, a server does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asked for the connection.
    Client,
    /// Was asked.
    Server,
}
