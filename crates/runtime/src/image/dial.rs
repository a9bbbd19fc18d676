//! TCP connections, through a proxy where one is configured. Their errors are told as Go tells them.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

use super::wire::{origin, system};

/// Bytes of a proxy's answer at most.
const ANSWER_MAX: usize = 16 << 10;

/// Proxies between us and registries, as Go's programs take them from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// `HTTP_PROXY`: for registries without TLS. Empty: none.
    pub http: String,
    /// `HTTPS_PROXY`. Empty: none.
    pub https: String,
    /// `NO_PROXY`: names, `.domains`, addresses and networks, with commas between. Loopback is always meant.
    pub no: String,
}

/// Why there is no connection, and whether it may pass.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct DialError {
    pub(super) reason: String,
    pub(super) is_passing: bool,
}

fn error(reason: String, is_passing: bool) -> DialError {
    DialError { reason, is_passing }
}

#[derive(Clone)]
pub(super) struct Dial {
    patience: Duration,
    proxies: Arc<Matcher>,
}

impl Dial {
    pub(super) fn new(patience: Duration, proxy: &Proxy) -> Self {
        let Proxy { http, https, no } = proxy.clone();
        let proxies = Arc::new(Matcher::builder().http(http).https(https).no(no).build());
        Self { patience, proxies }
    }
}

/// A connection, and whether a proxy reads the requests on it.
pub(super) struct Line {
    io: TokioIo<TcpStream>,
    is_proxied: bool,
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.io.inner().connected().proxy(self.is_proxied)
    }
}

impl Read for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = Line;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Line, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (patience, proxies) = (self.patience, self.proxies.clone());
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let port = origin(&uri).2;
            let proxy = proxies.intercept(&uri).filter(|_| !is_loopback(&host));
            let line = async {
                match &proxy {
                    Some(proxy) => through(proxy, &uri).await,
                    None => connect(&host, port).await.map(|stream| (stream, false)),
                }
            };
            let late = |_| error(format!("dial tcp {host}:{port}: i/o timeout"), true);
            let (stream, is_proxied) = tokio::time::timeout(patience, line).await.map_err(late)??;
            // Small requests should not wait for more.
            let _ = stream.set_nodelay(true);
            Ok(Line { io: TokioIo::new(stream), is_proxied })
        })
    }
}

/// Go: `localhost` and loopback addresses are asked directly.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let unknown = |why: String| error(format!("dial tcp: lookup {bare}: {why}"), why != "no such host");
    let addresses = lookup_host((bare, port)).await.map_err(|e| unknown(system(&e)))?;
    let mut first = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => {
                let refused = e.kind() == io::ErrorKind::ConnectionRefused;
                first = first.or(Some(error(format!("dial tcp {address}: connect: {}", system(&e)), !refused)));
            }
        }
    }
    Err(first.unwrap_or_else(|| unknown("no such host".to_owned())))
}

/// A connection to a proxy; for TLS, with a tunnel to the registry in it.
async fn through(proxy: &Intercept, uri: &Uri) -> Result<(TcpStream, bool), DialError> {
    let address = proxy.uri();
    if address.scheme_str() != Some("http") {
        return Err(error(
            format!("proxyconnect tcp: a proxy of the kind {:?} is not supported", address.scheme_str()),
            false,
        ));
    }
    let failed = |why: &str, is_passing| error(format!("proxyconnect tcp: {why}"), is_passing);
    let port = address.port_u16().unwrap_or(80);
    let host = address.host().unwrap_or_default();
    let mut stream = connect(host, port).await.map_err(|e| failed(&e.reason, e.is_passing))?;
    if uri.scheme_str() != Some("https") {
        if proxy.basic_auth().is_some() {
            return Err(failed("a password for a proxy is only sent for registries with TLS", false));
        }
        return Ok((stream, true));
    }
    let target = format!("{}:{}", uri.host().unwrap_or_default(), origin(uri).2);
    let mut ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(proof) = proxy.basic_auth() {
        ask.extend([b"Proxy-Authorization: ".as_slice(), proof.as_bytes(), b"\r\n"].concat());
    }
    ask.extend(b"\r\n");
    stream.write_all(&ask).await.map_err(|e| failed(&system(&e), true))?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to the registry.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_MAX {
            return Err(failed("the proxy's answer has no end", false));
        }
        answer.push(stream.read_u8().await.map_err(|e| failed(&system(&e), true))?);
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default().split_once(' ').map_or("", |(_, status)| status);
    // Go shows the status alone.
    if status.starts_with("200") { Ok((stream, false)) } else { Err(error(status.to_owned(), status.starts_with('5'))) }
}
