//! The words of rubelet: identifiers, quantities, configuration and the Kubernetes types in use.
//!
//! Nothing in this crate touches the world: no clock, no file, no socket.

pub mod config;
pub mod duration;
pub mod gates;
pub mod gather;
pub mod ids;
pub mod metrics;
pub mod pod;
mod problem;
pub mod quantity;
pub mod quote;
mod schema;
pub mod stats;
mod suggest;
pub mod tree;
mod walk;
mod yaml;

/// A YAML or JSON text of somebody else's format, as JSON.
///
/// # Errors
///
/// What is wrong with the text, and where.
pub fn json_of(text: &[u8]) -> Result<serde_json::Value, String> {
    let text = yaml::text::decode(text).map_err(|e| e.to_string())?;
    let document =
        yaml::parse(&text).map_err(|e| format!("line {}, column {}: {e}", e.position.line, e.position.column))?;
    Ok(document.root.map_or(serde_json::Value::Null, |root| root.to_json()))
}

/// Bytes as base64 in JSON.
pub use k8s_openapi::ByteString;
/// The Kubernetes core/v1 types, as JSON knows them.
pub use k8s_openapi::api::core::v1;
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
/// Object metadata, `Time` and `IntOrString`.
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What names an API resource and finds its metadata.
pub use k8s_openapi::{
    ClusterResourceScope as ClusterScope, Metadata, NamespaceResourceScope as NamespaceScope, Resource,
};

/// The Kubernetes types outside of core/v1, by group and version.
pub mod groups {
    pub use k8s_openapi::api::authentication::v1 as authentication_v1;
    pub use k8s_openapi::api::authorization::v1 as authorization_v1;
    pub use k8s_openapi::api::certificates::v1 as certificates_v1;
    pub use k8s_openapi::api::coordination::v1 as coordination_v1;
    pub use k8s_openapi::api::node::v1 as node_v1;
    pub use k8s_openapi::api::resource::v1 as resource_v1;
    pub use k8s_openapi::api::storage::v1 as storage_v1;
}
