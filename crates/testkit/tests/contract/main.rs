//! The contract's scenarios on every runtime that there is: the one in memory, containerd 1 and 2.
//!
//! Those that take a machine of their own are played when `RUBELET_CONTRACT` names them (`./x test contract` does, in namespaces of
//! their own): a list of `containerd1`, `containerd2`, `embedded`, `runc`, `crun` (the embedded one with these; see `tests/embedded`); `RUBELET_CONTRACT_ONLY` picks scenarios
//! by a part of their names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod containerd;
mod fake;
mod machine;
mod report;
