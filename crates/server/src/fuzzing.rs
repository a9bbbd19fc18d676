//! Doors for `fuzz`: what strangers write, read by what reads it. Nothing else uses them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::v1;
use rubelet_cri::Runtime;
use rubelet_logline::{DecodeError, Decoder, Wanted};
use rubelet_proto::podresources::{AllocatableResourcesResponse, ContainerResources, DynamicResource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::Protocol;
use crate::metrics::{HttpCounts, Page, Pages, Preparing, Writing};
use crate::{Premises, Switches, View, listen};

/// How long what strangers sent may be answered: what waits for more of it is given up.
const PATIENCE: Duration = Duration::from_millis(200);

/// Some pods of a runtime, and a directory of logs.
pub struct Node {
    pub pods: Vec<Arc<v1::Pod>>,
    pub runtime: Arc<dyn Runtime>,
    pub log_dir: PathBuf,
}

struct Seen {
    node: Node,
    premises: Premises,
    http: Arc<HttpCounts>,
}

impl View for Seen {
    fn pods(&self) -> Vec<Arc<v1::Pod>> {
        self.node.pods.clone()
    }

    fn configz(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn sync_loop(&self) -> Result<(), String> {
        Ok(())
    }

    fn allocated(&self, _pod: &str, _container: &str) -> ContainerResources {
        ContainerResources::default()
    }

    fn dynamic_resources(&self, _pod: &v1::Pod, _container: &v1::Container) -> Vec<DynamicResource> {
        Vec::new()
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        AllocatableResourcesResponse::default()
    }

    fn device_plugins(&self) -> Result<(), String> {
        Ok(())
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.node.runtime.clone()
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn set_verbosity(&self, _level: u32) {}
}

impl Pages for Seen {
    fn page(&self, _page: Page) -> Preparing<'_> {
        let write: Writing = Box::new(|_| Ok(()));
        Box::pin(std::future::ready(write))
    }

    fn http(&self) -> &Arc<HttpCounts> {
        &self.http
    }
}

/// What a connection of the big server, open to all, answers to these bytes.
pub async fn connection(bytes: &[u8], is_http2: bool, node: Node) -> Vec<u8> {
    let switches = Switches {
        has_system_logs: true,
        // A query would ask the machine's journal.
        has_system_log_query: false,
        has_profiling: true,
        has_debug_flags: true,
        splits_log_streams: true,
        translates_web_sockets: true,
        has_checkpoints: true,
        has_flagz: true,
        has_statusz: true,
    };
    let premises = Premises { switches, log_dir: node.log_dir.clone(), ..Premises::default() };
    let view = Arc::new(Seen { node, premises, http: Arc::default() });
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
    let served = tokio::spawn(listen::serve_stranger(server, protocol, view));
    let mut all = Vec::new();
    let talk = async {
        let (mut read, mut write) = tokio::io::split(&mut client);
        let said = async {
            // It may have been refused before all of it was heard.
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        let _ = tokio::join!(said, read.read_to_end(&mut all));
    };
    let _ = tokio::time::timeout(PATIENCE, talk).await;
    drop(client);
    // What is not over by now is over without a client.
    assert!(!tokio::time::timeout(PATIENCE, served).await.is_ok_and(|end| end.is_err()), "serving panicked");
    all
}

/// A container's log, in one piece and in small ones: the same lines.
pub fn log(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let wanted = Wanted {
        stdout: first & 1 == 0,
        stderr: first & 2 == 0,
        timestamps: first & 4 != 0,
        bytes_max: (first & 8 != 0).then_some(u64::from(first)),
        lines_max: (first & 16 != 0).then_some(u64::from(first >> 5)),
        since: None,
    };
    let read = |piece: usize| -> Result<Vec<u8>, DecodeError> {
        let (mut decoder, mut out) = (Decoder::new(wanted.clone()), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            decoder.feed(piece, &mut out)?;
        }
        decoder.finish(&mut out)?;
        Ok(out)
    };
    let (whole, pieces) = (read(bytes.len()), read(3));
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}");
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&pieces));
        assert!(wanted.bytes_max.is_none_or(|max| whole.len() as u64 <= max), "more than was asked for");
    }
}
