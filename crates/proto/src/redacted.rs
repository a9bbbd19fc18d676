//! `Debug` of messages that carry secrets.

use std::fmt;

use crate::cri::AuthConfig;

impl fmt::Debug for AuthConfig {
    /// Shows whom and where, never a password or a token.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
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
    }
}
