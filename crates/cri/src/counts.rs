//! Calls to the runtime, counted.

use std::time::Duration;

use rubelet_api::counted;
use rubelet_api::metrics::{Counter, Family, Histogram, Labelled, Stability};

/// kubelet 1.36: fourteen from 5 ms on, each 2.5 times the one before.
const SECONDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];

counted! {
    /// What the runtime was asked, how long it took, and how often it failed.
    pub struct RuntimeCounts {
        calls: Labelled<Counter> = Family::counter("kubelet_runtime_operations_total", Stability::Alpha, "Calls to the container runtime", &["operation_type"]);
        took: Labelled<Histogram> = Family::histogram("kubelet_runtime_operations_duration_seconds", Stability::Alpha, "How long calls to the container runtime took, in seconds", &["operation_type"], SECONDS);
        errors: Labelled<Counter> = Family::counter("kubelet_runtime_operations_errors_total", Stability::Alpha, "Calls to the container runtime that failed", &["operation_type"]);
    }
}

impl RuntimeCounts {
    /// A call begins.
    pub(crate) fn begins(&self, operation: &'static str) {
        self.calls.of(&[operation]).add_one();
    }

    /// It ended.
    pub(crate) fn ended(&self, operation: &'static str, took: Duration, is_ok: bool) {
        self.took.of(&[operation]).took(took);
        if !is_ok {
            self.errors.of(&[operation]).add_one();
        }
    }
}
