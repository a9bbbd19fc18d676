//! The server's side of port-forward.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::containers::Containers;
use crate::mux::{Stream, Writer};
use crate::protocol;
use crate::spdy::{Connection, Headers, Incoming, Options};
use crate::websocket::{Channels, Coding, Role};

/// How long forwarding may go on with what had arrived when the client left.
const REMAINDER: Duration = Duration::from_secs(30);
/// Two channels for each port, numbered by a byte.
pub(crate) const WEBSOCKET_PORTS_MAX: usize = 127;

/// Where the streams go.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) sandbox: String,
}

impl Target {
    /// Forwards one stream, and says in the other what went wrong.
    async fn forward(self, port: u16, data: Stream, mut error: Writer) {
        let Err(failure) = self.containers.port_forward(self.sandbox.clone(), port, data).await else { return };
        let text = format!("error forwarding port {port} to pod {}, uid : {failure}", self.sandbox);
        tracing::debug!(port, sandbox = self.sandbox, %failure, "port-forward failed");
        // It fails if the client is gone, who then needs no answer.
        _ = error.write_all(text.as_bytes()).await;
    }
}

/// Forwards until the client leaves. A pair of streams (data, error) of which one is missing for longer than `creation` is given up.
pub(crate) async fn spdy<T>(io: T, target: Target, options: Options, creation: Duration)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::server(io, options);
    let mut pairs = Pairs::default();
    let mut forwards = JoinSet::new();
    loop {
        let expiry = pairs.oldest().map(|since| since + creation);
        tokio::select! {
            incoming = connection.accept() => {
                let Some(incoming) = incoming else { break };
                if let Some((port, data, error)) = pairs.add(incoming) {
                    forwards.spawn(target.clone().forward(port, data, error));
                }
            }
            Some(_) = forwards.join_next() => {}
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => pairs.expire(creation).await,
        }
    }
    drop(pairs);
    // What is not done by then is dropped with the set.
    _ = timeout(REMAINDER, async { while forwards.join_next().await.is_some() {} }).await;
    connection.close().await;
}

/// A WebSocket whose messages are the bytes of a SPDY connection.
pub(crate) async fn tunnel<T>(io: T, target: Target, options: Options, creation: Duration)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut channels = Channels::new(Role::Server, Coding::Plain, options.limits);
    let Some(stream) = channels.open(0) else { return };
    channels.start(io, options.idle);
    spdy(stream, target, options, creation).await;
    channels.close().await;
}

/// The older WebSocket protocols: ports are known from the start, each has a channel for data and one for errors, and each channel
/// begins with the port, 16 bits, low byte first.
pub(crate) async fn websocket<T>(io: T, target: Target, ports: &[u16], protocol: &'static str, options: Options)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut channels = Channels::new(Role::Server, protocol::coding(protocol), options.limits);
    let mut pairs = Vec::new();
    for (number, port) in (0..=u8::MAX).step_by(2).zip(ports) {
        if let (Some(data), Some(error)) = (channels.open(number), channels.open_out(number + 1)) {
            pairs.push((*port, data, error.split().1));
        }
    }
    channels.start(io, options.idle);
    let mut forwards = JoinSet::new();
    for (port, mut data, mut error) in pairs {
        let target = target.clone();
        forwards.spawn(async move {
            let greeting = port.to_le_bytes();
            if data.write_all(&greeting).await.is_ok() && error.write_all(&greeting).await.is_ok() {
                target.forward(port, data, error).await;
            }
        });
    }
    let mut over = channels.hang_up();
    let all = async { while forwards.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        // What is not done some time after the client left is dropped with the set.
        () = async { over.wait().await; sleep(REMAINDER).await } => {}
    }
    channels.close().await;
}

/// Streams that wait for the other one of their pair.
#[derive(Default)]
struct Pairs(BTreeMap<String, Half>);

struct Half {
    since: Instant,
    kind: Kind,
    port: u16,
    stream: Stream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

impl Pairs {
    fn oldest(&self) -> Option<Instant> {
        self.0.values().map(|half| half.since).min()
    }

    /// The pair that a stream completes. A stream that names no port or kind is rejected.
    fn add(&mut self, incoming: Incoming) -> Option<(u16, Stream, Writer)> {
        let Some((port, kind)) = port_and_kind(incoming.headers()) else {
            incoming.reject();
            return None;
        };
        let request = request(&incoming, kind);
        match self.0.remove(&request) {
            None => {
                self.0.insert(request, Half { since: Instant::now(), kind, port, stream: incoming.accept() });
                None
            }
            Some(half) if half.kind == kind => {
                // kubelet 1.36: "data stream already assigned"; the first one stays.
                incoming.reject();
                self.0.insert(request, half);
                None
            }
            Some(half) => {
                let stream = incoming.accept();
                Some(match kind {
                    Kind::Data => (port, stream, half.stream.split().1),
                    Kind::Error => (half.port, half.stream, stream.split().1),
                })
            }
        }
    }

    async fn expire(&mut self, after: Duration) {
        let now = Instant::now();
        let expired = self.0.extract_if(.., |_, half| half.since + after <= now).collect::<Vec<_>>();
        for (request, mut half) in expired {
            match half.kind {
                Kind::Data => half.stream.reset(),
                Kind::Error => {
                    let text = format!("(request={request}) timed out waiting for streams");
                    // Less than a stream may have waiting: it does not wait.
                    _ = half.stream.write_all(text.as_bytes()).await;
                }
            }
        }
    }
}

fn port_and_kind(headers: &Headers) -> Option<(u16, Kind)> {
    let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    match headers.get("streamtype")? {
        "data" => Some((port, Kind::Data)),
        "error" => Some((port, Kind::Error)),
        _ => None,
    }
}

/// What the two streams of a pair have in common. kubelet 1.36: old clients name nothing; they open the stream of errors first and the
/// other one right after it.
fn request(incoming: &Incoming, kind: Kind) -> String {
    match (incoming.headers().get("requestid"), kind) {
        (Some(request), _) if !request.is_empty() => request.to_owned(),
        (_, Kind::Error) => incoming.id().to_string(),
        (_, Kind::Data) => incoming.id().saturating_sub(2).to_string(),
    }
}
