//! exec, attach and port-forward: what kubectl, API servers and clients of the container runtime speak on an upgraded connection.
//!
//! - [`spdy`] and [`websocket`]: frames without a socket, and connections with streams.
//! - [`Server`]: what a container runtime listens with; it hands streams to [`Containers`].
//! - [`client`]: the other side. [`proxy`] carries an upgraded connection on as it is, [`translate`] what only an API server speaks to what
//!   a container runtime speaks.
//!
//! What comes from outside ends in an error, never in a panic, and each buffer has a bound ([`Limits`]).

pub mod client;
mod containers;
mod http;
mod join;
mod mux;
mod port_forward;
mod protocol;
pub mod proxy;
mod remote_command;
pub mod server;
pub mod spdy;
mod status;
pub mod translate;
pub mod websocket;

pub use containers::{Answer, Command, Containers, Failure, Resizes, Streams, TerminalSize};
pub use http::Body;
pub use mux::{HangUp, Limits, Reader, Stream, Writer};
pub use server::Server;
pub use status::Status;
