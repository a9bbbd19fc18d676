//! `/metrics…` and `/stats/summary`: written while they are read, so that a page takes no memory.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::Asked;
use crate::View;
use crate::metrics::{Page, Writing};
use crate::respond::{self, Reply};

#[cfg(test)]
mod tests;

/// kubelet 1.36: whatever is accepted, but for protobuf, which we do not write: those who can read it read this, too.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
const JSON: &str = "application/json";
/// A piece of a page, and how many of them wait for a slow client.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_MAX: usize = 2;

/// The page at this path; `None`: there is none.
pub(super) fn page(asked: Asked<'_>) -> Option<Page> {
    Some(match asked.path {
        "/metrics" => Page::Metrics,
        "/metrics/cadvisor" => Page::Cadvisor,
        "/metrics/resource" => Page::Resource,
        "/metrics/probes" => Page::Probes,
        "/metrics/slis" => Page::Slis,
        "/stats/summary" => {
            let is_cpu_and_memory_only = asked.query.split('&').any(|pair| pair == "only_cpu_and_memory=true");
            Page::Summary { is_cpu_and_memory_only }
        }
        _ => return None,
    })
}

/// The page as an answer.
pub(super) async fn respond(view: Arc<dyn View>, method: &Method, headers: &HeaderMap, page: Page) -> Response<Reply> {
    let is_summary = matches!(page, Page::Summary { .. });
    if is_summary && method != Method::GET && method != Method::POST {
        return respond::method_not_allowed("GET, POST");
    }
    if is_summary && !respond::takes_json(headers) {
        return respond::not_acceptable();
    }
    let Ok(turn) = view.http().turns.clone().acquire_owned().await else {
        // The semaphore is never closed.
        return respond::plain_text(StatusCode::SERVICE_UNAVAILABLE, "no page can be written\n");
    };
    let write = view.page(page).await;
    let is_packed = !is_summary && wants_gzip(headers);
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    rubelet_host::task::blocking(move || {
        let mut sink = Sink { pieces, piece: BytesMut::with_capacity(PIECE_BYTES) };
        if let Err(error) = write_into(&mut sink, write, is_packed) {
            // Whoever hung up does not hear it; whoever waits must not take half a page for a whole one.
            let _ = sink.pieces.blocking_send(Err(error));
        }
        drop(turn);
    });
    let mut response = Response::new(Reply::Stream(Box::pin(Pieces { waiting })));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(if is_summary { JSON } else { TEXT }));
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn write_into(sink: &mut Sink, write: Writing, is_packed: bool) -> io::Result<()> {
    if is_packed {
        let mut packed = GzEncoder::new(&mut *sink, Compression::fast());
        write(&mut packed)?;
        packed.finish()?;
    } else {
        write(sink)?;
    }
    sink.flush()
}

/// kubelet 1.36: packed for those who say so, unless they like it as it is just as much.
fn wants_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity) = (0.0, 0.0);
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for word in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = word.split_once(';').unwrap_or((word, ""));
        let quality = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        match name.trim() {
            "gzip" => gzip = quality,
            "identity" => identity = quality,
            _ => {}
        }
    }
    gzip > identity
}

/// Where a page is written to: piece after piece goes to the client, who may be slow.
struct Sink {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() + bytes.len() > PIECE_BYTES {
            self.flush()?;
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A page on its way out.
struct Pieces {
    waiting: mpsc::Receiver<io::Result<Bytes>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.waiting.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
