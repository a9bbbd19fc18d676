//! Layers on disk, and the mounts that stack them for containers.

mod ahead;
pub(crate) mod archive;
pub(crate) mod compression;
pub mod extract;
pub(crate) mod layers;
pub mod rootfs;
pub mod usage;

pub use layers::LayerError;
