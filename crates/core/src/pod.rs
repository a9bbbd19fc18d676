//! One pod: what we know of it (`PodRecord`), how that changes (`absorb`), what follows (`decide`).

pub mod fact;
pub mod observed;
pub mod step;
pub mod volumes;

pub use fact::{Fact, Order, Outcome, Source, StepFailure};
pub use observed::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
pub use step::{Step, StepKey};
