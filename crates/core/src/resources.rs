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

/// Why a pod cannot have what its containers want for themselves. kubelet 1.36: the reasons and words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    /// kubelet 1.36: what has no reason of its own.
    #[must_use]
    pub fn unexpected(why: &str) -> Self {
        Self { reason: devices::UNEXPECTED, message: devices::unexpected(why) }
    }
}

pub use container::{linux_resources, overhead_resources, sandbox_resources};
pub use cpu::{cpu_quota, cpu_shares};
pub use oom::oom_score_adj;

#[cfg(test)]
mod tests;
