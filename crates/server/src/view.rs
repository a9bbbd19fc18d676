//! What the server asks of the rest of the agent.

use std::sync::Arc;

use rubelet_api::v1;

use crate::metrics::Pages;

#[cfg(test)]
pub(crate) mod shown;

/// The node, as it is to be shown. Every method answers at once, from what is known.
pub trait View: Pages + Send + Sync + 'static {
    /// All known pods with their status, in any order.
    fn pods(&self) -> Vec<Arc<v1::Pod>>;

    /// The effective `KubeletConfiguration`, `kind` and `apiVersion` included, as `/configz` shows it.
    fn configz(&self) -> serde_json::Value;

    /// Whether pods are still being looked after.
    ///
    /// # Errors
    /// Why not, in words (kubelet 1.36: `sync Loop took longer than expected`).
    fn sync_loop(&self) -> Result<(), String>;
}
