//! Doors for `fuzz`: what strangers write, read by what reads it. Nothing else uses them.

use std::path::Path;

use crate::digest::Digest;
use crate::image::document::{Config, Document, Platform, choose};
use crate::image::hosts::HostsConfig;

/// An image's manifest, index or configuration.
pub fn document(bytes: &[u8]) {
    let Ok(digest) = format!("sha256:{}", "0".repeat(64)).parse::<Digest>() else { return };
    if let Ok(Document::Index(manifests)) = Document::parse(bytes, digest, "") {
        let _ = choose(&manifests, &Platform::of_this_machine());
    }
    if let Ok(config) = Config::parse(bytes, digest) {
        let _ = config.check(1, &Platform::of_this_machine());
    }
}

/// The `hosts.toml` of the registry `registry.test` below `dir`.
pub fn hosts(dir: &Path) {
    let config = HostsConfig { dirs: vec![dir.to_owned()], ..HostsConfig::default() };
    let _ = config.of("registry.test");
}
