//! What the servers show: the agent's picture and the configuration.

use std::sync::Arc;

use rubelet_agent::picture::Picture;
use rubelet_agent::pulse::Pulse;
use rubelet_agent::stats::Stats;
use rubelet_api::v1;
use rubelet_server::View;
use rubelet_server::metrics::HttpCounts;

/// The node as it is shown.
pub(super) struct NodeView {
    pub(super) picture: Picture,
    pub(super) pulse: Pulse,
    pub(super) configz: serde_json::Value,
    pub(super) stats: Stats,
    pub(super) http: HttpCounts,
}

impl View for NodeView {
    fn pods(&self) -> Vec<Arc<v1::Pod>> {
        let listed = self.picture.listed();
        listed
            .into_iter()
            .map(|shown| {
                let mut pod = (*shown.pod).clone();
                pod.status = Some((*shown.status).clone());
                Arc::new(pod)
            })
            .collect()
    }

    fn configz(&self) -> serde_json::Value {
        self.configz.clone()
    }

    fn sync_loop(&self) -> Result<(), String> {
        self.pulse.check()
    }
}
