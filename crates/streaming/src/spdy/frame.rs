//! The frames, decoded.

use super::Headers;

/// Number of a stream, 31 bits; odd if the client opened it.
pub type StreamId = u32;

pub(super) const VERSION: u16 = 3;
pub(super) const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
pub(super) const RST_STREAM: u16 = 3;
pub(super) const SETTINGS: u16 = 4;
pub(super) const PING: u16 = 6;
pub(super) const GOAWAY: u16 = 7;
pub(super) const HEADERS: u16 = 8;
pub(super) const WINDOW_UPDATE: u16 = 9;

pub(super) const FLAG_FIN: u8 = 1;
pub(super) const FLAG_UNIDIRECTIONAL: u8 = 2;

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The stream.
        id: StreamId,
        /// The stream that it belongs to, or 0.
        associated: StreamId,
        /// 0 (highest) to 7.
        priority: u8,
        /// The sender sends no more on it.
        is_fin: bool,
        /// The receiver may send nothing on it.
        is_unidirectional: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        id: StreamId,
        /// The sender sends no more on it.
        is_fin: bool,
        /// Answers to the request's.
        headers: Headers,
    },
    /// Ends a stream at once.
    RstStream {
        /// The stream.
        id: StreamId,
        /// Why, 1 to 11.
        status: u32,
    },
    /// Settings; nobody in this trade uses them.
    Settings {
        /// Flags, number (24 bits) and value of each.
        entries: Vec<(u8, u32, u32)>,
    },
    /// Asks for the same frame back.
    Ping {
        /// Odd if it started at the client.
        id: u32,
    },
    /// No new streams are accepted.
    GoAway {
        /// The last stream that was looked at.
        last_good: StreamId,
        /// Why: 0 if all is well.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        id: StreamId,
        /// The sender sends no more on it.
        is_fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Flow control; ignored by the peers of this trade, and here.
    WindowUpdate {
        /// The stream, or 0 for the connection.
        id: StreamId,
        /// Bytes more.
        delta: u32,
    },
}
