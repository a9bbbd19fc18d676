//! Node objects.

use rubelet_api::v1::Node;
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::patch::Patch;
use crate::path::Path;

/// A node, as it is now.
///
/// # Errors
/// See [`Error`].
pub async fn get(client: &Client, name: &str) -> Result<Node, Error> {
    client.get(&Path::to_cluster::<Node>(name)).await
}

/// A node as the server remembers it.
///
/// # Errors
/// See [`Error`].
pub async fn get_cached(client: &Client, name: &str) -> Result<Node, Error> {
    client.get_cached(&Path::to_cluster::<Node>(name)).await
}

/// Registers a node.
///
/// # Errors
/// See [`Error`]; [`Error::is_already_exists`] if it is registered.
pub async fn create(client: &Client, node: &Node) -> Result<Node, Error> {
    client.create(&Path::all::<Node>(), node).await
}

/// Changes metadata or spec; lists are merged by name.
///
/// # Errors
/// See [`Error`].
pub async fn patch(client: &Client, name: &str, change: Value) -> Result<Node, Error> {
    client.patch(&Path::to_cluster::<Node>(name), &Patch::StrategicMerge(change)).await
}

/// Changes the status; lists are merged by name. kubelet 1.36 sends metadata that it wants changed with it.
///
/// # Errors
/// See [`Error`].
pub async fn patch_status(client: &Client, name: &str, change: Value) -> Result<Node, Error> {
    client.patch(&Path::to_cluster::<Node>(name).part("status"), &Patch::StrategicMerge(change)).await
}
