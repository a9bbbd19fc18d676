//! The network on the real kernel.

mod bridge;
mod firewalls;
mod kills;
mod plugins;
mod speed;
mod world;
