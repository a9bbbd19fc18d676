//! The runtime, as the rest of the agent sees it: a contract of CRI's verbs, and the hand that fulfils it by asking
//! a container runtime over its socket.
//!
//! - [`Runtime`]: the contract. One method for each verb; what any runtime behind it must do.
//! - [`RuntimeError`]: why a verb failed, shown in the words that users know from gRPC.
//! - [`Remote`]: the contract over a unix socket (containerd, CRI-O).
//! - [`Bounded`]: any runtime, with deadlines.
//! - [`serve`]: any runtime behind the contract, served on a unix socket.
//! - [`AnyAuthority`]: a connection of a gRPC client that calls a socket by its path.
//! - [`check_version`]: whether a runtime speaks what we speak.

mod authority;
mod bounded;
mod contract;
mod counts;
mod error;
mod remote;
mod serve;
mod version;

pub use authority::AnyAuthority;
pub use bounded::Bounded;
pub use contract::{Answer, EventStream, Runtime};
pub use counts::RuntimeCounts;
pub use error::{Code, RuntimeError};
pub use remote::{EndpointError, Remote};
pub use serve::{ServeError, serve};
pub use version::{API_VERSION, check_version};
