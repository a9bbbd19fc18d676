//! WebSocket on the client's side, SPDY on the server's: what a kubelet does that declares `ExtendWebSocketsToKubelet`, because container
//! runtimes speak no version 5 and no tunnel.

use ::http::{Method, Request, Response, StatusCode, Uri};
use http::header::HeaderMap;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::client::{self, ConnectError, Process, Wanted};
use crate::containers::Streams;
use crate::http::{Body, agree_websocket, is_websocket, text_response, websocket_protocols};
use crate::join::join;
use crate::mux::{Reader, Writer};
use crate::protocol::{PORT_FORWARD, TUNNEL};
use crate::remote_command::{self, Session};
use crate::spdy::{Connection, Options};
use crate::status::Status;
use crate::websocket::{Channels, Coding, Role};

const VERSION_5: [&str; 1] = ["v5.channel.k8s.io"];
const TUNNELS: [&str; 1] = [TUNNEL];
/// Bytes of what a server says in the stream `error`.
const END_MAX: u64 = 64 * 1024;

/// Whether an exec or attach has to be translated; others are passed on as they are ([`crate::proxy`]).
pub fn is_remote_command(headers: &HeaderMap) -> bool {
    offers(headers, VERSION_5[0])
}

/// Whether a port-forward has to be translated; others are passed on as they are ([`crate::proxy`]).
pub fn is_port_forward(headers: &HeaderMap) -> bool {
    offers(headers, TUNNEL)
}

fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    is_websocket(headers) && websocket_protocols(headers).iter().any(|offered| offered == protocol)
}

/// Translates an exec or attach to the runtime's `target`. The answer is the client's; the rest happens in a task of its own. That the
/// runtime cannot be reached is told in the stream `error`.
pub fn remote_command(request: Request<Incoming>, target: Uri, wanted: Wanted, options: Options) -> Response<Body> {
    let agreed = match agree_websocket(request.headers(), &VERSION_5) {
        Ok(agreed) => agreed,
        Err(response) => return *response,
    };
    let protocol = agreed.protocol;
    tokio::spawn(async move {
        let io = match hyper::upgrade::on(request).await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "streams: the client's connection was not upgraded"),
        };
        let Wanted { stdin, stdout, stderr, resize } = wanted;
        let wanted_here = remote_command::Wanted { stdin, stdout, stderr, tty: resize };
        let (session, streams) = remote_command::websocket(io, wanted_here, protocol, options);
        join_process(session, streams, &target, wanted, options).await;
    });
    agreed.response
}

async fn join_process(session: Session, streams: Streams, target: &Uri, wanted: Wanted, options: Options) {
    let (connection, process) = match start(target, wanted, options).await {
        Ok(started) => started,
        Err(error) => {
            drop(streams);
            return session.finish(&Status::Internal(text_with_causes(&error))).await;
        }
    };
    let mut hang_up = streams.hang_up.clone();
    let end = tokio::select! {
        end = carry(streams, process) => Some(end),
        () = hang_up.wait() => None,
    };
    match end {
        Some(end) if end.is_empty() => session.finish(&Status::Success).await,
        Some(end) => session.finish_with(&end).await,
        None => session.finish(&Status::Success).await,
    }
    connection.close().await;
}

async fn start(target: &Uri, wanted: Wanted, options: Options) -> Result<(Connection, Process), ConnectError> {
    let io = client::dial(target).await?;
    let (connection, _) = client::spdy(io, target, &["v4.channel.k8s.io"], options).await?;
    let process = client::process(&connection, wanted).await?;
    Ok((connection, process))
}

/// Carries all streams until the process has written its last; the result is what the runtime says about its end.
async fn carry(streams: Streams, mut process: Process) -> Vec<u8> {
    let input = async {
        tokio::join!(
            copy(streams.stdin, process.stdin.take()),
            copy(streams.resizes.into_stream(), process.resize.take())
        );
        // The process may end without having read all.
        std::future::pending::<()>().await;
    };
    let output = async {
        let mut end = Vec::new();
        let mut error = process.error.take(END_MAX);
        tokio::join!(
            copy(process.stdout, streams.stdout),
            copy(process.stderr, streams.stderr),
            // An error comes after what could be read.
            async { _ = error.read_to_end(&mut end).await }
        );
        end
    };
    tokio::select! {
        end = output => end,
        () = input => Vec::new(),
    }
}

/// Copies to the end; that one of the two breaks is an end as well, which the other streams tell of.
async fn copy(from: Option<Reader>, to: Option<Writer>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        _ = tokio::io::copy(&mut from, &mut to).await;
        _ = to.shutdown().await;
    }
}

fn text_with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Takes the tunnel off a port-forward to the runtime's `target`. The rest happens in a task of its own.
///
/// # Errors
/// `target` cannot be reached, or does not want to.
pub async fn port_forward(
    request: Request<Incoming>,
    target: &Uri,
    options: Options,
) -> Result<Response<Body>, ConnectError> {
    let agreed = match agree_websocket(request.headers(), &TUNNELS) {
        Ok(agreed) => agreed,
        Err(response) => return Ok(*response),
    };
    let io = client::dial(target).await?;
    let answer = client::ask(io, Method::POST, target, client::spdy_headers(&PORT_FORWARD)).await?;
    let server = match client::upgraded(answer).await {
        Ok(server) => server,
        Err(ConnectError::Refused { status, text }) if status != StatusCode::SWITCHING_PROTOCOLS => {
            return Ok(text_response(status, text));
        }
        Err(error) => return Err(error),
    };
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => untunnel(TokioIo::new(client), server, options).await,
            Err(error) => tracing::debug!(%error, "streams: the client's connection was not upgraded"),
        }
    });
    Ok(agreed.response)
}

/// The bytes within the messages of `client` are those of `server`.
async fn untunnel<C, S>(client: C, server: S, options: Options)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channels = Channels::new(Role::Server, Coding::Plain, options.limits);
    let Some(stream) = channels.open(0) else { return };
    channels.start(client, options.idle);
    join(stream, server).await;
    channels.close().await;
}
