//! The embedded container runtime: pods on a bare Linux machine, without another program.
//!
//! - [`Embedded`]: the runtime; it fulfils the contract of `rubelet_cri::Runtime`.
//! - [`image::Images`]: pull, import, list, remove, and the file systems of containers.
//! - [`snapshot`]: layers on disk; extraction that never leaves its directory.
//! - [`spec`]: what CRI asks for, as the specification that a shim creates a container from.
//!
//! The way of a verb: `contract` → its file in `verbs` → the shim, the network, the images, the cgroups. What there is, is in `pods`; what
//! outlives this process, in its records; what was half done when a process ended is found by `recover` and taken back by `sweep`.

mod cgroups;
mod contract;
mod digest;
mod dns;
mod embedded;
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
pub mod image;
mod limits;
mod places;
mod pods;
mod recover;
mod relay;
mod scratch;
pub mod snapshot;
pub mod spec;
mod stats;
mod streams;
mod sweep;
mod verbs;
mod watch;

pub use contract::NAME;
pub use digest::{Digest, DigestError};
pub use embedded::{Embedded, FAULT_POINTS, Options, StartError};
pub use handlers::{Creator, HandlerError};
