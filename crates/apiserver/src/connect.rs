//! HTTP/2 connections to one API server: one, until it carries as many streams as a server takes.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::credentials::{Credentials, Stamp, blocking};
use crate::settings::{Pem, Tls};
use crate::tls;

/// client-go gives up dialling after this.
const DIAL_PATIENCE: Duration = Duration::from_secs(30);
/// client-go asks a quiet connection whether it lives, and how long it waits for the answer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// Streams of one connection, watches included; the API server takes 100.
const STREAMS_MAX: usize = 90;
/// What the server may send ahead of a slow reader, for one stream and for all of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How often the files of certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The connections; each request takes the first that has room.
pub(crate) struct Connections {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Arc<Credentials>,
    lines: Mutex<Vec<Line>>,
    looked: StdMutex<Option<Instant>>,
}

/// One connection.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// One more of these than there are streams.
    streams: Arc<()>,
    stamp: Stamp,
}

/// An answer that is being read, and a share of its connection.
pub(crate) struct Stream {
    pub(crate) answer: Response<Incoming>,
    _share: Arc<()>,
}

/// Why there is no answer.
pub(crate) enum Trouble {
    /// The request was not sent.
    Connect(String),
    /// It may have been.
    Broken(String),
}

impl Connections {
    pub(crate) fn new(uri: &Uri, tls: Tls, credentials: Arc<Credentials>) -> Result<Self, String> {
        if uri.scheme_str() != Some("https") {
            return Err("the URL of an API server starts with https://".to_owned());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("the URL has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
            tls,
            credentials,
            lines: Mutex::default(),
            looked: StdMutex::default(),
        })
    }

    /// Sends a request; once more on a new connection if the old one ended before it took the request.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Stream, Trouble> {
        let mut request = request;
        let mut attempts_left = 3;
        loop {
            attempts_left -= 1;
            let (mut sender, share) = self.line().await.map_err(Trouble::Connect)?;
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(Stream { answer, _share: share }),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if attempts_left > 0 => request = unsent,
                    Some(_) => return Err(Trouble::Connect(rubelet_host::chain(failed.error()))),
                    None => return Err(Trouble::Broken(rubelet_host::chain(failed.error()))),
                },
            }
        }
    }

    /// The next request gets a new connection; what runs on the old ones ends there.
    pub(crate) async fn redial(&self) {
        self.lines.lock().await.clear();
    }

    async fn line(&self) -> Result<(SendRequest<Full<Bytes>>, Arc<()>), String> {
        let mut lines = self.lines.lock().await;
        lines.retain(|line| !line.sender.is_closed());
        if self.is_time_to_look() {
            let stamp = self.stamp();
            lines.retain(|line| line.stamp == stamp);
        }
        if let Some(line) = lines.iter().find(|line| Arc::strong_count(&line.streams) <= STREAMS_MAX) {
            return Ok((line.sender.clone(), line.streams.clone()));
        }
        let stamp = self.stamp();
        let sender = match timeout(DIAL_PATIENCE, self.dial()).await {
            Ok(dialled) => dialled?,
            Err(_) => return Err(format!("{}:{} does not answer", self.host, self.port)),
        };
        let streams = Arc::new(());
        lines.push(Line { sender: sender.clone(), streams: streams.clone(), stamp });
        Ok((sender, streams))
    }

    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if is_time {
            *looked = Some(Instant::now());
        }
        is_time
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(self.tls.authorities.iter().filter_map(Pem::file).chain(self.credentials.files()))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let ours = self.credentials.certificate().await?;
        let settings = self.tls.clone();
        let config = blocking(move || tls::config(&settings, ours)).await?;
        let name = self.tls.server_name.as_deref().unwrap_or(&self.host).to_owned();
        let name = ServerName::try_from(name).map_err(|e| format!("the server's name: {e}"))?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| format!("{}:{}: {e}", self.host, self.port))?;
        let _ = tcp.set_nodelay(true);
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not speak HTTP/2".to_owned());
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(64 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| format!("HTTP/2: {}", rubelet_host::chain(&e)))?;
        // Ends when the last sender and the last answer are gone; how, those who wait for answers learn.
        rubelet_host::task::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("the connection to the API server ended: {}", rubelet_host::chain(&e));
            }
        });
        Ok(sender)
    }
}
