//! One registry for one pull: its hosts, our credential, and the tokens given for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use http::header::{RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::auth::{Challenge, Credential};
use super::document::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, DocumentError, MANIFEST_MAX, OCI_INDEX, OCI_MANIFEST, bounded,
};
use super::hosts::{Capability, Host};
use super::reference::{Reference, Which};
use super::wire::{Ask, Wire, WireError};
use crate::digest::Digest;

mod token;

const AGENT: &str = concat!("rubelet/", env!("CARGO_PKG_VERSION"));
/// As long as a server may make us wait that answers "too many requests".
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How often to try again what may go better.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts in a row without any progress.
    pub attempts: u32,
    /// Before the second attempt; doubled for each further one.
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(200) }
    }
}

impl Retry {
    pub(crate) async fn pause(&self, failures: u32) {
        tokio::time::sleep(self.pause * 2u32.saturating_pow(failures.saturating_sub(1)).min(64)).await;
    }
}

/// Why a registry did not give what was asked for, in containerd's words.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{what}: not found")]
    NotFound { what: String },
    #[error("pull access denied, repository does not exist or may require authorization: {why}")]
    Denied { why: String },
    #[error("failed to authorize: {why}")]
    Authorize { why: String },
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("unexpected status from {method} request to {url}: {status}")]
    Status { method: Method, url: String, status: StatusCode },
    #[error("read {url}: {reason}")]
    Body { url: String, reason: String, is_passing: bool },
    #[error("the answer of {url} has the digest {actual}, expected {expected}")]
    Digest { url: String, expected: Digest, actual: Digest },
    #[error("{0}")]
    TooLarge(String),
    #[error("{url} is no address")]
    Url { url: String },
}

impl RegistryError {
    /// Whether it may go better the next time.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.is_passing,
            Self::Status { status, .. } => is_busy(*status),
            Self::Body { is_passing, .. } => *is_passing,
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Authorize { .. }
            | Self::Digest { .. }
            | Self::TooLarge(_)
            | Self::Url { .. } => false,
        }
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// The repository of a reference.
pub(crate) struct Registry {
    pub(crate) wire: Wire,
    pub(crate) hosts: Vec<Host>,
    pub(crate) reference: Reference,
    credential: Credential,
    retry: Retry,
    /// The `Authorization` that each host wanted, for this pull only.
    proofs: Mutex<HashMap<String, String>>,
}

/// A blob under way.
pub(crate) struct Stream {
    pub(crate) body: Incoming,
    /// Where in the blob the body begins.
    pub(crate) offset: u64,
    pub(crate) url: String,
}

impl Registry {
    pub(crate) fn new(
        wire: Wire,
        hosts: Vec<Host>,
        reference: Reference,
        credential: Credential,
        retry: Retry,
    ) -> Self {
        Self { wire, hosts, reference, credential, retry, proofs: Mutex::default() }
    }

    /// What the reference's tag (or digest) stands for now.
    pub(crate) async fn resolve(&self) -> Result<Descriptor, RegistryError> {
        let (which, capability) = match self.reference.which() {
            Which::Tag(tag) => (tag.clone(), Capability::Resolve),
            Which::Digest(digest) => (digest.to_string(), Capability::Pull),
        };
        let mut first = None;
        for host in self.hosts.iter().filter(|h| h.can(capability)) {
            match self.resolve_at(host, &which).await {
                Ok(found) => return Ok(found),
                Err(RegistryError::NotFound { .. }) => {}
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| RegistryError::NotFound { what: self.reference.to_string() }))
    }

    async fn resolve_at(&self, host: &Host, which: &str) -> Result<Descriptor, RegistryError> {
        let response = self.ask(host, Method::HEAD, &format!("manifests/{which}"), &HeaderMap::new()).await?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let said = header("docker-content-digest").and_then(|d| d.parse().ok());
        let size = header("content-length").and_then(|n| n.parse().ok());
        let digest = match self.reference.which() {
            Which::Digest(digest) => Some(*digest),
            Which::Tag(_) => said,
        };
        if let (Some(digest), Some(size)) = (digest, size) {
            return Ok(descriptor(digest, size, media_type(response.headers())));
        }
        // A registry that does not say: the manifest itself tells.
        let (bytes, media_type) = self.small(host, &format!("manifests/{which}"), MANIFEST_MAX).await?;
        let digest = digest.unwrap_or_else(|| Digest::of(&bytes));
        Ok(descriptor(digest, bytes.len() as u64, media_type))
    }

    /// The manifest or index that `wanted` points to, and its media type.
    pub(crate) async fn manifest(&self, wanted: &Descriptor) -> Result<(Vec<u8>, String), RegistryError> {
        self.verified(&format!("manifests/{}", wanted.digest), wanted, MANIFEST_MAX).await
    }

    /// A small blob.
    pub(crate) async fn small_blob(&self, wanted: &Descriptor, max: u64) -> Result<Vec<u8>, RegistryError> {
        Ok(self.verified(&format!("blobs/{}", wanted.digest), wanted, max).await?.0)
    }

    async fn verified(&self, path: &str, wanted: &Descriptor, max: u64) -> Result<(Vec<u8>, String), RegistryError> {
        bounded("content", wanted, max).map_err(|e: DocumentError| RegistryError::TooLarge(e.to_string()))?;
        let mut first = None;
        for host in self.hosts.iter().filter(|h| h.can(Capability::Pull)) {
            let outcome = self.small(host, path, max).await.and_then(|(bytes, media_type)| {
                let actual = Digest::of(&bytes);
                if actual == wanted.digest {
                    return Ok((bytes, media_type));
                }
                Err(RegistryError::Digest { url: self.url(host, path), expected: wanted.digest, actual })
            });
            match outcome {
                Ok(found) => return Ok(found),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| self.nowhere(path)))
    }

