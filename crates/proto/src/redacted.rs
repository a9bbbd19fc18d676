//! `Debug` of messages that carry secrets.

use std::fmt;

use crate::cri::AuthConfig;
use crate::csi::{NodeExpandVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest};

impl fmt::Debug for AuthConfig {
    /// Shows whom and where, never a password or a token.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// Without secrets, and without the context, which may hold tokens.
impl fmt::Debug for NodeStageVolumeRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume_id, staging_target_path, volume_capability, .. } = self;
        out.debug_struct("NodeStageVolumeRequest")
            .field("volume_id", volume_id)
            .field("staging_target_path", staging_target_path)
            .field("volume_capability", volume_capability)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NodePublishVolumeRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume_id, staging_target_path, target_path, volume_capability, readonly, .. } = self;
        out.debug_struct("NodePublishVolumeRequest")
            .field("volume_id", volume_id)
            .field("staging_target_path", staging_target_path)
            .field("target_path", target_path)
            .field("volume_capability", volume_capability)
            .field("readonly", readonly)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NodeExpandVolumeRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume_id, volume_path, capacity_range, .. } = self;
        out.debug_struct("NodeExpandVolumeRequest")
            .field("volume_id", volume_id)
            .field("volume_path", volume_path)
            .field("capacity_range", capacity_range)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let auth = AuthConfig {
            username: "ada".into(),
            password: "hidden-1".into(),
            auth: "hidden-2".into(),
            server_address: "registry.example".into(),
            identity_token: "hidden-3".into(),
            registry_token: "hidden-4".into(),
        };
        let shown = format!("{auth:?}");
        assert!(shown.contains("ada") && shown.contains("registry.example"), "{shown}");
        assert!(!shown.contains("hidden"), "{shown}");
        let secrets: std::collections::BTreeMap<String, String> = [("k".to_owned(), "hidden-5".to_owned())].into();
        let (volume_id, volume_context) = ("vol-1".to_owned(), secrets.clone());
        let stage = NodeStageVolumeRequest { volume_id, secrets, volume_context, ..NodeStageVolumeRequest::default() };
        let publish = NodePublishVolumeRequest {
            secrets: stage.secrets.clone(),
            volume_context: stage.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        let expand = NodeExpandVolumeRequest { secrets: stage.secrets.clone(), ..NodeExpandVolumeRequest::default() };
        let shown = format!("{stage:?} {publish:?} {expand:?}");
        assert!(shown.contains("vol-1") && !shown.contains("hidden"), "{shown}");
    }
}
