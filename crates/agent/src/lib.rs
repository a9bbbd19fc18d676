//! The tasks that carry facts in and plans out: sources, roster, workers, watcher. The only place that knows all hands.

pub mod allocation;
pub mod care;
pub mod certificates;
pub mod clock;
pub mod cluster;
mod collector;
mod compare;
mod credentials;
mod csi;
pub mod devices;
pub mod dra;
pub mod events;
mod execute;
mod facts;
mod foreign;
pub mod hands;
pub mod housing;
pub mod ledger;
pub mod life;
pub mod metrics;
pub mod node;
pub mod observer;
mod oom;
pub mod picture;
pub mod pressure;
pub mod probe;
mod pulled;
mod pulls;
pub mod pulse;
pub mod references;
mod reporter;
pub mod reserve;
pub mod roster;
pub mod rotation;
pub mod shutdown;
pub mod sources;
pub mod start;
pub mod stats;
#[cfg(test)]
mod testing;
mod users;
mod watcher;
pub mod worker;

pub use credentials::plugins::{PluginConfigError, Plugins as CredentialPlugins};
pub use start::{Agent, PullSettings, Settings, StartError, start};
