//! Containers on the real kernel. Needs root and busybox (Debian's `busybox-static`); without them each test says that it was not run.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shim/bench.rs"]
mod bench;
#[path = "shim/box_.rs"]
mod box_;
#[path = "shim/life.rs"]
mod life;
#[path = "shim/limits.rs"]
mod limits;
#[path = "shim/streams.rs"]
mod streams;
