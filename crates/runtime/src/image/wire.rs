//! HTTP for one pull: its connections and nothing of anybody else's.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, LOCATION, RANGE, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;

use super::dial::{Dial, DialError, Proxy};
use super::hosts::Tls;
use super::tls;

const REDIRECTS_MAX: usize = 10;

/// How long to wait for a silent server.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the answer's head, and for each further piece of its body.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), silence: Duration::from_secs(60) }
    }
}

/// Why a request has no answer, in Go's words as containerd shows them: `failed to do request: Head "URL": REASON`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to do request: {verb} {url:?}: {reason}")]
pub struct WireError {
    verb: String,
    url: String,
    reason: String,
    /// Whether it may go better the next time.
    pub(crate) is_passing: bool,
}

type Client = legacy::Client<HttpsConnector<Dial>, Full<Bytes>>;

/// The connections of one pull.
pub(crate) struct Wire {
    patience: Patience,
    proxy: Proxy,
    /// By how the host proves who it is; without TLS there is nothing to prove.
    clients: Mutex<HashMap<Option<Tls>, Client>>,
}

/// What to ask.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) tls: Tls,
}

impl Ask {
    fn failed(&self, reason: impl Into<String>, is_passing: bool) -> WireError {
        let name = self.method.as_str();
        let verb = format!("{}{}", &name[..1], name[1..].to_lowercase());
        WireError { verb, url: self.url.to_string(), reason: reason.into(), is_passing }
    }
}

impl Wire {
    pub(crate) fn new(patience: Patience, proxy: Proxy) -> Self {
        Self { patience, proxy, clients: Mutex::default() }
    }

    /// Asks, and follows redirects. What proves who we are goes to the first host only, and nothing that began with TLS
    /// goes on without.
    pub(crate) async fn send(&self, mut ask: Ask) -> Result<Response<Incoming>, WireError> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send_once(&ask).await?;
            let place = match response.headers().get(LOCATION) {
                Some(place) if is_redirect(response.status()) => place,
                Some(_) | None => return Ok(response),
            };
            let text = String::from_utf8_lossy(place.as_bytes()).into_owned();
            let next = join(&ask.url, &text)
                .ok_or_else(|| ask.failed(format!("failed to parse Location header {text:?}"), false))?;
            if ask.url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(ask.failed(format!("redirected from https to {next}, which is refused"), false));
            }
            if origin(&next) != origin(&ask.url) {
                ask.headers = public(&ask.headers);
                ask.tls.client = None;
            }
            ask.url = next;
        }
        Err(ask.failed(format!("stopped after {REDIRECTS_MAX} redirects"), false))
    }

    async fn send_once(&self, ask: &Ask) -> Result<Response<Incoming>, WireError> {
        let client = self
            .client(Some(&ask.tls).filter(|_| ask.url.scheme_str() == Some("https")))
            .await
            .map_err(|e| ask.failed(e, false))?;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.url.clone();
        *request.headers_mut() = ask.headers.clone();
        match tokio::time::timeout(self.patience.connect + self.patience.silence, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                let (reason, is_passing) = reason(&e);
                Err(ask.failed(reason, is_passing))
            }
            Err(_) => Err(ask.failed("net/http: timeout awaiting response headers", true)),
        }
    }

    async fn client(&self, tls: Option<&Tls>) -> Result<Client, String> {
        let known = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&tls.cloned()).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let wish = tls.cloned();
        let config = rubelet_host::task::blocking(move || tls::config(wish.as_ref()));
        let config = config.await.map_err(|e| e.to_string())??;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Dial::new(self.patience.connect, &self.proxy));
        let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(tls.cloned(), client.clone());
        Ok(client)
    }

    /// The next piece of a body; `None` at its end.
    pub(crate) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, String> {
        loop {
            match tokio::time::timeout(self.patience.silence, body.frame()).await {
                Err(_) => return Err("timeout while reading the body".to_owned()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(e))) if e.is_incomplete_message() => return Err("unexpected EOF".to_owned()),
                Ok(Some(Err(e))) => return Err(reason(&e).0),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// A whole body of at most `max` bytes.
    pub(crate) async fn whole(&self, mut body: Incoming, max: u64) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if (all.len() + piece.len()) as u64 > max {
                return Err(format!("the answer has more than {max} bytes"));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// The headers that another host may see.
fn public(headers: &HeaderMap) -> HeaderMap {
    let public = [ACCEPT, RANGE, USER_AGENT];
    headers.iter().filter(|(k, _)| public.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Scheme, host and port.
pub(super) fn origin(uri: &Uri) -> (Option<&str>, Option<&str>, u16) {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    (uri.scheme_str(), uri.host(), port)
}

/// Where a `Location` leads from `base`.
fn join(base: &Uri, place: &str) -> Option<Uri> {
    let place = place.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = if place.starts_with("http://") || place.starts_with("https://") {
        place.to_owned()
    } else if place.starts_with("//") {
        format!("{scheme}:{place}")
    } else if place.starts_with('/') {
        format!("{scheme}://{authority}{place}")
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{place}")
    };
    absolute.parse().ok()
}

/// Go's words for a failure, and whether it may pass.
fn reason(error: &(dyn Error + 'static)) -> (String, bool) {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return (dial.reason.clone(), dial.is_passing);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return (tls::reason(tls), false);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.get_ref() {
                Some(inner) => return reason_of_boxed(inner, io),
                None => return (system(io), true),
            }
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_canceled())
        {
            return ("EOF".to_owned(), true);
        }
        next = error.source();
    }
    (rubelet_host::chain(error), true)
}

fn reason_of_boxed(inner: &(dyn Error + Send + Sync + 'static), outer: &io::Error) -> (String, bool) {
    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
        return (tls::reason(tls), false);
    }
    match inner.downcast_ref::<io::Error>() {
        Some(io) => reason(io),
        None => (system(outer), true),
    }
}

/// The system's text without its number, beginning with a small letter.
pub(super) fn system(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return "unexpected EOF".to_owned();
    }
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    if text.contains("failed to lookup address") {
        return "no such host".to_owned();
    }
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_redirects() {
        let base: Uri = "https://a.test:5000/v2/x/blobs/1?q=1".parse().unwrap();
        for (place, expected) in [
            ("https://cdn.test/b?sig=1#f", "https://cdn.test/b?sig=1"),
            ("//cdn.test/b", "https://cdn.test/b"),
            ("/b", "https://a.test:5000/b"),
            ("b", "https://a.test:5000/v2/x/blobs/b"),
        ] {
            assert_eq!(join(&base, place).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_another_host_may_see() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "secret"), ("x-key", "secret"), ("accept", "a"), ("range", "bytes=1-")]
        {
            headers.insert(name, value.parse().unwrap());
        }
        let mut names: Vec<String> = public(&headers).keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["accept", "range"]);
    }
}
