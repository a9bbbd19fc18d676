//! What the agent arranges for itself on the host before and while it runs: limits, kernel tunables, the lock file,
//! the iptables chains that other programs look for, and the word to systemd.

pub mod iptables;
pub mod kernel;
pub mod limits;
pub mod lock;
pub mod notify;
pub mod swap;
