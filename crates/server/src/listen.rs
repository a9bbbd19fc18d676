//! The listeners: bound before they are handed out, run until they are dropped.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;
use tracing::field::Empty;

use crate::auth::{Access, Gate, Reviews, Tokens};
use crate::connection::{self, Answering, Answers, LargeHeads, Protocol};
use crate::metrics::HttpCounts;
use crate::respond::Reply;
use crate::routes::{self, Site};
use crate::tls::{Reloading, ShownCertificates};
use crate::view::Desk;
use crate::{AuthorizationMode, ServerConfig, TlsError, TlsServerConfig, View};
use crate::{mux, pod_resources};

#[cfg(test)]
mod tests;

/// Connections at a time, for each listener; more wait. An idle one takes some 40 KiB; see [`connection`] for the most.
const CONNECTIONS_MAX: usize = 2048;
/// kubelet 1.36: the health server tries to bind again every 5 s.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long the port of a predecessor is waited for.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken (out of files).
pub(crate) const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why the servers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken, or the address is not ours.
    #[error("listen tcp {address}: bind")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("listen on {}", path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    /// kubelet 1.36: the same text.
    #[error("no client provided, cannot use webhook authentication")]
    WebhookAuthentication,
    /// kubelet 1.36: the same text.
    #[error("no client provided, cannot use webhook authorization")]
    WebhookAuthorization,
    /// kubelet 1.36: the same text. Neither anyone nor anybody could ever be answered.
    #[error("no authentication method configured")]
    NobodyAsks,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The running servers. Dropping it ends them and their connections.
#[derive(Debug)]
pub struct Servers {
    healthz: Option<SocketAddr>,
    read_only: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Where health is told; `None` too while the address cannot be bound.
    pub fn healthz_address(&self) -> Option<SocketAddr> {
        self.healthz
    }

    /// Where the read-only server listens.
    pub fn read_only_address(&self) -> Option<SocketAddr> {
        self.read_only
    }

