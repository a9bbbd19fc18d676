//! Messages of the gRPC protocols that the agent speaks: names, numbers and types of the wire, no behaviour.
//!
//! The modules are generated from `protos/*.proto` by `cargo run -p xtask -- proto` and checked in; a test of `xtask`
//! compares. Nothing here knows tonic or tokio.

/// Container Runtime Interface v1, as of Kubernetes 1.36.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod cri;

/// Container Storage Interface v1: the node's side and the driver's name.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod csi;

/// Device plugins v1beta1: registration, devices, and what a container needs to use them.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod deviceplugin;

/// Drivers of resource claims, v1 and v1beta1, as of Kubernetes 1.36: what is prepared for a claim, and taken back.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod dra;

/// Health of the devices of such drivers, v1alpha1.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod dra_health;

/// gRPC health checking v1: what a gRPC probe asks.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod health;

/// OpenTelemetry's export of spans, as far as we send them.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod otlp;

/// Pod resources v1, as of Kubernetes 1.36: which devices, CPUs and memory each container has.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod podresources;

/// Registration of plugins v1.
#[rustfmt::skip]
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod registration;

mod redacted;
