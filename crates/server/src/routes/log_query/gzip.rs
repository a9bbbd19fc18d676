//! Where a query's answer goes, compressed if the client wants it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;

/// Takes bytes as they come, one piece at a time.
pub(super) struct Out {
    sender: mpsc::Sender<Bytes>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Out {
    pub(super) fn new(sender: mpsc::Sender<Bytes>, is_gzip: bool) -> Self {
        Self { sender, encoder: is_gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    /// Whether nobody takes it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn write(&mut self, bytes: Vec<u8>) {
        let bytes = match &mut self.encoder {
            None => bytes,
            Some(encoder) => {
                // Writing to memory does not fail.
                let _ = encoder.write_all(&bytes);
                std::mem::take(encoder.get_mut())
            }
        };
        if !bytes.is_empty() {
            let _ = self.sender.send(Bytes::from(bytes)).await;
        }
    }

    pub(super) async fn finish(self) {
        if let Some(encoder) = self.encoder
            && let Ok(rest) = encoder.finish()
        {
            let _ = self.sender.send(Bytes::from(rest)).await;
        }
    }
}
