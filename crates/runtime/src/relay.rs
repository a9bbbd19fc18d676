//! One connection of a port-forward: what a client says goes to the pod, and back.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const COPIED_AT_ONCE: usize = 16 * 1024;

/// Copies between a client and a pod until both have ended or one of them is gone. Only what the pod breaks is an error: a client that
/// gives up its stream has what it wanted (kubectl resets each stream as soon as the pod has ended), and one that is told of an error
/// closes all its others, too.
pub(crate) async fn relay<C, D, P, Q>(client: (C, D), pod: (P, Q)) -> io::Result<()>
where
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
    P: AsyncRead + Unpin,
    Q: AsyncWrite + Unpin,
{
    let mut up = pin!(copy(client.0, pod.1));
    let mut down = pin!(copy(pod.0, client.1));
    tokio::select! {
        ended = &mut up => match ended {
            Err(Broken::Source(_)) => Ok(()),
            // A pod that listens no more may still speak.
            Ok(()) | Err(Broken::Sink) => from_pod(down.await),
        },
        ended = &mut down => {
            if ended.is_ok() {
                // The pod has said all. How the client ends is its own business.
                drop(up.await);
            }
            from_pod(ended)
        }
    }
}

/// Which end of a copy broke.
enum Broken {
    Source(io::Error),
    Sink,
}

/// Copies until the source has ended, and tells the sink so.
async fn copy(mut source: impl AsyncRead + Unpin, mut sink: impl AsyncWrite + Unpin) -> Result<(), Broken> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    loop {
        let count = source.read(&mut buffer).await.map_err(Broken::Source)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return sink.shutdown().await.map_err(|_| Broken::Sink);
        };
        sink.write_all(read).await.map_err(|_| Broken::Sink)?;
    }
}

/// What became of a copy from a pod: an error if it was the pod's.
fn from_pod(ended: Result<(), Broken>) -> io::Result<()> {
    match ended {
        Err(Broken::Source(error)) => Err(error),
        Ok(()) | Err(Broken::Sink) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{ReadBuf, duplex, split};

    use super::*;

    /// A stream that the peer has reset.
    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[tokio::test]
    async fn a_client_that_resets_its_stream_is_no_error() {
        let (pod, _kept) = duplex(64);
        assert!(relay((Reset, tokio::io::sink()), split(pod)).await.is_ok());
    }

    #[tokio::test]
    async fn a_pod_that_breaks_is_one() {
        let (client, _kept) = duplex(64);
        let error = relay(split(client), (Reset, tokio::io::sink())).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_a_pod_says_after_the_client_has_ended_arrives() {
        let ((client, mut here), (pod, mut there)) = (duplex(64), duplex(64));
        let relayed = tokio::spawn(async move { relay(split(client), split(pod)).await });
        here.write_all(b"question").await.unwrap();
        here.shutdown().await.unwrap();
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        there.write_all(b"answer").await.unwrap();
        drop(there);
        let mut said = String::new();
        here.read_to_string(&mut said).await.unwrap();
        assert_eq!((heard.as_str(), said.as_str()), ("question", "answer"));
        assert!(relayed.await.unwrap().is_ok());
    }
}
