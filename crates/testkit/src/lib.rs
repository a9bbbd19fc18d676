//! Counterparts for tests: a container runtime in memory that obeys the contract and tells when it is misused.

mod calls;
pub mod contract;
pub mod csi_driver;
pub mod dra_driver;
mod grpc;
pub mod program;
pub mod runtime;

pub use runtime::{FakeRuntime, Script, Temper};
