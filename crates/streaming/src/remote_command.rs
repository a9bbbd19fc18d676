//! The server's side of exec and attach: finds the streams of a process, and tells how it ended.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::containers::{Resizes, Streams};
use crate::mux::{Reader, Stream, Writer};
use crate::protocol;
use crate::spdy::{Connection, Options};
use crate::status::Status;
use crate::websocket::{Channels, Role};

/// Which streams the client of the runtime asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// Channels of a WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// A connection whose streams are all there.
#[derive(Debug)]
pub(crate) struct Session {
    carrier: Carrier,
    error: Option<Writer>,
    /// Our direction of the streams that only the client writes. Clients take its end for "nobody reads this any more" and end theirs.
    unwritten: Vec<Writer>,
    protocol: &'static str,
}

#[derive(Debug)]
enum Carrier {
    Spdy(Connection),
    WebSocket(Channels),
}

impl Session {
    /// Tells the client how it ended, and closes the connection. The streams of the process have to be dropped before.
    pub(crate) async fn finish(self, status: &Status) {
        let text = match status {
            status if protocol::has_status(self.protocol) => status.json(),
            Status::Success => Vec::new(),
            Status::Exited { .. } | Status::Internal(_) => status.message().into_bytes(),
        };
        self.finish_with(&text).await;
    }

    /// As [`Session::finish`], with what is to be said.
    pub(crate) async fn finish_with(self, text: &[u8]) {
        drop(self.unwritten);
        if let Some(mut error) = self.error {
            // It fails if the client is gone, who then needs no answer.
            _ = error.write_all(text).await;
        }
        match self.carrier {
            Carrier::Spdy(connection) => connection.close().await,
            Carrier::WebSocket(channels) => channels.close().await,
        }
    }
}

/// Waits for the client to open its streams. `None`: it did not in time (`creation`); the connection is closed.
pub(crate) async fn spdy<T>(
    io: T,
    wanted: Wanted,
    protocol: &'static str,
    options: Options,
    creation: Duration,
) -> Option<(Session, Streams)>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::server(io, options);
    let mut found = Found::default();
    let has_resize = wanted.tty && protocol::has_resize(protocol);
    let mut missing =
        1 + [wanted.stdin, wanted.stdout, wanted.stderr, has_resize].into_iter().filter(|wanted| *wanted).count();
    let all = timeout(creation, async {
        while missing > 0 {
            let incoming = connection.accept().await?;
            let kind = incoming.headers().get("streamtype").unwrap_or_default();
            let Some(place) = found.place(kind) else {
                tracing::debug!(kind, "unexpected stream type");
                incoming.reject();
                continue;
            };
            *place = Some(incoming.accept());
            missing -= 1;
        }
        Some(())
    });
    match all.await {
        Ok(Some(())) => {}
        Ok(None) => return None,
        Err(_) => {
            tracing::debug!("timed out waiting for client to create streams");
            connection.close().await;
            return None;
        }
    }
    let hang_up = connection.hang_up();
    let mut unwritten = Vec::new();
    let mut only_read = |stream: Stream| {
        let (reader, writer) = stream.split();
        unwritten.push(writer);
        reader
    };
    let [error, stdin, stdout, stderr, resize] = found.streams;
    let streams = Streams {
        stdin: stdin.map(&mut only_read),
        stdout: stdout.map(writer),
        stderr: stderr.map(writer),
        resizes: Resizes::new(resize.map(&mut only_read)),
        hang_up,
    };
    Some((Session { carrier: Carrier::Spdy(connection), error: error.map(writer), unwritten, protocol }, streams))
}

/// The streams that came so far, by what they are for.
#[derive(Default)]
struct Found {
    streams: [Option<Stream>; 5],
}

impl Found {
    /// The place of a kind that has not come yet.
    fn place(&mut self, kind: &str) -> Option<&mut Option<Stream>> {
        let index = ["error", "stdin", "stdout", "stderr", "resize"].iter().position(|known| *known == kind)?;
        Some(&mut self.streams[index]).filter(|place| place.is_none())
    }
}

/// Only what the peer writes.
fn reader(stream: Stream) -> Reader {
    stream.split().0
}

/// Only what the peer reads.
fn writer(stream: Stream) -> Writer {
    stream.split().1
}

/// The channels of a WebSocket exist from the start.
pub(crate) fn websocket<T>(io: T, wanted: Wanted, protocol: &'static str, options: Options) -> (Session, Streams)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut channels = Channels::new(Role::Server, protocol::coding(protocol), options.limits);
    let open_in = |is_wanted: bool, channel| is_wanted.then(|| channels.open_in(channel).map(reader)).flatten();
    let open_out = |is_wanted: bool, channel| is_wanted.then(|| channels.open_out(channel).map(writer)).flatten();
    let streams = Streams {
        stdin: open_in(wanted.stdin, STDIN),
        stdout: open_out(wanted.stdout, STDOUT),
        stderr: open_out(wanted.stderr, STDERR),
        resizes: Resizes::new(open_in(wanted.tty, RESIZE)),
        hang_up: channels.hang_up(),
    };
    let error = open_out(true, ERROR);
    channels.greet(match (wanted.stdout, wanted.stderr) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    });
    channels.start(io, options.idle);
    (Session { carrier: Carrier::WebSocket(channels), error, unwritten: Vec::new(), protocol }, streams)
}
