//! Calls to drivers, counted.

use std::time::Duration;

use rubelet_api::counted;
use rubelet_api::metrics::{Family, Histogram, Labelled, Stability};

/// kubelet 1.36: how long storage takes.
const SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

counted! {
    /// What drivers were asked, and how long it took.
    pub struct CsiCounts {
        took: Labelled<Histogram> = Family::histogram("csi_operations_seconds", Stability::Alpha, "How long calls to CSI drivers took, in seconds, by the code of the answer", &["driver_name", "grpc_status_code", "method_name", "migrated"], SECONDS);
    }
}

impl CsiCounts {
    /// A call ended.
    pub(crate) fn called(&self, driver: &str, path: &str, code: &str, took: Duration) {
        // Volumes of kinds that drivers have taken over come as the drivers' own.
        self.took.of(&[driver, code, path, "false"]).took(took);
    }
}
