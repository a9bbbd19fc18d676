//! Probes and hooks that go over the network.

pub(crate) mod location;
