//! The kubelet's configuration, `kubelet.config.k8s.io/v1beta1`: what may be said, what holds when nothing is said.
//!
//! The way is: a [`Draft`] from the file (or from nothing) → drop-ins merged over it → flags laid over its value →
//! [`Draft::finish`], which checks everything. Nothing here reads a file: the caller gives bytes and their name.

mod draft;
mod effective;
mod eviction;
pub(crate) mod field;
mod host;
mod images;
mod logs;
mod network;
mod node;
mod pods;
mod resources;
mod runtime;
mod server;
#[cfg(test)]
mod tests;
mod validate;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::schema::{Kind, Shape};

pub use draft::{ConfigError, Draft, Loaded, Warning};
pub use effective::not_effective;
pub use eviction::{Eviction, Thresholds};
pub use field::{Flush, Quantity};
pub use host::Host;
pub use images::Images;
pub use logs::{FormatOptions, Logging, LoggingOptions, Logs, Tracing, Vmodule};
pub use network::Network;
pub use node::{Node, ShutdownGracePeriod, Taint};
pub use pods::Pods;
pub use resources::{MemoryReservation, MemorySwap, Resources, UserNamespaces};
pub use runtime::{CrashLoopBackOff, Runtime};
pub use server::{Anonymous, Authentication, AuthenticationWebhook, Authorization, AuthorizationWebhook, Server, X509};
pub use validate::{Found, Invalid, Moment, Refusal, Surroundings, validate};

/// Most bytes of a configuration file.
pub const CONFIG_BYTES: usize = 10 << 20;

/// The group and version of the configuration.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Its kind.
pub const KIND: &str = "KubeletConfiguration";

macro_rules! configuration {
    ($($(#[$doc:meta])* $field:ident: $section:ident;)*) => {
        /// The whole configuration, complete. Sections are ours; the names of the fields in files are upstream's and
        /// stand side by side there.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct KubeletConfiguration {
            $($(#[$doc])* pub $field: $section,)*
        }

        /// The fields of all sections.
        const PARTS: &[&[(&str, Kind)]] = &[TYPE_FIELDS, $($section::FIELDS,)*];

        impl KubeletConfiguration {
            /// From a value that has been completed and checked against the table of fields.
            fn from_value(value: &Value) -> serde_json::Result<Self> {
                Ok(Self { $($field: serde::Deserialize::deserialize(value)?,)* })
            }

            /// As a file would say it: every default written, nothing that says nothing; with kind and version.
            pub fn to_value(&self) -> Value {
                let mut map = Map::new();
                map.insert("kind".to_owned(), KIND.into());
                map.insert("apiVersion".to_owned(), API_VERSION.into());
                $(
                    // A section is an object of plain values; writing one cannot fail.
                    if let Ok(Value::Object(section)) = crate::tree::to_tree(&self.$field) {
                        map.extend(section);
                    }
                )*
                Value::Object(map)
            }
        }

        /// The defaults that follow from nothing else.
        fn fill_in_sections(map: &mut Map<String, Value>) {
            $($section::fill_in(map);)*
        }
    };
}

configuration! {
    /// Where pods come from and where they leave things.
    pods: Pods;
    /// What the node serves over HTTP, and to whom.
    server: Server;
    /// Pulling and removing images.
    images: Images;
    /// The node towards the cluster.
    node: Node;
    /// Cgroups, what is kept for the system, and who gets which part of the machine.
    resources: Resources;
    /// When pods have to go to save the node.
    eviction: Eviction;
    /// Names and packets.
    network: Network;
    /// Logs of containers and of this program, and traces.
    logs: Logs;
    /// The container runtime and how containers run.
    runtime: Runtime;
    /// This process and its machine.
    host: Host;
}

impl Serialize for KubeletConfiguration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

const TYPE_FIELDS: &[(&str, Kind)] = &[("kind", Kind::Text), ("apiVersion", Kind::Text)];

const FIELD_COUNT: usize = {
    let (mut count, mut nth) = (0, 0);
    while nth < PARTS.len() {
        count += PARTS[nth].len();
        nth += 1;
    }
    count
};

static FIELDS: [(&str, Kind); FIELD_COUNT] = {
    let mut all = [("", Kind::Text); FIELD_COUNT];
    let (mut part, mut at) = (0, 0);
    while part < PARTS.len() {
        let mut nth = 0;
        while nth < PARTS[part].len() {
            all[at] = PARTS[part][nth];
            at += 1;
            nth += 1;
        }
        part += 1;
    }
    all
};

/// The table of all fields.
static SHAPE: Shape = Shape { name: KIND, fields: &FIELDS };
