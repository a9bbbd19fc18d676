//! What pods may use: requests and limits become shares, quotas and scores.
//!
//! Amounts are exact ([`amount::Amount`]) and rounded up once, where the kernel or the API wants a whole number.

pub mod allocatable;
pub mod amount;
pub mod cgroup;
pub mod claims;
pub mod container;
pub mod cpu;
pub mod cpus;
pub mod devices;
pub mod hugepages;
pub mod memory;
pub mod numa;
pub mod oom;
pub mod qos;
pub mod sum;
pub mod swap;

pub use container::{linux_resources, overhead_resources, sandbox_resources};
pub use cpu::{cpu_quota, cpu_shares};
pub use oom::oom_score_adj;

#[cfg(test)]
mod tests;
