//! The client's side: connections to a container runtime's server of streams.

use std::time::Duration;

use ::http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE};
use ::http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::Body;
use crate::mux::{Reader, Writer};
use crate::spdy::{self, Connection, Headers, OpenError, Options};
use crate::status::Status;

/// How long the server may take to be reached, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that refuses.
const REFUSAL_MAX: usize = 64 * 1024;
/// Bytes of what a server says in the stream `error`.
const STATUS_MAX: u64 = 64 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one to connect to.
    #[error("streaming url {0:?} is not supported: http and a host are needed")]
    Url(Uri),
    /// The server cannot be reached.
    #[error("connect to streaming server {0}")]
    Connect(String, #[source] std::io::Error),
    /// The exchange of request and response failed.
    #[error("ask streaming server for an upgrade")]
    Exchange(#[source] hyper::Error),
    /// The server does not answer.
    #[error("streaming server did not answer in {} s", PATIENCE.as_secs())]
    Timeout,
    /// The server does not want to.
    #[error("unable to upgrade connection: {status}: {text}")]
    Refused {
        /// The response.
        status: StatusCode,
        /// What it says.
        text: String,
    },
    /// A stream was refused.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A TCP connection to where a URL points.
///
/// # Errors
/// The URL is not `http`, or nobody listens.
pub async fn dial(url: &Uri) -> Result<TcpStream, ConnectError> {
    let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else {
        return Err(ConnectError::Url(url.clone()));
    };
    let authority = format!("{host}:{}", url.port_u16().unwrap_or(80));
    let connected = timeout(PATIENCE, TcpStream::connect(&authority)).await.map_err(|_| ConnectError::Timeout)?;
    let connection = connected.map_err(|error| ConnectError::Connect(authority, error))?;
    // Keystrokes are small and wanted soon. It fails only if the server is gone.
    _ = connection.set_nodelay(true);
    Ok(connection)
}

/// Sends a request that asks for an upgrade, with `headers`, to the path of `url`, and returns the response.
///
/// # Errors
/// The connection broke, or there was no answer.
pub async fn ask<T>(io: T, method: Method, url: &Uri, headers: HeaderMap) -> Result<Response<Incoming>, ConnectError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(ConnectError::Exchange)?;
    // Ends with the connection; its errors show in the response or in the upgraded connection.
    tokio::spawn(connection.with_upgrades());
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Body::default());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| ConnectError::Url(url.clone()))?;
    *request.headers_mut() = headers;
    if let Some(host) = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let response = timeout(PATIENCE, sender.send_request(request)).await.map_err(|_| ConnectError::Timeout)?;
    response.map_err(ConnectError::Exchange)
}

/// The connection behind a response that switches protocols.
///
/// # Errors
/// It does not.
pub async fn upgraded(response: Response<Incoming>) -> Result<TokioIo<Upgraded>, ConnectError> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = timeout(PATIENCE, Limited::new(response.into_body(), REFUSAL_MAX).collect()).await;
        let bytes = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        return Err(ConnectError::Refused { status, text });
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(ConnectError::Exchange)
}

/// The headers of a request for SPDY with one of `protocols`, the favourite first.
pub fn spdy_headers(protocols: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(spdy::NAME));
    for value in protocols.iter().filter_map(|name| HeaderValue::from_str(name).ok()) {
        headers.append("x-stream-protocol-version", value);
    }
    headers
}

/// A SPDY connection over `io`, and the protocol that the server chose.
///
/// # Errors
/// See [`ConnectError`].
pub async fn spdy<T>(
    io: T,
    url: &Uri,
    protocols: &[&str],
    options: Options,
) -> Result<(Connection, String), ConnectError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let response = ask(io, Method::POST, url, spdy_headers(protocols)).await?;
    let chosen = response.headers().get("x-stream-protocol-version").and_then(|value| value.to_str().ok());
    let chosen = chosen.unwrap_or_default().to_owned();
    Ok((Connection::client(upgraded(response).await?, options), chosen))
}

/// Which streams of a process are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// To write to it.
    pub stdin: bool,
    /// To read what it writes.
    pub stdout: bool,
    /// To read what it writes about failures.
    pub stderr: bool,
    /// To tell the size of a terminal.
    pub resize: bool,
}

/// The streams of a process behind a connection.
#[derive(Debug)]
pub struct Process {
    /// What the server says at the end, see [`end`].
    pub error: Reader,
    /// What the process reads.
    pub stdin: Option<Writer>,
    /// What it writes.
    pub stdout: Option<Reader>,
    /// What it writes about failures.
    pub stderr: Option<Reader>,
    /// JSON objects `{"Width":80,"Height":24}`.
    pub resize: Option<Writer>,
}

/// Opens the streams of an exec or attach.
///
/// # Errors
/// The server refuses one.
pub async fn process(connection: &Connection, wanted: Wanted) -> Result<Process, OpenError> {
    let open = async |kind: &str| connection.open(Headers::new().with("streamType", kind)).await;
    let error = open("error").await?.split().0;
    let stdin = if wanted.stdin { Some(open("stdin").await?.split().1) } else { None };
    let stdout = if wanted.stdout { Some(open("stdout").await?.split().0) } else { None };
    let stderr = if wanted.stderr { Some(open("stderr").await?.split().0) } else { None };
    let resize = if wanted.resize { Some(open("resize").await?.split().1) } else { None };
    Ok(Process { error, stdin, stdout, stderr, resize })
}

/// Reads how it ended, of a server that speaks version 4. Nothing at all, and a connection that is over, count as an end without news.
///
/// # Errors
/// What it says, if it is no status.
pub async fn end(error: Reader) -> Result<Status, String> {
    let mut text = Vec::new();
    // An error comes after what could be read.
    _ = error.take(STATUS_MAX).read_to_end(&mut text).await;
    if text.is_empty() {
        return Ok(Status::Success);
    }
    Status::parse(&text).ok_or_else(|| String::from_utf8_lossy(&text).into_owned())
}

/// Opens the two streams of a forwarded connection: data, and the text that says what went wrong.
///
/// # Errors
/// The server refuses one.
pub async fn port(connection: &Connection, port: u16, request: &str) -> Result<(crate::Stream, Reader), OpenError> {
    let headers =
        |kind: &str| Headers::new().with("streamType", kind).with("port", &port.to_string()).with("requestID", request);
    let error = connection.open(headers("error")).await?.split().0;
    Ok((connection.open(headers("data")).await?, error))
}
