//! Two connections become one.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split};
use tokio::time::timeout;

/// How long the server may go on after the client has ended.
const REMAINDER: Duration = Duration::from_secs(30);
/// How long the client may take to close after the server has ended. What it sends until then is read, as the kernel would answer it with
/// a reset that could take away what the client has not read yet.
const LINGER: Duration = Duration::from_secs(5);

/// Copies in both directions until one side ends, and what the other one has to say then.
pub(crate) async fn join<C, S>(client: C, server: S)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    // Whichever copy breaks, both connections end now; there is nobody left to tell.
    let mut up = std::pin::pin!(async {
        let is_whole = copy(&mut from_client, &mut to_server).await.is_ok();
        _ = to_server.shutdown().await;
        if !is_whole {
            _ = copy(&mut from_client, &mut sink()).await;
        }
    });
    let mut down = std::pin::pin!(async {
        _ = copy(&mut from_server, &mut to_client).await;
        _ = to_client.shutdown().await;
    });
    tokio::select! {
        () = &mut up => drop(timeout(REMAINDER, down).await),
        () = &mut down => drop(timeout(LINGER, up).await),
    }
}
