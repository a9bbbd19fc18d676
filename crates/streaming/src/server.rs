//! The server that a container runtime listens with: URLs of one use, behind which the streams of a process or port are.

mod requests;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rubelet_proto::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use requests::RequestError;
use requests::{Asked, command};
use tokens::Tokens;

use crate::containers::{Containers, Failure};
use crate::http::{self as web, Body};
use crate::port_forward::{self, Target, WEBSOCKET_PORTS_MAX};
use crate::protocol;
use crate::remote_command::{self, Wanted};
use crate::spdy;
use crate::status::Status;

/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(30);
/// Connections that have not said yet what they want.
const CONNECTIONS_MAX: usize = 512;
/// Pause after `accept` failed: mostly because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// How long a client may take to open its streams.
    pub creation: Duration,
    /// How long a URL is good for.
    pub token_life: Duration,
    /// URLs that may be unused at the same time.
    pub tokens: usize,
    /// Of each connection.
    pub connection: spdy::Options,
}

impl Default for Options {
    /// containerd's: 127.0.0.1, 30 s for streams, a minute and 1000 for URLs.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            creation: Duration::from_secs(30),
            token_life: Duration::from_mins(1),
            tokens: 1000,
            connection: spdy::Options::default(),
        }
    }
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
#[error("listen for streams on {address}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Listens until it is dropped. Sessions that run then go on to their end.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tokens: Arc<Tokens<Asked>>,
    task: JoinHandle<()>,
}

struct Shared {
    tokens: Arc<Tokens<Asked>>,
    containers: Arc<dyn Containers>,
    options: Options,
}

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen(options: Options, containers: Arc<dyn Containers>) -> Result<Self, ListenError> {
        let wanted = options.address;
        let error = |source| ListenError { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let tokens = Arc::new(Tokens::new(options.token_life, options.tokens));
        let shared = Arc::new(Shared { tokens: tokens.clone(), containers, options });
        Ok(Self { address, tokens, task: tokio::spawn(accept(listener, shared)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for an exec.
    ///
    /// # Errors
    /// The request is not valid, or too many URLs are unused.
    pub fn exec(&self, request: &ExecRequest) -> Result<String, RequestError> {
        self.url("exec", requests::exec(request)?)
    }

    /// The URL for an attach.
    ///
    /// # Errors
    /// As [`Server::exec`].
    pub fn attach(&self, request: &AttachRequest) -> Result<String, RequestError> {
        self.url("attach", requests::attach(request)?)
    }

    /// The URL for a port-forward.
    ///
    /// # Errors
    /// As [`Server::exec`].
    pub fn port_forward(&self, request: &PortForwardRequest) -> Result<String, RequestError> {
        self.url("portforward", requests::port_forward(request)?)
    }

    fn url(&self, verb: &str, asked: Asked) -> Result<String, RequestError> {
        let token = self.tokens.insert(asked)?;
        Ok(format!("http://{}/{verb}/{token}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((connection, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    serve(connection, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "streams: accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries one connection up to its upgrade.
async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    // Keystrokes are small and wanted soon. It fails only if the client is gone.
    _ = connection.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(route(request, &shared)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "streams: connection ended");
    }
}

fn route(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Some((verb, token)) = path.strip_prefix('/').and_then(|rest| rest.split_once('/')) else {
        return web::not_found();
    };
    if !["exec", "attach", "portforward"].contains(&verb) {
        return web::not_found();
    }
    if request.method() != Method::GET && request.method() != Method::POST {
        return web::method_not_allowed();
    }
    let Some(asked) = shared.tokens.take(token).filter(|asked| asked.verb() == verb) else {
        return web::not_found();
    };
    match asked {
        Asked::PortForward { sandbox, ports } => port_forward(request, sandbox, &ports, shared),
        Asked::Exec { wanted, .. } | Asked::Attach { wanted, .. } => remote_command(request, asked, wanted, shared),
    }
}

fn remote_command(request: Request<Incoming>, asked: Asked, wanted: Wanted, shared: &Arc<Shared>) -> Response<Body> {
    let is_websocket = web::is_websocket(request.headers());
    let agreed = if is_websocket {
        web::agree_websocket(request.headers(), &protocol::WEBSOCKET_REMOTE_COMMAND)
    } else {
        web::agree_spdy(request.headers(), &protocol::REMOTE_COMMAND)
    };
    let agreed = match agreed {
        Ok(agreed) => agreed,
        Err(response) => return *response,
    };
    let (shared, protocol) = (shared.clone(), agreed.protocol);
    tokio::spawn(async move {
        let Some(io) = upgraded(request).await else { return };
        let options = shared.options.connection;
        let found = if is_websocket {
            Some(remote_command::websocket(io, wanted, protocol, options))
        } else {
            remote_command::spdy(io, wanted, protocol, options, shared.options.creation).await
        };
        let Some((session, streams)) = found else { return };
        let status = run(asked, streams, &*shared.containers).await;
        session.finish(&status).await;
    });
    agreed.response
}

/// Runs to the end and says how it went.
async fn run(asked: Asked, streams: crate::Streams, containers: &dyn Containers) -> Status {
    match asked {
        Asked::Exec { command: asked, .. } => {
            let shown = command(&asked.argv);
            match containers.exec(asked, streams).await {
                Ok(0) => Status::Success,
                Ok(code) => Status::Exited { code, text: format!("error executing command {shown}, exit code {code}") },
                Err(failure) => internal("error executing command in container", &failure),
            }
        }
        Asked::Attach { container, wanted } => match containers.attach(container, wanted.tty, streams).await {
            Ok(()) => Status::Success,
            Err(failure) => internal("error attaching to container", &failure),
        },
        Asked::PortForward { .. } => Status::Internal("a port-forward is no process".to_owned()),
    }
}

fn internal(doing: &str, failure: &Failure) -> Status {
    tracing::debug!(%failure, "{doing}");
    Status::Internal(format!("{doing}: {failure}"))
}

fn port_forward(request: Request<Incoming>, sandbox: String, ports: &[u16], shared: &Arc<Shared>) -> Response<Body> {
    let is_websocket = web::is_websocket(request.headers());
    let agreed = if is_websocket {
        web::agree_websocket(request.headers(), &protocol::WEBSOCKET_PORT_FORWARD)
    } else {
        web::agree_spdy(request.headers(), &protocol::PORT_FORWARD)
    };
    let agreed = match agreed {
        Ok(agreed) => agreed,
        Err(response) => return *response,
    };
    let protocol = agreed.protocol;
    if is_websocket && protocol != protocol::TUNNEL && ports.len() > WEBSOCKET_PORTS_MAX {
        let text = format!("{} ports are more than {WEBSOCKET_PORTS_MAX}\n", ports.len());
        return web::text_response(StatusCode::BAD_REQUEST, text);
    }
    let target = Target { containers: shared.containers.clone(), sandbox };
    let (options, creation) = (shared.options.connection, shared.options.creation);
    let ports = ports.to_vec();
    tokio::spawn(async move {
        let Some(io) = upgraded(request).await else { return };
        match (is_websocket, protocol) {
            (false, _) => port_forward::spdy(io, target, options, creation).await,
            (true, protocol::TUNNEL) => port_forward::tunnel(io, target, options, creation).await,
            (true, _) => port_forward::websocket(io, target, &ports, protocol, options).await,
        }
    });
    agreed.response
}

/// The connection after the response has gone out.
async fn upgraded(request: Request<Incoming>) -> Option<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    match hyper::upgrade::on(request).await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "streams: the connection was not upgraded");
            None
        }
    }
}
