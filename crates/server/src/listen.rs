//! The listeners: bound before they are handed out, run until they are dropped.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::connection::{self, Answering, Answers, Protocol};
use crate::respond;
use crate::routes::{self, Site};
use crate::tls::{Authenticator, Reloading};
use crate::{AuthorizationMode, ServerConfig, TlsError, TlsServerConfig, View};

#[cfg(test)]
mod tests;

/// Connections at a time, for each listener; more wait.
const CONNECTIONS_MAX: usize = 100;
/// kubelet 1.36: the health server tries to bind again every 5 s.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken (out of files).
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why the servers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken, or the address is not ours.
    #[error("listen tcp {address}: bind: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    /// kubelet 1.36: the same text.
    #[error("no client provided, cannot use webhook authentication")]
    WebhookAuthentication,
    /// kubelet 1.36: the same text.
    #[error("no client provided, cannot use webhook authorization")]
    WebhookAuthorization,
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

/// Binds all that is configured and starts answering from `view`.
///
/// # Errors
/// A port of the big servers that cannot be bound, TLS files that cannot be used, or a webhook, for which there is no
/// API server to ask. (The health server waits for its port.)
pub async fn serve(config: ServerConfig, view: Arc<dyn View>) -> Result<Servers, ServeError> {
    let mut servers = Servers { healthz: None, read_only: None, tls: None, tasks: Vec::new() };
    if let Some(tls) = config.tls {
        refuse_webhooks(&tls)?;
        let (listener, at) = bind(tls.address).await?;
        let has_debugging = tls.has_debugging;
        let reloading = Arc::new(Reloading::start(tls)?);
        let view = view.clone();
        servers.tls = Some(at);
        servers.tasks.push(tokio::spawn(accept(listener, move |stream| {
            secure(stream, reloading.clone(), Site::Full { has_debugging }, view.clone())
        })));
    }
    if let Some(address) = config.read_only {
        let (listener, at) = bind(address).await?;
        servers.read_only = Some(at);
        servers.tasks.push(tokio::spawn(accept(listener, plain(Site::ReadOnly, view.clone()))));
    }
    if let Some(address) = config.healthz {
        let bound = bind(address).await;
        servers.healthz = bound.as_ref().ok().map(|(_, at)| *at);
        servers.tasks.push(tokio::spawn(healthz(address, bound, view)));
    }
    Ok(servers)
}

fn refuse_webhooks(config: &TlsServerConfig) -> Result<(), ServeError> {
    if config.authentication.webhook {
        return Err(ServeError::WebhookAuthentication);
    }
    match config.authorization {
        AuthorizationMode::AlwaysAllow => Ok(()),
        AuthorizationMode::Webhook => Err(ServeError::WebhookAuthorization),
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    Ok((listener, at))
}

/// The health server: its port may be taken for a while, e.g. by a predecessor.
async fn healthz(address: SocketAddr, mut bound: Result<(TcpListener, SocketAddr), ServeError>, view: Arc<dyn View>) {
    loop {
        match bound {
            Ok((listener, _)) => return accept(listener, plain(Site::Health, view)).await,
            Err(error) => tracing::error!(%error, "failed to start the healthz server"),
        }
        tokio::time::sleep(BIND_AGAIN_AFTER).await;
        bound = bind(address).await;
    }
}

/// Takes connections, for ever. Ended, it ends its connections.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
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
                connections.spawn(serve(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

fn plain(site: Site, view: Arc<dyn View>) -> impl Fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    move |stream| {
        let client = Arc::new(Client { site, view: view.clone(), identity: None });
        Box::pin(connection::serve(stream, Protocol::Http1, client))
    }
}

async fn secure(stream: TcpStream, reloading: Arc<Reloading>, site: Site, view: Arc<dyn View>) {
    let loaded = reloading.current();
    let handshake = tokio_rustls::TlsAcceptor::from(loaded.rustls).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let (_, session) = stream.get_ref();
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    let shown = session.peer_certificates().unwrap_or_default().iter().cloned().map(CertificateDer::into_owned);
    let identity = Some((loaded.authenticator, shown.collect()));
    connection::serve(stream, protocol, Arc::new(Client { site, view, identity })).await;
}

/// The other side of one connection.
struct Client {
    site: Site,
    view: Arc<dyn View>,
    /// Who judges, and the certificates that the client showed; `None` where everyone is answered.
    identity: Option<(Arc<Authenticator>, Vec<CertificateDer<'static>>)>,
}

impl Answers for Client {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            if let Some((authenticator, shown)) = &self.identity
                && !authenticator.knows(shown)
            {
                return respond::text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
            routes::respond(self.site, self.view.clone(), request.map(Some)).await
        })
    }
}