    async fn small(&self, host: &Host, path: &str, max: u64) -> Result<(Vec<u8>, String), RegistryError> {
        let mut failures = 0;
        loop {
            let response = self.ask(host, Method::GET, path, &HeaderMap::new()).await?;
            let media_type = media_type(response.headers());
            match self.wire.whole(response.into_body(), max).await {
                Ok(bytes) => return Ok((bytes, media_type)),
                Err(reason) => {
                    failures += 1;
                    let is_too_large = reason.starts_with("the answer has more than");
                    if is_too_large || failures >= self.retry.attempts {
                        return Err(RegistryError::Body { url: self.url(host, path), reason, is_passing: false });
                    }
                    self.retry.pause(failures).await;
                }
            }
        }
    }

    /// A blob from `offset` on, or from an earlier place if the server does not do parts.
    pub(crate) async fn blob(&self, digest: Digest, offset: u64) -> Result<Stream, RegistryError> {
        let path = format!("blobs/{digest}");
        let mut first = None;
        for host in self.hosts.iter().filter(|h| h.can(Capability::Pull)) {
            match self.blob_at(host, &path, offset).await {
                Ok(stream) => return Ok(stream),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| self.nowhere(&path)))
    }

    async fn blob_at(&self, host: &Host, path: &str, offset: u64) -> Result<Stream, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let response = match self.ask(host, Method::GET, path, &headers).await {
            // The part does not exist there: then all of it.
            Err(RegistryError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => {
                self.ask(host, Method::GET, path, &HeaderMap::new()).await?
            }
            other => other?,
        };
        let url = self.url(host, path);
        let begins = match response.status() {
            StatusCode::PARTIAL_CONTENT => begin(response.headers()),
            _ => Some(0),
        };
        match begins {
            Some(begins) if begins <= offset => Ok(Stream { body: response.into_body(), offset: begins, url }),
            Some(_) | None => {
                let reason = "the server gave another part than the one asked for".to_owned();
                Err(RegistryError::Body { url, reason, is_passing: false })
            }
        }
    }

    fn nowhere(&self, path: &str) -> RegistryError {
        RegistryError::NotFound { what: format!("{}/{path}: no pull hosts", self.reference.name()) }
    }

    fn url(&self, host: &Host, path: &str) -> String {
        let about = if host.is_mirror { format!("?ns={}", self.reference.domain()) } else { String::new() };
        format!("{}{}/{}/{path}{about}", host.origin(), host.path, self.reference.path())
    }

    /// Asks a host: again if it is busy or the line broke, and with proof of who we are if it wants one.
    async fn ask(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        more: &HeaderMap,
    ) -> Result<Response<Incoming>, RegistryError> {
        let url = self.url(host, path);
        let address: Uri = url.parse().map_err(|_| RegistryError::Url { url: url.clone() })?;
        let mut failures = 0;
        let mut refusals = 0;
        loop {
            let mut headers = headers(host, path);
            headers.extend(more.clone());
            let proof = self.proofs.lock().unwrap_or_else(PoisonError::into_inner).get(&host.origin()).cloned();
            if let Some(mut value) = proof.and_then(|p| HeaderValue::try_from(p).ok()) {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            let (method, tls) = (method.clone(), host.tls.clone());
            let ask = Ask { method: method.clone(), url: address.clone(), headers, body: Bytes::new(), tls };
            let response = match self.wire.send(ask).await {
                Ok(response) => response,
                Err(e) => {
                    failures += 1;
                    if !e.is_passing || failures >= self.retry.attempts {
                        return Err(e.into());
                    }
                    self.retry.pause(failures).await;
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && refusals == 0 {
                refusals += 1;
                if self.prove(host, response.headers()).await? {
                    continue;
                }
            } else if status == StatusCode::UNAUTHORIZED
                && let Some(Challenge::Bearer { error: Some(error), .. }) = challenges(response.headers()).first()
            {
                return Err(RegistryError::Denied { why: format!("server message: {error}: authorization failed") });
            }
            failures += 1;
            if !is_busy(status) || failures >= self.retry.attempts {
                return Err(match status {
                    StatusCode::NOT_FOUND => RegistryError::NotFound { what: format!("content at {url} not found") },
                    status => RegistryError::Status { method, url, status },
                });
            }
            match retry_after(response.headers()) {
                Some(wait) => tokio::time::sleep(wait.min(RETRY_AFTER_MAX)).await,
                None => self.retry.pause(failures).await,
            }
        }
    }
}

fn headers(host: &Host, path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if path.starts_with("manifests/") {
        let accepted = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"].join(", ");
        // Only letters that a header may have.
        if let Ok(accepted) = HeaderValue::try_from(accepted) {
            headers.insert(ACCEPT, accepted);
        }
    }
    for (name, value) in &host.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).flat_map(Challenge::parse).collect()
}

fn descriptor(digest: Digest, size: u64, media_type: String) -> Descriptor {
    Descriptor { media_type, digest, size, platform: None, annotations: std::collections::BTreeMap::new() }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// First byte of `Content-Range: bytes FIRST-LAST/ALL`.
fn begin(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// `Retry-After` in seconds; the form with a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
