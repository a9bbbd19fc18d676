//! Leases: signs of life.

use rubelet_api::groups::coordination_v1::Lease;

use crate::client::Client;
use crate::error::Error;
use crate::path::Path;

/// The namespace of nodes' leases.
pub const NODE_NAMESPACE: &str = "kube-node-lease";

/// A node's lease, or `None`.
///
/// # Errors
/// See [`Error`].
pub async fn get(client: &Client, node: &str) -> Result<Option<Lease>, Error> {
    match client.get(&Path::to::<Lease>(NODE_NAMESPACE, node)).await {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a node's lease.
///
/// # Errors
/// See [`Error`]; not found means that the namespace is not there yet.
pub async fn create(client: &Client, lease: &Lease) -> Result<Lease, Error> {
    client.create(&Path::within::<Lease>(NODE_NAMESPACE), lease).await
}

/// Renews a node's lease, which must be as it was read.
///
/// # Errors
/// See [`Error`]; a conflict means that somebody else wrote it.
pub async fn update(client: &Client, node: &str, lease: &Lease) -> Result<Lease, Error> {
    client.update(&Path::to::<Lease>(NODE_NAMESPACE, node), lease).await
}
