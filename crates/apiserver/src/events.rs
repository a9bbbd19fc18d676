//! Event objects.

use rubelet_api::v1::Event;
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::patch::Patch;
use crate::path::Path;

/// The namespace of an event about an object that has none.
pub const CLUSTER_NAMESPACE: &str = "default";

/// Creates an event in its namespace.
///
/// # Errors
/// See [`Error`]; forbidden while the namespace goes away.
pub async fn create(client: &Client, event: &Event) -> Result<Event, Error> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or(CLUSTER_NAMESPACE);
    client.create(&Path::within::<Event>(namespace), event).await
}

/// Says that an event happened again: `change` has its new count, last time and message.
///
/// # Errors
/// See [`Error`]; not found when the event has been forgotten, then it is created anew.
pub async fn repeat(client: &Client, namespace: &str, name: &str, change: Value) -> Result<Event, Error> {
    client.patch(&Path::to::<Event>(namespace, name), &Patch::StrategicMerge(change)).await
}
