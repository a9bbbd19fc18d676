//! The process beside each container: it creates the container, keeps its streams and log, and records how it ended. It outlives the agent.
//!
//! The same program is both sides. An agent that has a [`Program`] and calls [`Shim::create`] has this program started again, once; there
//! [`main`] takes over before anything else runs, so that the process has one thread and a small heap. It copies itself for each container. Agents talk to it by [`wire`] over
//! `shim.sock` in the bundle, one after the other: the socket stays when a client dies. When the container has ended, the end is
//! written to `exit.json` first, then told to who waits, and the shim goes: nothing has to be fetched from it.
//!
//! Needs Linux 5.12 (`mount_setattr`).

pub mod birth;
mod bpf;
mod capabilities;
mod cgroups;
mod client;
mod create;
mod credentials;
mod devices;
mod end;
mod exec;
mod fault;
mod init;
mod logfile;
mod mounts;
mod nursery;
mod oci;
mod pause;
mod rootfs;
mod seccomp;
mod serve;
pub mod setup;
pub mod spec;
mod stdio;
mod sys;
mod syscalls;
pub mod wire;

pub use capabilities::names as capability_names;
pub use client::{Attached, ExecStreams, Execution, ExitWatch, Parked, Program, Shim, ShimError, Standing};
pub use serve::{called, main};
pub use sys::resize_terminal;
