//! Streams that share one connection: their buffers, their two ends, and what waits to be written.
//!
//! A [`Link`] stands between the task that reads and writes the connection ([`drive`]) and the [`Reader`]s and [`Writer`]s in
//! other hands. It knows no protocol: SPDY and WebSocket channels say how bytes are taken in ([`Inbound`]) and put out
//! ([`Outbound`]).
//!
//! Neither protocol has flow control that its peers use (kubelet 1.36: window updates are ignored), so a stream that nobody reads
//! must be buffered or must stop the connection. It is buffered up to [`Limits::stream_bytes`]; beyond, the connection is not read
//! until somebody reads that stream. kubelet 1.36 does the same after 50 frames of mostly 32 KiB.

mod drive;
mod halves;
mod lane;
mod link;

pub(crate) use drive::{Flow, Inbound, Outbound, drive};
pub use halves::{Reader, Stream, Writer};
pub(crate) use lane::Directions;
pub use link::{HangUp, Limits};
pub(crate) use link::{Link, Out};
