//! The one who asks.

use std::collections::BTreeMap;
use std::sync::Arc;

const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Someone who is known, in the words of the API server's `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    /// Empty: none.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// Who showed nothing, where anyone may ask.
    pub(super) fn anonymous() -> Arc<Self> {
        Arc::new(Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() })
    }

    /// kubelet 1.36: whoever has shown who they are is in `system:authenticated`, unless they are said to be one of the
    /// two kinds already.
    pub(crate) fn authenticated(mut self) -> Arc<Self> {
        let is_said = self.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if self.name != ANONYMOUS && !is_said {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        Arc::new(self)
    }
}
