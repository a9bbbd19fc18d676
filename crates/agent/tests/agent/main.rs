//! Whole stories of an agent on a runtime in memory, in virtual time.

mod adoption;
mod broken;
mod cgroups;
mod cluster;
mod containerd;
mod drivers;
mod edits;
mod ground;
mod hung;
mod logind;
mod manifests;
mod objects;
mod preemption;
mod pressure;
mod resizes;
mod roster;
mod shutdown;
mod speed;
mod told;
mod world;
