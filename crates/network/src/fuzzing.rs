//! Doors for `fuzz`: what strangers write, read by what reads it. Nothing else uses them.

use std::path::Path;

use crate::cni;

/// A network's configuration, and the result of a plugin.
pub fn cni(bytes: &[u8]) {
    if let Ok(list) = cni::list::List::parse(bytes, Path::new("10-fuzz.conflist"), None) {
        let _ = (list.document(), list.may_check(), list.may_ask_status(), list.may_collect());
    }
    if let Ok(result) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let _ = cni::addresses(Some(&result));
    }
}
