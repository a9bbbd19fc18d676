//! One file per kind of volume.

pub(crate) mod empty_dir;
pub(crate) mod files;
pub(crate) mod host_path;
pub(crate) mod local;
pub(crate) mod nfs;
