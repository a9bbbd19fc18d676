//! A client of the streams that Exec, Attach and PortForward lead to: WebSocket with a channel's number before each message.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use super::{Failure, Result};

/// Longest message that is taken.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;
/// How long a message may be in coming.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open connection.
pub(super) struct WebSocket {
    stream: BufStream<TcpStream>,
}

impl WebSocket {
    /// Opens the connection that an `http` URL leads to.
    pub(super) async fn open(url: &str, protocol: &str) -> Result<Self> {
        let said = |what: &str| Failure::Said(format!("{url}: {what}"));
        let (host, path) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| said("is no URL of a stream"))?;
        let mut stream = BufStream::new(TcpStream::connect(host).await?);
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Y29udHJhY3QgY29udHJhY3Q=\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\nOrigin: http://{host}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8 << 10 {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.starts_with("HTTP/1.1 101 ") { Ok(Self { stream }) } else { Err(said(&head)) }
    }

    /// Sends to a channel.
    pub(super) async fn send(&mut self, channel: u8, message: &[u8]) -> Result {
        let length = u8::try_from(message.len() + 1).ok().filter(|length| *length < 126);
        let length = length.ok_or_else(|| Failure::Said("the scenario's message is too long".to_owned()))?;
        // A client's frames are masked; a mask of zeros changes nothing.
        self.stream.write_all(&[0x82, 0x80 | length, 0, 0, 0, 0, channel]).await?;
        self.stream.write_all(message).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message: its channel and the bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        match tokio::time::timeout(PATIENCE, self.frame()).await {
            Ok(Ok(frame)) => Ok(frame),
            // Closed without a word.
            Ok(Err(Failure::Said(_))) => Ok(None),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Said("nothing more comes".to_owned())),
        }
    }

    async fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            let (first, second) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
            let length = match second & 0x7f {
                126 => self.stream.read_u16().await?.into(),
                127 => self.stream.read_u64().await?,
                short => u64::from(short),
            };
            if length > MESSAGE_BYTES_MAX {
                return Ok(None);
            }
            let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
            self.stream.read_exact(&mut message).await?;
            match first & 0x0f {
                0x1 | 0x2 if !message.is_empty() => return Ok(Some((message.remove(0), message))),
                0x8 => return Ok(None),
                // Pings and what is empty.
                _ => {}
            }
        }
    }

    /// Reads until the end, or until it is enough: the bytes of a channel.
    pub(super) async fn read(&mut self, channel: u8, is_enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        while !is_enough(&read) {
            match self.next().await? {
                Some((from, message)) if from == channel => read.extend(message),
                Some(_) => {}
                None => break,
            }
        }
        Ok(read)
    }
}
