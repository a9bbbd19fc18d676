//! Proof for a registry that asks who we are: a header with the password, or a token from the place that it names.

use std::sync::PoisonError;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use serde::Deserialize;

use super::super::auth::{Challenge, Credential, encoded};
use super::super::hosts::{Host, Tls};
use super::super::wire::Ask;
use super::{AGENT, Registry, RegistryError, challenges};

/// Bytes of a token server's answer at most.
const TOKEN_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// Gets what the host asks for in its refusal, for the requests that follow. `false`: it asks for nothing that we know.
    pub(super) async fn prove(&self, host: &Host, refusal: &HeaderMap) -> Result<bool, RegistryError> {
        let mut asked_for_password = false;
        for challenge in challenges(refusal) {
            let proof = match challenge {
                Challenge::Basic => {
                    asked_for_password = true;
                    self.credential.basic()
                }
                Challenge::Bearer { realm, service, scope, .. } => {
                    let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.path()));
                    Some(format!("Bearer {}", self.token(host, &realm, service.as_deref(), &scope).await?))
                }
            };
            if let Some(proof) = proof {
                self.proofs.lock().unwrap_or_else(PoisonError::into_inner).insert(host.origin(), proof);
                return Ok(true);
            }
        }
        if asked_for_password {
            return Err(RegistryError::Denied { why: "authorization failed: no basic auth credentials".to_owned() });
        }
        Ok(false)
    }

    async fn token(
        &self,
        host: &Host,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, RegistryError> {
        let kind = match &self.credential {
            Credential::Registry { token } => return Ok(token.clone()),
            Credential::Anonymous => "anonymous",
            Credential::Password { .. } | Credential::Identity { .. } => "oauth",
        };
        let failed = |why: String| RegistryError::Authorize { why: format!("failed to fetch {kind} token: {why}") };
        let ask = self.token_ask(host, realm, service, scope).map_err(failed)?;
        let (method, url) = (ask.method.clone(), ask.url.clone());
        let mut failures = 0;
        let response = loop {
            match self.wire.send(ask.clone()).await {
                Ok(response) if super::is_busy(response.status()) && failures + 1 < self.retry.attempts => {}
                Ok(response) => break response,
                Err(e) if !e.is_passing || failures + 1 >= self.retry.attempts => return Err(failed(e.to_string())),
                Err(_) => {}
            }
            failures += 1;
            self.retry.pause(failures).await;
        };
        let status = response.status();
        if !status.is_success() {
            return Err(failed(format!("unexpected status from {method} request to {url}: {status}")));
        }
        let body = self.wire.whole(response.into_body(), TOKEN_MAX).await.map_err(failed)?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|e| failed(format!("unable to decode token response: {e}")))?;
        let token = token.token.or(token.access_token).filter(|t| !t.is_empty());
        token.ok_or_else(|| failed("authorization server did not include a token in the response".to_owned()))
    }

    /// The request for a token: with the password in a header, or with the refresh token in a form.
    fn token_ask(&self, host: &Host, realm: &str, service: Option<&str>, scope: &str) -> Result<Ask, String> {
        let address: Uri = realm.parse().map_err(|_| format!("{realm:?} is no address"))?;
        let has_secret = self.credential != Credential::Anonymous;
        if has_secret && host.is_https && address.scheme_str() != Some("https") {
            return Err(format!("{realm} is no https address, and the credential goes nowhere else"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let mut fields = Vec::new();
        fields.extend(service.map(|s| ("service", s)));
        let pairs = |fields: &[(&str, &str)]| -> String {
            fields.iter().map(|(k, v)| format!("{k}={}", encoded(v))).collect::<Vec<_>>().join("&")
        };
        // The token server is another host as a rule: what the registry's host gets besides (headers, certificate) stays here.
        let is_same = address.authority().is_some_and(|a| a.as_str() == host.authority);
        let client = host.tls.client.clone().filter(|_| is_same);
        let tls = Tls { client, ..host.tls.clone() };
        if let Credential::Identity { token } = &self.credential {
            fields.extend([("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "rubelet")]);
            fields.push(("scope", scope));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            let body = Bytes::from(pairs(&fields));
            return Ok(Ask { method: Method::POST, url: address, headers, body, tls });
        }
        if let Some(mut value) = self.credential.basic().and_then(|p| HeaderValue::try_from(p).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        fields.extend(scope.split(' ').filter(|s| !s.is_empty()).map(|s| ("scope", s)));
        let joint = if address.query().is_some() { "&" } else { "?" };
        let url: Uri =
            format!("{address}{joint}{}", pairs(&fields)).parse().map_err(|_| format!("{realm:?} is no address"))?;
        Ok(Ask { method: Method::GET, url, headers, body: Bytes::new(), tls })
    }
}
