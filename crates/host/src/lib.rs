//! The ground: files, mounts, cgroups, processes of one Linux machine. It knows nothing of pods.
//!
//! Functions here block on the kernel unless they are `async`; callers on an executor hand them to a blocking thread.

pub mod cgroup;
pub mod dbus;
pub mod disk;
pub mod exec;
pub mod gauge;
pub mod kmsg;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod paths;
pub mod proc;
pub mod process;
pub mod ready;
pub mod task;
pub mod topology;
pub mod tuning;
pub mod watch;

/// An error with all its causes in one line, joined by `: `. Errors here say what failed on what; why stands in their sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