    /// Where the TLS server listens.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Binds all that is configured and starts answering from `view`. `reviews`: the API server, if there is one.
///
/// # Errors
/// A port of the big servers that cannot be bound, TLS files that cannot be used, nobody who could be answered, or a
/// webhook without an API server to ask. (The health server waits for its port.)
pub async fn serve(
    config: ServerConfig,
    view: Arc<dyn View>,
    reviews: Option<Arc<dyn Reviews>>,
) -> Result<Servers, ServeError> {
    let mut servers = Servers { healthz: None, read_only: None, tls: None, tasks: Vec::new() };
    let desk = Arc::new(Desk::new(view.clone()));
    if let Some(tls) = config.tls {
        let gate = Arc::new(gate(&tls, reviews, view.http())?);
        let (listener, at) = bind_patiently(tls.address).await?;
        let site = Site::Full { has_debugging: tls.has_debugging };
        let reloading = Arc::new(Reloading::start(tls)?);
        let desk = desk.clone();
        servers.tls = Some(at);
        servers.tasks.push(rubelet_host::task::spawn(accept(listener, move |stream| {
            secure(stream, reloading.clone(), gate.clone(), site, desk.clone())
        })));
    }
    if let Some(address) = config.read_only {
        let (listener, at) = bind_patiently(address).await?;
        servers.read_only = Some(at);
        servers.tasks.push(rubelet_host::task::spawn(accept(listener, plain(Site::ReadOnly, desk.clone()))));
    }
    if let Some(path) = config.pod_resources {
        let listener = pod_resources::bind(&path).map_err(|source| ServeError::Socket { path, source })?;
        servers.tasks.push(rubelet_host::task::spawn(pod_resources::serve(listener, view.clone())));
    }
    if let Some(address) = config.healthz {
        let bound = bind(address).await;
        servers.healthz = bound.as_ref().ok().map(|(_, at)| *at);
        servers.tasks.push(rubelet_host::task::spawn(healthz(address, bound, desk)));
    }
    Ok(servers)
}

/// Who is let in.
fn gate(
    config: &TlsServerConfig,
    reviews: Option<Arc<dyn Reviews>>,
    counts: &Arc<HttpCounts>,
) -> Result<Gate, ServeError> {
    let (asked, times) = (&config.authentication, config.cache_times);
    let tokens = match (asked.webhook, &reviews) {
        (false, _) => None,
        (true, None) => return Err(ServeError::WebhookAuthentication),
        (true, Some(reviews)) => Some(Tokens::new(reviews.clone(), times.token, counts.clone())),
    };
    if tokens.is_none() && asked.client_ca_file.is_none() && !asked.anonymous {
        return Err(ServeError::NobodyAsks);
    }
    let access = match (config.authorization, reviews) {
        (AuthorizationMode::AlwaysAllow, _) => Access::AlwaysAllow,
        (AuthorizationMode::Webhook, None) => return Err(ServeError::WebhookAuthorization),
        (AuthorizationMode::Webhook, Some(reviews)) => Access::webhook(reviews, times, &config.node_name),
    };
    Ok(Gate { is_anonymous_allowed: asked.anonymous, tokens, access })
}

/// A predecessor that was just ended may leave its port to a child of its that is about to start a program: for milliseconds, on a busy
/// machine for more.
async fn bind_patiently(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let since = tokio::time::Instant::now();
    loop {
        match bind(address).await {
            Err(ServeError::Bind { source, .. })
                if source.kind() == std::io::ErrorKind::AddrInUse && since.elapsed() < PREDECESSOR =>
            {
                tokio::time::sleep(PREDECESSOR / 20).await;
            }
            bound => return bound,
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    Ok((listener, at))
}

/// The health server: its port may be taken for a while, e.g. by a predecessor.
async fn healthz(address: SocketAddr, mut bound: Result<(TcpListener, SocketAddr), ServeError>, desk: Arc<Desk>) {
    loop {
        match bound {
            Ok((listener, _)) => return accept(listener, plain(Site::Health, desk)).await,
            Err(error) => tracing::error!(%error, "failed to start the healthz server"),
        }
        tokio::time::sleep(BIND_AGAIN_AFTER).await;
        bound = bind(address).await;
    }
}

/// Takes connections, for ever. Ended, it ends its connections.
async fn accept<F>(listener: TcpListener, serve: impl Fn(Taken) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let room = LargeHeads::default();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only a matter of speed.
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(Taken { stream, room: room.clone() }));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// A connection, and the room that it shares with others.
struct Taken {
    stream: TcpStream,
    room: LargeHeads,
}

fn plain(site: Site, desk: Arc<Desk>) -> impl Fn(Taken) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |Taken { stream, room }| {
        let client = Arc::new(Client { site, desk: desk.clone(), guard: None });
        Box::pin(connection::serve(stream, Protocol::Http1, client, room))
    }
}

async fn secure(taken: Taken, reloading: Arc<Reloading>, gate: Arc<Gate>, site: Site, desk: Arc<Desk>) {
    let handshake = tokio_rustls::TlsAcceptor::from(reloading.current().rustls).accept(taken.stream);
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let (_, session) = stream.get_ref();
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    let shown = session.peer_certificates().unwrap_or_default().iter().cloned().map(CertificateDer::into_owned);
    let guard = Some(Guard { gate, reloading, shown: ShownCertificates::new(shown.collect()) });
    connection::serve(stream, protocol, Arc::new(Client { site, desk, guard }), taken.room).await;
}

/// One connection with the big server as it is to those who may everything.
pub(crate) async fn serve_stranger(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    view: Arc<dyn View>,
) {
    let client = Client { site: Site::Full { has_debugging: true }, desk: Arc::new(Desk::new(view)), guard: None };
    connection::serve(stream, protocol, Arc::new(client), LargeHeads::default()).await;
}

/// The other side of one connection.
struct Client {
    site: Site,
    desk: Arc<Desk>,
    /// `None` where everyone is answered.
    guard: Option<Guard>,
}

/// Who judges one connection's requests.
struct Guard {
    gate: Arc<Gate>,
    reloading: Arc<Reloading>,
    shown: ShownCertificates,
}

impl Client {
    /// kubelet 1.36: first whether there is such a path, then who asks, then whether they may.
    async fn admit(&self, request: &mut Request<Incoming>) -> Result<(), Box<Response<Reply>>> {
        let path = mux::find(self.site, request)?;
        if let Some(guard) = &self.guard {
            let certified = guard.shown.certified(guard.reloading.current().authority.as_ref());
            let method = request.method().clone();
            guard.gate.admit(certified, &method, &path, request.headers_mut()).await?;
        }
        Ok(())
    }
}

impl Client {
    /// Until the answer begins; what is asked by strangers is not traced, nor is a trace of theirs continued.
    fn span(&self, request: &Request<Incoming>) -> tracing::Span {
        let path = request.uri().path();
        let first = path.split('/').nth(1).unwrap_or_default();
        let header = request.headers().get("traceparent").filter(|_| self.guard.is_some());
        tracing::info_span!(
            target: "trace", "request", otel.name = format!("{} /{first}", request.method()), otel.kind = "server",
            otel.parent = header.and_then(|header| header.to_str().ok()), otel.error = Empty, http.request.method = request.method().as_str(),
            url.path = path, http.response.status_code = Empty
        )
    }
}

impl Answers for Client {
    fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let full = match self.site {
                Site::Health => None,
                Site::ReadOnly => Some(false),
                Site::Full { .. } => Some(true),
            };
            let _counted =
                full.map(|is_full| self.desk.view.http().begin(request.method(), request.uri().path(), is_full));
            if let Err(answer) = self.admit(&mut request).await {
                return *answer;
            }
            let span = self.span(&request);
            let answering = routes::respond(self.site, self.desk.clone(), request.map(Some));
            let answer = answering.instrument(span.clone()).await;
            let status = answer.status().as_u16();
            span.record("http.response.status_code", status);
            if status >= 500 {
                span.record("otel.error", answer.status().as_str());
            }
            answer
        })
    }
}
