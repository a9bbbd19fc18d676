//! The hand that talks to the API server: one HTTP/2 connection, typed verbs, and lists that stay up to date.
//!
//! ```ignore
//! let client = Client::connect(Settings::from_kubeconfig(path)?)?;
//! let pod: v1::Pod = client.get(&Path::to::<v1::Pod>("default", "web")).await?;
//! let mut pods = client.list_watch::<v1::Pod>(Path::all::<v1::Pod>(), Selector::fields("spec.nodeName=n1"));
//! while let Some(change) = pods.next().await { … }
//! ```
//!
//! - [`Settings`]: where the server is and who we are, from a kubeconfig ([`Settings::from_kubeconfig`]) or by hand.
//! - [`Client`]: the verbs; cheap to clone. Clones share connections and credentials; [`Client::with_limit`] and
//!   [`Client::with_timeout`] give views with their own rate and patience.
//! - [`Path`]: what an object or a collection is called in a URL.
//! - [`Watch`]: the changes of a collection, for ever.
//! - [`reviews`], [`lease`], [`events`], [`tokens`], [`certificates`], [`pod_certificates`], [`nodes`]: what a node asks of the API server, by name.
//!
//! What the caller gets has no `managedFields`: they are dropped where an object is decoded.

mod answer;
pub mod backoff;
pub mod certificates;
mod client;
mod connect;
mod counts;
mod credentials;
mod error;
pub mod events;
mod kubeconfig;
pub mod lease;
pub mod limit;
pub mod nodes;
mod object;
mod patch;
mod path;
mod plugin;
pub mod pod_certificates;
pub mod reviews;
mod settings;
mod tls;
pub mod tokens;
mod watch;

pub use client::{Client, DeleteOptions, Listed, Preconditions};
pub use counts::ClientCounts;
pub use error::{Error, Refusal, Verb};
pub use kubeconfig::KubeconfigError;
pub use limit::Rate;
pub use object::Object;
pub use patch::{Force, Patch};
pub use path::{Path, Selector};
pub use plugin::{PluginCluster, PluginSettings};
pub use settings::{Identity, Pem, Secret, Settings, Tls, Token};
pub use watch::{Change, Watch};
