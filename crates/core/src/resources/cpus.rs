//! CPUs that containers have for themselves. kubelet 1.36: "CPU manager", its policy `static`.
//!
//! A container of a Guaranteed pod that asks for whole CPUs gets CPUs of its own; all others share the rest.

pub mod hints;
pub mod options;
pub mod pinned;
pub mod set;
pub mod state;
pub mod take;
pub mod topology;
pub mod wanted;

pub use options::Options;
pub use pinned::{Given, Static};
pub use set::CpuSet;
pub use state::State;
pub use topology::{Place, Topology};

/// The name of the resource.
pub const RESOURCE: &str = "cpu";

/// Whose CPUs they are: by pod and container.
pub type Assignments = std::collections::BTreeMap<rubelet_api::ids::PodUid, std::collections::BTreeMap<String, CpuSet>>;
