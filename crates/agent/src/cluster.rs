//! The API server, where the node has one: what the tasks that speak with it are told.

use rubelet_apiserver::Client;

use crate::events::EventSettings;
use crate::node::NodeSettings;
use crate::references::ReferenceSettings;

/// Each task has its part.
#[derive(Clone)]
pub struct Cluster {
    /// From where the objects come that pods refer to.
    pub references: ReferenceSettings,
    /// Where it is told what happens.
    pub events: EventSettings,
    /// How the node registers itself and gives signs of life; `None`: somebody else does.
    pub node: Option<NodeSettings>,
    /// Whose pods run here and hear of it; `None`: pods come from elsewhere.
    pub pods: Option<PodSettings>,
}

/// The API server as a source of pods, and as the one that is told of them.
#[derive(Clone)]
pub struct PodSettings {
    pub client: Client,
    /// What waits are spread by; another number on each node.
    pub seed: u64,
}
