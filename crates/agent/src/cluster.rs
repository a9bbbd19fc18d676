//! The API server, where the node has one: what the tasks that speak with it are told.

use crate::node::NodeSettings;
use crate::references::ReferenceSettings;

/// Each task has its part.
#[derive(Clone)]
pub struct Cluster {
    /// From where the objects come that pods refer to.
    pub references: ReferenceSettings,
    /// How the node registers itself and gives signs of life; `None`: somebody else does.
    pub node: Option<NodeSettings>,
}
