//! gRPC on a unix socket for drivers: one message in, one out, or one after the other.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Why a call is not done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// gRPC's number.
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { code: 13, message: message.into() }
    }

    pub(crate) fn unimplemented(method: &str) -> Self {
        Self { code: 12, message: format!("unknown method {method}") }
    }
}

/// Who answers.
pub(crate) trait Service: Send + Sync + 'static {
    /// One call by its path; the answer's bytes.
    fn answer(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// Messages one after the other, for calls that are answered so.
    fn stream(self: Arc<Self>, _path: &str) -> Option<mpsc::Receiver<Vec<u8>>> {
        None
    }
}

/// A driver on its sockets, until it is dropped.
pub(crate) struct Served {
    sockets: Vec<PathBuf>,
    tasks: tokio::task::JoinSet<()>,
}

impl Served {
    /// The first socket first: it is where the work is done, and who finds the registration may ask at once.
    pub(crate) fn start<S: Service>(sockets: Vec<PathBuf>, driver: S) -> io::Result<Self> {
        let (driver, mut tasks) = (Arc::new(driver), tokio::task::JoinSet::new());
        for socket in &sockets {
            tasks.spawn(serve(listen(socket)?, driver.clone()));
        }
        Ok(Self { sockets, tasks })
    }

    /// Serves until the future is dropped.
    pub(crate) async fn run(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // It may be gone already: a test took it away.
            let _ = fs::remove_file(socket);
        }
    }
}

/// Listens, in place of whoever did before.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(socket)
}

/// Answers, for ever.
async fn serve<S: Service>(listener: UnixListener, driver: Arc<S>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let driver = driver.clone();
        let service = hyper::service::service_fn(move |request| one(driver.clone(), request));
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connections.spawn(async move {
            // How a connection ends is the client's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn one<S: Service>(driver: Arc<S>, request: Request<Incoming>) -> Result<Response<Framed>, Infallible> {
    let path = request.uri().path().to_owned();
    if let Some(messages) = driver.clone().stream(&path) {
        return Ok(response(Framed { message: None, more: Some(messages), trailers: Some(ended(None)) }));
    }
    let answer = match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let work = move || driver.answer(&path, body.get(PREFIX_BYTES..).unwrap_or_default());
            match tokio::task::spawn_blocking(work).await {
                Ok(answer) => answer,
                Err(error) => Err(Refusal::internal(error.to_string())),
            }
        }
        Err(error) => Err(Refusal::invalid(error.to_string())),
    };
    let trailers = Some(ended(answer.as_ref().err()));
    Ok(response(Framed { message: answer.ok().map(|message| framed(&message)), more: None, trailers }))
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// How a call ended.
fn ended(refusal: Option<&Refusal>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(refusal.map_or(0, |refusal| refusal.code)));
    if let Some(refusal) = refusal {
        let plain: String = refusal.message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
        if let Ok(said) = HeaderValue::from_str(&plain) {
            trailers.insert("grpc-message", said);
        }
    }
    trailers
}

fn response(body: Framed) -> Response<Framed> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A message or several, then trailers.
struct Framed {
    message: Option<Bytes>,
    more: Option<mpsc::Receiver<Vec<u8>>>,
    trailers: Option<HeaderMap>,
}

impl Body for Framed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(more) = &mut self.more
            && let Some(message) = std::task::ready!(more.poll_recv(cx))
        {
            return Poll::Ready(Some(Ok(Frame::data(framed(&message)))));
        }
        self.more = None;
        let frame = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}
