//! What the agent can do that the control plane has to know.

use rubelet_api::gates::{Gate, Gates};

/// The features that the node declares, sorted. kubelet 1.36: none with the gate off.
#[must_use]
pub fn declared(gates: &Gates) -> Vec<String> {
    const ALL: [Gate; 5] = [
        Gate::ExtendWebSocketsToKubelet,
        Gate::InPlacePodLevelResourcesVerticalScaling,
        Gate::InPlacePodVerticalScalingInitContainers,
        Gate::RestartAllContainersOnContainerExits,
        Gate::UserNamespacesHostNetworkSupport,
    ];
    if !gates.is_on(Gate::NodeDeclaredFeatures) {
        return Vec::new();
    }
    ALL.into_iter().filter(|gate| gates.is_on(*gate)).map(|gate| gate.name().to_owned()).collect()
}
