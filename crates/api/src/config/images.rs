//! Pulling and removing images.

use super::field::section;
use crate::duration::Duration;

section! {
    /// Pulling and removing images.
    Images as "KubeletConfiguration" {
        /// Most pulls per second; 0: no limit.
        "registryPullQPS" registry_pull_qps: pointer i32 = 5;
        /// Pulls at once beyond that.
        "registryBurst" registry_burst: plain i32 = 10;
        /// Whether a pod must prove that it may use an image that is here: `NeverVerify`,
        /// `NeverVerifyPreloadedImages`, `NeverVerifyAllowlistedImages`, `AlwaysVerify`; empty with its gate off.
        "imagePullCredentialsVerificationPolicy" pull_credentials_verification_policy: plain String;
        /// Images that need no proof.
        "preloadedImagesVerificationAllowlist" preloaded_verification_allowlist: plain Vec<String>;
        /// Younger unused images stay.
        "imageMinimumGCAge" minimum_gc_age: plain Duration = "2m0s";
        /// Images unused for longer go; zero: never for that reason.
        "imageMaximumGCAge" maximum_gc_age: plain Duration;
        /// Percent of the disk in use at which images are removed.
        "imageGCHighThresholdPercent" gc_high_threshold_percent: pointer i32 = 85;
        /// Percent down to which they are removed.
        "imageGCLowThresholdPercent" gc_low_threshold_percent: pointer i32 = 80;
        /// Whether pulls wait for each other.
        "serializeImagePulls" serialize_pulls: pointer bool;
        /// Most pulls at the same time; none: no limit.
        "maxParallelImagePulls" max_parallel_pulls: pointer Option<i32>;
        /// Most images in the node's status; -1: all.
        "nodeStatusMaxImages" node_status_max: pointer i32 = 50;
    }
}
