//! The ground: files, mounts, cgroups, processes of one Linux machine. It knows nothing of pods.
//!
//! Functions here block on the kernel unless they are `async`; callers on an executor hand them to a blocking thread.

pub mod cgroup;
mod dbus;
pub mod memory;
pub mod mount;
pub mod paths;
pub mod proc;
pub mod process;
pub mod tuning;
pub mod watch;
