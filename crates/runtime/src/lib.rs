//! The embedded container runtime. So far its half for images: references, registries, the store on disk, layers and the
//! overlay mounts made of them.
//!
//! - [`image::Images`]: pull, import, list, remove, and the file systems of containers.
//! - [`snapshot`]: layers on disk; extraction that never leaves its directory.
//! - [`spec`]: what CRI asks for, as the specification that a shim creates a container from.

mod digest;
pub mod image;
mod scratch;
pub mod snapshot;
pub mod spec;

pub use digest::{Digest, DigestError};
