//! One blob from a registry into the store: resumed where it broke, verified at the end.

use std::sync::Arc;

use super::blobs::{Ingest, StoreError};
use super::document::Descriptor;
use super::registry::{Registry, RegistryError, Stream};
use super::{ImageError, PullError, Store};

/// Bytes that are gathered before they are written: writing costs a trip to another thread.
const BATCH_BYTES: usize = 1 << 20;

/// One blob on its way.
pub(super) struct Download {
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) wanted: Descriptor,
}

impl Download {
    /// Fetches the blob unless it is here. `arrived` is told the bytes of each piece, and all of them if it is here.
    pub(super) async fn run(self, arrived: impl Fn(u64) + Send) -> Result<(), PullError> {
        let guard = self.store.blob_locks.lock(self.wanted.digest).await;
        let (store, digest, size) = (self.store.clone(), self.wanted.digest, self.wanted.size);
        let begun = blocking(move || {
            if store.blobs.has(digest) {
                return Ok(None);
            }
            store.blobs.ingest(digest, size, guard).map(Some)
        });
        let Some(mut ingest) = begun.await? else {
            arrived(size);
            return Ok(());
        };
        arrived(ingest.bytes());
        loop {
            ingest = self.complete(ingest, &arrived).await?;
            match blocking(move || Ok(ingest.finish())).await? {
                Ok(()) => {
                    self.store.reached("pull.arrived");
                    return Ok(());
                }
                // What was left from an earlier attempt was damaged: all of it once more.
                Err((broken, StoreError::Digest { .. })) if broken.was_resumed() => {
                    ingest = restarted(*broken).await?;
                }
                Err((broken, error)) => {
                    let _ = restarted(*broken).await;
                    return Err(PullError::Keep(error));
                }
            }
        }
    }

    /// Fetches what is missing, from where it broke off if it breaks.
    async fn complete(&self, mut ingest: Ingest, arrived: &(impl Fn(u64) + Send)) -> Result<Ingest, PullError> {
        let retry = self.store.options.retry;
        let mut failures = 0;
        while !ingest.is_complete() {
            let before = ingest.bytes();
            let outcome = match self.registry.blob(self.wanted.digest, before).await {
                Ok(stream) => {
                    let (back, outcome) = self.take(ingest, stream, arrived).await?;
                    ingest = back;
                    outcome
                }
                Err(error) => Err(error),
            };
            let Err(error) = outcome else { continue };
            failures = if ingest.bytes() > before { 1 } else { failures + 1 };
            if !error.is_passing() || failures >= retry.attempts {
                return Err(PullError::Copy(error));
            }
            tracing::info!("{}: {error}; going on at byte {}", self.wanted.digest, ingest.bytes());
            retry.pause(failures).await;
        }
        Ok(ingest)
    }

    /// Takes in what a stream gives. The ingest comes back also if the stream broke.
    async fn take(
        &self,
        mut ingest: Ingest,
        mut stream: Stream,
        arrived: &(impl Fn(u64) + Send),
    ) -> Result<(Ingest, Result<(), RegistryError>), PullError> {
        // A server that does not do parts begins at the beginning.
        let mut known = ingest.bytes().saturating_sub(stream.offset);
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            let piece = self.registry.wire.piece(&mut stream.body).await;
            if let Ok(Some(piece)) = &piece {
                let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(piece.len());
                known -= skipped as u64;
                batch.extend_from_slice(&piece[skipped..]);
            }
            let is_end = !matches!(piece, Ok(Some(_)));
            if !batch.is_empty() && (is_end || batch.len() >= BATCH_BYTES) {
                let (count, store) = (batch.len() as u64, self.store.clone());
                (ingest, batch) = blocking(move || {
                    ingest.write(&batch)?;
                    store.reached("pull.written");
                    batch.clear();
                    Ok((ingest, batch))
                })
                .await?;
                arrived(count);
            }
            let url = || stream.url.clone();
            match piece {
                Ok(Some(_)) => {}
                Ok(None) if ingest.is_complete() => return Ok((ingest, Ok(()))),
                Ok(None) => {
                    let reason = "unexpected EOF".to_owned();
                    return Ok((ingest, Err(RegistryError::Body { url: url(), reason, is_passing: true })));
                }
                Err(reason) => {
                    return Ok((ingest, Err(RegistryError::Body { url: url(), reason, is_passing: true })));
                }
            }
        }
    }
}

async fn restarted(mut ingest: Ingest) -> Result<Ingest, PullError> {
    blocking(move || {
        ingest.restart()?;
        Ok(ingest)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PullError> {
    let done = rubelet_host::task::blocking(work).await;
    done.map_err(|e| PullError::from(ImageError::panicked(e)))?.map_err(PullError::Keep)
}
