//! One pod: what we know of it (`PodRecord`), how that changes (`absorb`), what follows (`decide`).

mod absorb;
mod backoff;
pub mod certificate;
mod container;
mod decide;
mod event;
pub mod fact;
mod kill;
mod look;
pub mod mirror;
pub mod needs;
pub mod observed;
mod probe;
mod record;
pub mod report;
mod resize;
mod restart;
mod restart_all;
mod review;
pub mod services;
mod spec;
mod stage;
mod status;
pub mod step;
mod steps;
#[cfg(test)]
mod tests;
pub mod volumes;

pub use absorb::CANCELLED;
pub use decide::PodPlan;
pub use event::PodEvent;
pub use fact::{EvictOrder, Fact, Order, Outcome, Source, StepFailure};
pub use needs::{Got, Inputs, Need, Needs};
pub use observed::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
pub use record::PodRecord;
pub use resize::{ResizeVerdict, granted};
pub use stage::{Cleaning, Stage, Standing, StopCause, Stopping};
pub use step::{Step, StepKey};
