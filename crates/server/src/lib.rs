//! What the node tells over HTTP: health, its pods, its configuration. Reads the picture, writes nothing (but the
//! self-made certificate).
//!
//! Three listeners, each optional:
//! - the health server (plain, 127.0.0.1:10248): `/healthz` only;
//! - the read-only server (plain, port 10255): pods and health, for everyone who reaches it;
//! - the server (TLS, port 10250): all paths, for those who may.
//!
//! Beside them a socket for root, on which monitoring agents ask what each container has ([`ServerConfig::pod_resources`]).
//!
//! [`serve`] binds and returns; the listeners then run as tasks until [`Servers`] is dropped. What is asked is answered
//! from a [`View`].

mod auth;
mod config;
mod connection;
mod encode;
#[doc(hidden)]
pub mod fuzzing;
mod listen;
mod logs;
pub mod metrics;
mod mux;
mod pod_resources;
mod query;
mod respond;
mod routes;
mod running;
mod tls;
mod view;

pub use auth::{AccessQuestion, CacheTimes, Caller, ReviewError, Reviewing, Reviews, by_api_server};
pub use config::{Authentication, AuthorizationMode, Certificate, ServerConfig, TlsFiles, TlsServerConfig, TlsVersion};
pub use encode::pod_json;
pub use listen::{ServeError, Servers, serve};
pub use tls::TlsError;
pub use view::{Premises, Switches, View};
