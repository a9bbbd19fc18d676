//! One GET on a connection of its own, with upstream's rules for redirects, headers and bodies.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::tls::{Seen, Tap};
use super::{dial, location, tls};

/// kubelet 1.36: no more of a body is read.
const BODY_MAX: usize = 10 * 1024;
/// Bytes of a response's head.
const HEAD_MAX: usize = 256 * 1024;
const REDIRECTS_MAX: usize = 10;

/// What to ask for.
#[derive(Clone, Copy)]
pub(super) struct Get<'a> {
    pub(super) is_https: bool,
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// May have a query.
    pub(super) path: &'a str,
    /// All of them but `Host` (unless given) and `Connection`.
    pub(super) headers: &'a [(String, String)],
}

pub(super) struct Answer {
    pub(super) status: u16,
    /// At most [`BODY_MAX`] bytes.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request cannot be made at all.
    Invalid(String),
    /// `Get "URL": REASON`.
    Request(String),
    /// The body broke off.
    Body(String),
}

impl Trouble {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Invalid(text) | Self::Request(text) | Self::Body(text) => text,
        }
    }
}

impl Get<'_> {
    /// Asks, follows redirects that stay on the host, reads the start of the body. A body that goes on is cut.
    pub(super) async fn send(&self, deadline: Option<Instant>) -> Result<Answer, Trouble> {
        let mut uri = self.uri().map_err(Trouble::Invalid)?;
        let headers = self.headers(&uri).map_err(Trouble::Invalid)?;
        // Go names the place that failed as it was given: a relative one after a redirect to it.
        let mut shown = uri.to_string();
        for _ in 0..REDIRECTS_MAX {
            let failed = |reason: String| Trouble::Request(format!("Get {shown:?}: {reason}"));
            let (response, task) = within(deadline, exchange(&uri, &headers))
                .await
                .unwrap_or_else(|| {
                    Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
                })
                .map_err(failed)?;
            let next = match response.headers().get(LOCATION).filter(|_| location::is_redirect(response.status())) {
                Some(place) => {
                    let text = String::from_utf8_lossy(place.as_bytes()).into_owned();
                    let joined = location::join(&uri, &text);
                    Some((joined.ok_or_else(|| failed(format!("failed to parse Location header {text:?}")))?, text))
                }
                None => None,
            };
            match next {
                Some((next, text)) if next.host() == uri.host() => (uri, shown) = (next, text),
                Some(_) | None => return read(response, task, deadline).await,
            }
        }
        Err(Trouble::Request(format!("Get {shown:?}: stopped after {REDIRECTS_MAX} redirects")))
    }

    fn uri(&self) -> Result<Uri, String> {
        let scheme = if self.is_https { "https" } else { "http" };
        let text = format!("{scheme}://{}{}", dial::host_port(self.host, self.port), encoded(self.path));
        text.parse().map_err(|e| format!("parse {text:?}: {e}"))
    }

    fn headers(&self, uri: &Uri) -> Result<HeaderMap, String> {
        let mut map = HeaderMap::new();
        for (name, value) in self.headers {
            let key =
                HeaderName::try_from(name).map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
            map.append(key, value);
        }
        if map.get(HOST).is_none_or(HeaderValue::is_empty) {
            let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
            map.insert(HOST, HeaderValue::try_from(authority).map_err(|e| e.to_string())?);
        }
        Ok(map)
    }
}

/// `None` when the deadline passed.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// Ends the connection's task with the exchange.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(uri: &Uri, headers: &HeaderMap) -> Result<(Response<Incoming>, Connection), String> {
    let host = uri.host().unwrap_or_default();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = dial::tcp(host, port).await?;
    let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
    if !is_https {
        return over_http1(stream, uri, headers, ends).await;
    }
    let stream = tls::connect(stream, host).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return over_http2(stream, uri, headers).await;
    }
    over_http1(stream, uri, headers, ends).await
}

