//! The task of a connection: reads into the link, writes what waits there, and ends it in an order in which nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use super::link::{End, Link, Out};

const READ_BUFFER: usize = 16 * 1024;
/// Entries are put together up to about this many bytes before they are written.
const WRITE_BUFFER: usize = 64 * 1024;
/// How long a connection that is being closed may make no progress.
const CLOSING: Duration = Duration::from_secs(30);
/// How long the peer may take to close its side after we closed ours. Until then what it sends is read and dropped: the kernel would
/// answer it with a reset that could take away what the peer has not read yet.
const LINGER: Duration = Duration::from_secs(5);

/// Whether there is more to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on.
    More,
    /// The peer said that it is done.
    Done,
}

/// How a protocol takes in what came.
pub(crate) trait Inbound {
    /// Takes all of `input`. The error, a text, ends the connection.
    fn take(&mut self, input: &[u8], link: &Arc<Link>) -> Result<Flow, String>;
}

/// How a protocol writes.
pub(crate) trait Outbound {
    /// Appends the encoded entry.
    fn put(&mut self, out: Out, buffer: &mut BytesMut);
}

enum Left {
    Reading(Result<(), String>),
    Writing(std::io::Result<()>),
    Quiet,
}

/// Carries a connection until it ends. `idle` is how long there may be no traffic in either direction.
pub(crate) async fn drive<T, I, O>(io: T, link: Arc<Link>, mut inbound: I, mut outbound: O, idle: Duration)
where
    T: AsyncRead + AsyncWrite + Unpin,
    I: Inbound,
    O: Outbound,
{
    let _end_at_last = EndAtLast(link.clone());
    let (mut reader, mut writer) = tokio::io::split(io);
    let left = {
        let mut writing = std::pin::pin!(write(&mut writer, &link, &mut outbound));
        let left = tokio::select! {
            result = read(&mut reader, &link, &mut inbound) => Left::Reading(result),
            result = &mut writing => Left::Writing(result),
            () = quiet(&link, idle) => Left::Quiet,
        };
        if let Left::Reading(result) = &left {
            link.end(if result.is_ok() { End::Closed } else { End::Lost });
            link.close(None);
            _ = timeout(LINGER, writing).await;
        }
        left
    };
    match left {
        Left::Reading(result) => {
            if let Err(reason) = result {
                tracing::debug!(reason, "streaming connection ended");
            }
            _ = timeout(LINGER, writer.shutdown()).await;
        }
        Left::Writing(Ok(())) => {
            link.end(End::Closed);
            _ = timeout(LINGER, async {
                writer.shutdown().await?;
                let mut buffer = vec![0; READ_BUFFER];
                while reader.read(&mut buffer).await? > 0 {}
                std::io::Result::Ok(())
            })
            .await;
        }
        Left::Writing(Err(error)) => {
            tracing::debug!(%error, "streaming connection ended");
            link.end(End::Lost);
        }
        Left::Quiet => {
            tracing::debug!("streaming connection ended: no traffic");
            link.end(End::Lost);
        }
    }
}

/// Whatever ends the task, the readers and writers learn of it.
struct EndAtLast(Arc<Link>);

impl Drop for EndAtLast {
    fn drop(&mut self) {
        self.0.end(End::Lost);
    }
}

async fn read<R, I>(reader: &mut R, link: &Arc<Link>, inbound: &mut I) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    I: Inbound,
{
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        link.room().await;
        let len = reader.read(&mut buffer).await.map_err(|error| error.to_string())?;
        link.touch();
        if len == 0 || inbound.take(&buffer[..len], link)? == Flow::Done {
            return Ok(());
        }
    }
}

async fn write<W, O>(writer: &mut W, link: &Link, outbound: &mut O) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
    O: Outbound,
{
    while let Some(first) = link.next_out().await {
        let mut buffer = BytesMut::new();
        let mut next = Some(first);
        while let Some(out) = next {
            outbound.put(out, &mut buffer);
            next = if buffer.len() < WRITE_BUFFER { link.waiting_out() } else { None };
        }
        while !buffer.is_empty() {
            if writer.write_buf(&mut buffer).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            link.touch();
        }
        writer.flush().await?;
    }
    Ok(())
}

/// Returns when there was no traffic for too long.
async fn quiet(link: &Link, idle: Duration) {
    loop {
        let (last, is_closing) = link.last_traffic();
        let until = last + if is_closing { idle.min(CLOSING) } else { idle };
        tokio::select! {
            () = sleep_until(until) => {
                if link.last_traffic().0 == last {
                    return;
                }
            }
            () = link.closing() => {}
        }
    }
}
