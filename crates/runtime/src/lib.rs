//! The embedded container runtime. So far its half for images: references, registries, the store on disk, layers and the
//! overlay mounts made of them.
//!
//! - [`image::Images`]: pull, import, list, remove, and the file systems of containers.
//! - [`snapshot`]: layers on disk; extraction that never leaves its directory.

#![allow(dead_code, reason = "the parts are here before the door that uses them")]

mod digest;
pub mod image;
pub mod snapshot;

pub use digest::{Digest, DigestError};
