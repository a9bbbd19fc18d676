//! Volumes of a pod: mounted, found again after a restart, unmounted.
//!
//! Everything lies below the pod's directory: `volumes/<plugin>/<name>` is the volume, `plugins/kubernetes.io~empty-dir/<name>/ready`
//! says that it was made, `volume-subpaths/<volume>/<container>/<index>` is what a `subPath` mount binds.
//! All functions block and are idempotent.

mod atomic_dir;
pub mod csi;
mod devices;
pub mod env_file;
mod kinds;
mod mount;
mod ownership;
mod projects;
mod subpath;
mod survey;
mod unmount;

#[cfg(test)]
mod testing;

pub use devices::unmap_all;
pub use mount::{Cause, MountError, mount};
pub use subpath::subpath;
pub use survey::{PodOnDisk, plugins, survey};
pub use unmount::{UnmountError, remove_pod_dir, unmount_all};