async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    uri: &Uri,
    headers: &HeaderMap,
    ends: Option<(SocketAddr, SocketAddr)>,
) -> Result<(Response<Incoming>, Connection), String> {
    let (tap, seen) = Tap::new(stream);
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true).max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(tap)).await.map_err(|e| e.to_string())?;
    let task = Connection(rubelet_host::task::spawn(async move {
        let _ = connection.await;
    }));
    let place = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::get(place).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = headers.clone();
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    match sender.send_request(request).await {
        Ok(response) => Ok((response, task)),
        Err(e) => Err(in_gos_words(&e, &seen, ends)),
    }
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Response<Incoming>, Connection), String> {
    let builder = http2::Builder::new(TokioExecutor::new());
    let failed = |e: hyper::Error| rubelet_host::chain(&e);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let task = Connection(rubelet_host::task::spawn(async move {
        let _ = connection.await;
    }));
    let mut request = Request::get(uri.clone()).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = headers.clone();
    // The host travels as :authority.
    if let Some(host) = request.headers_mut().remove(HOST)
        && let Ok(host) = host.to_str()
        && let Ok(named) = Uri::builder()
            .scheme("https")
            .authority(host)
            .path_and_query(uri.path_and_query().map_or("/", |p| p.as_str()))
            .build()
    {
        *request.uri_mut() = named;
    }
    Ok((sender.send_request(request).await.map_err(failed)?, task))
}

/// Go's words for what the server did wrong.
fn in_gos_words(e: &hyper::Error, seen: &Seen, ends: Option<(SocketAddr, SocketAddr)>) -> String {
    let seen = seen.first_bytes();
    let broken = "net/http: HTTP/1.x transport connection broken";
    if let Some(io) = std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>()) {
        let ends = ends.map(|(here, there)| format!(" {here}->{there}")).unwrap_or_default();
        return format!("read tcp{ends}: read: {}", dial::reason(io));
    }
    if e.is_parse_too_large() {
        return format!("net/http: server response headers exceeded {HEAD_MAX} bytes; aborted");
    }
    if e.is_parse() {
        let text = String::from_utf8_lossy(&seen).into_owned();
        let line = text.lines().next().unwrap_or_default();
        return format!("{broken}: malformed HTTP response {line:?}");
    }
    if e.is_incomplete_message() || e.is_canceled() {
        return if seen.is_empty() { "EOF".to_owned() } else { "unexpected EOF".to_owned() };
    }
    rubelet_host::chain(e)
}

async fn read(response: Response<Incoming>, _task: Connection, deadline: Option<Instant>) -> Result<Answer, Trouble> {
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while body.len() < BODY_MAX && !incoming.is_end_stream() {
        let slow = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
        match within(deadline, incoming.frame()).await {
            None => return Err(Trouble::Body(slow.to_owned())),
            Some(None) => break,
            Some(Some(Ok(frame))) => {
                let part = frame.into_data().unwrap_or_default();
                body.extend(&part[..part.len().min(BODY_MAX - body.len())]);
            }
            Some(Some(Err(_))) => return Err(Trouble::Body("unexpected EOF".to_owned())),
        }
    }
    Ok(Answer { status, body })
}

/// A path (with its query) as it may stand in a request: begins with `/`, without fragment, other bytes as `%XX`.
fn encoded(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut out = String::from(if path.starts_with('/') { "" } else { "/" });
    let bytes = path.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let is_escape = byte == b'%' && bytes.get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        let is_fine = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte);
        if is_fine || is_escape {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn paths_are_encoded() {
        for (path, want) in [
            ("", "/"),
            ("/healthz", "/healthz"),
            ("healthz", "/healthz"),
            ("/a b?x=1 2#frag", "/a%20b?x=1%202"),
            ("/%41%zz", "/%41%25zz"),
            ("/ü", "/%C3%BC"),
        ] {
            assert_eq!(encoded(path), want, "{path}");
        }
    }
}
