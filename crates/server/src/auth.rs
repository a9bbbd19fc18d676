//! Who asks, and whether they may: certificates, tokens, anyone; then the API server's word on what they want.
//!
//! kubelet 1.36: a client certificate is looked at first, then a bearer token, then a token among the WebSocket
//! protocols. The first that is good says who asks. If none is good and one was bad, nobody is answered (401), also
//! where anyone may ask: `system:anonymous` are those who showed nothing.

mod access;
mod attributes;
mod by_api_server;
mod cache;
mod caller;
mod certificate;
mod review;
mod token;
mod tokens;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode};

use crate::respond::{self, Reply};

pub(crate) use access::Access;
pub use attributes::AccessQuestion;
pub use by_api_server::by_api_server;
pub use caller::Caller;
pub(crate) use certificate::{names, validity};
pub use review::{ReviewError, Reviewing, Reviews};
pub(crate) use tokens::Tokens;

/// How long answers of the API server are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTimes {
    /// `authentication.webhook.cacheTTL`, for tokens; 0: not at all.
    pub token: Duration,
    /// `authorization.webhook.cacheAuthorizedTTL`.
    pub allowed: Duration,
    /// `authorization.webhook.cacheUnauthorizedTTL`.
    pub refused: Duration,
}

impl Default for CacheTimes {
    /// kubelet 1.36: 2 min, 5 min, 30 s.
    fn default() -> Self {
        Self { token: Duration::from_secs(120), allowed: Duration::from_secs(300), refused: Duration::from_secs(30) }
    }
}

/// Lets in who may.
pub(crate) struct Gate {
    pub(crate) is_anonymous_allowed: bool,
    /// `None`: tokens say nothing.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) access: Access,
}

/// What a client's certificates said: nothing, who it is, or why they are bad.
pub(crate) type Certified = Result<Option<Arc<Caller>>, String>;

impl Gate {
    /// Who may go on. Takes the token out of the headers, so that it goes nowhere else.
    ///
    /// # Errors
    /// The answer: 401, 403, or 500 when the API server could not be asked what they may.
    pub(crate) async fn admit(
        &self,
        certified: Certified,
        method: &Method,
        path: &str,
        headers: &mut HeaderMap,
    ) -> Result<Arc<Caller>, Box<Response<Reply>>> {
        let Some(caller) = self.identify(certified, headers).await else {
            return Err(Box::new(respond::text(StatusCode::UNAUTHORIZED, "Unauthorized")));
        };
        self.access.check(&caller, method, path).await?;
        Ok(caller)
    }

    async fn identify(&self, certified: Certified, headers: &mut HeaderMap) -> Option<Arc<Caller>> {
        let mut is_bad = false;
        match certified {
            Ok(Some(caller)) => return Some(caller),
            Ok(None) => {}
            Err(why) => {
                tracing::debug!(err = %why, "A client certificate is not good");
                is_bad = true;
            }
        }
        if let Some(tokens) = &self.tokens {
            match tokens.identify(headers).await {
                Ok(Some(caller)) => return Some(caller),
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(err = %why, "A token is not good");
                    is_bad = true;
                }
            }
        }
        (self.is_anonymous_allowed && !is_bad).then(Caller::anonymous)
    }
}
