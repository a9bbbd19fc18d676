//! Volumes of CSI drivers: staged once for the node, published into each pod, and taken down in turn.
//!
//! What is where on the disk is upstream's: `pods/<uid>/volumes/kubernetes.io~csi/<name>/mount` with `vol_data.json` beside it,
//! and `plugins/kubernetes.io/csi/<driver>/<hash of the handle>/globalmount` with another; devices are in
//! `plugins/kubernetes.io/csi/volumeDevices`. From them a volume is found again after a restart, by upstream's kubelet too. All
//! calls are idempotent, as CSI wants them.

mod block;
mod client;
mod counts;
mod mounting;
mod record;
mod registration;
mod stats;
mod unmount;

#[cfg(test)]
mod tests;

pub use client::{CsiError, Driver, Drivers, Turn, unique_name};
pub use counts::CsiCounts;
pub use mounting::{Mounting, Place};
pub(crate) use record::driver_of;
pub use registration::{Plugin, ask, notify, sockets};
pub use rubelet_proto::csi::NodeGetInfoResponse as NodeFacts;
pub use stats::{Condition, Published, Usage};
pub use unmount::{hold_found, unmount_all, unstage_unused};
