//! Words out of a list, and paths.

use super::Rules;
use crate::config::draft::clean;
use crate::gates::Gate;
use crate::quote::quoted;

/// Hairpins, and proofs for images.
pub(super) fn modes(rules: &mut Rules<'_>) {
    let mode = &rules.config.network.hairpin_mode;
    if !["none", "hairpin-veth", "promiscuous-bridge"].contains(&mode.as_str()) {
        let words = format!(
            r#"option {} specified for hairpinMode (--hairpin-mode). Valid options are "none", "hairpin-veth" or "promiscuous-bridge""#,
            quoted(mode)
        );
        rules.invalid("hairpinMode", words);
    }
    proofs(rules);
}

fn proofs(rules: &mut Rules<'_>) {
    const FIELD: &str = "imagePullCredentialsVerificationPolicy";
    const LIST: &str = "preloadedImagesVerificationAllowlist";
    let policy = &rules.config.images.pull_credentials_verification_policy;
    let list = &rules.config.images.preloaded_verification_allowlist;
    if !rules.gates.is_on(Gate::KubeletEnsureSecretPulledImages) {
        let off = "must not be set if KubeletEnsureSecretPulledImages feature gate is not enabled";
        if !policy.is_empty() {
            rules.invalid(FIELD, format!("`{FIELD}` {off}"));
        }
        if !list.is_empty() {
            rules.invalid(LIST, format!("`{LIST}` {off}"));
        }
        return;
    }
    let valid = ["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"];
    if !valid.contains(&policy.as_str()) {
        let words = format!(
            r#"option {} specified for {FIELD}. Valid options are "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages" or "AlwaysVerify""#,
            quoted(policy)
        );
        rules.invalid(FIELD, words);
    }
    if !list.is_empty() && policy != "NeverVerifyAllowlistedImages" {
        // The letters of the second name are upstream's.
        let words = format!(
            r#"can't set `{LIST}` if `imagePullCredentialsVertificationPolicy` is not "NeverVerifyAllowlistedImages""#
        );
        rules.invalid(LIST, words);
    } else if let Some(error) = list.iter().find_map(|pattern| image_pattern(pattern).err()) {
        rules.invalid(LIST, format!("invalid image pattern in `{LIST}`: {error}"));
    }
}

/// Whether this is an image without tag, or the beginning of images and `/*`.
fn image_pattern(pattern: &str) -> Result<(), String> {
    if pattern != pattern.trim() {
        return Err(format!("leading/trailing spaces are not allowed: {pattern}"));
    }
    let start = pattern.strip_suffix("/*");
    let fixed = start.unwrap_or(pattern);
    if pattern.is_empty() {
        return Err(format!("the supplied pattern is too short: {pattern}"));
    }
    if fixed.contains('*') {
        return Err(format!("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"));
    }
    if start == Some("") {
        return Err("at least registry hostname is required".to_owned());
    }
    let name = fixed.rsplit('/').next().unwrap_or(fixed);
    if start.is_none() && (name.contains(':') || fixed.contains('@')) {
        return Err(format!("neither tag nor digest is accepted in an image reference: {pattern}"));
    }
    Ok(())
}

/// Policy of memory reservations.
pub(super) fn memory_reservation(rules: &mut Rules<'_>) {
    const FIELD: &str = "memoryReservationPolicy";
    let policy = &rules.config.resources.memory_reservation_policy;
    let said = quoted(policy);
    match policy.as_str() {
        "None" => {}
        "TieredReservation" => {
            if !rules.gates.is_on(Gate::MemoryQoS) {
                rules.invalid(FIELD, format!("{FIELD} {said} requires MemoryQoS feature gate to be enabled"));
            }
        }
        _ => {
            let words =
                format!(r#"option {said} specified for {FIELD}. Valid options are "None" or "TieredReservation""#);
            rules.invalid(FIELD, words);
        }
    }
}

/// The directory of the containers' logs.
pub(super) fn logs_dir(rules: &mut Rules<'_>) {
    const FIELD: &str = "podLogsDir";
    let path = &rules.config.pods.logs_dir;
    let said = quoted(path);
    if path.is_empty() {
        rules.invalid(FIELD, "podLogsDir was not specified");
    }
    if !path.starts_with('/') {
        rules.invalid(FIELD, format!("pod logs path {said} must be absolute path"));
    }
    if clean(path) != *path {
        rules.invalid(FIELD, format!("pod logs path {said} must be normalized"));
    }
    if !path.is_ascii() {
        // The letters are upstream's.
        rules.invalid(FIELD, format!("pod logs path {said} mut contains ASCII characters only"));
    }
}
