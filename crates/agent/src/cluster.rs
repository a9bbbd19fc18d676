//! The API server, where the node has one: what the tasks that speak with it are told.

use crate::events::EventSettings;
use crate::references::ReferenceSettings;

/// Each task has its part.
#[derive(Clone)]
pub struct Cluster {
    /// From where the objects come that pods refer to.
    pub references: ReferenceSettings,
    /// Where it is told what happens.
    pub events: EventSettings,
}
