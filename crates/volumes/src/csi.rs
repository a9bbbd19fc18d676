//! Volumes of CSI drivers: staged once for the node, published into each pod, and taken down in turn.
//!
//! What is where on the disk is upstream's: `pods/<uid>/volumes/kubernetes.io~csi/<name>/mount` with `vol_data.json` beside it,
//! and `plugins/kubernetes.io/csi/<driver>/<hash of the handle>/globalmount` with another. From them a volume is found again
//! after a restart. All calls are idempotent, as CSI wants them.

mod client;
mod messages;
mod registration;
mod volume;

#[cfg(test)]
mod tests;

pub use client::{CsiError, Driver, Drivers};
pub use messages::{NodeFacts, Topology};
pub use registration::{Plugin, ask, notify, sockets};
pub use volume::{mount, unmount_all, unstage_unused};
