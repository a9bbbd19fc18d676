//! Answers and their bodies.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use rubelet_api::v1;

use crate::encode;

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
const NO_SNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

/// An answer's body.
pub(crate) enum Reply {
    /// All of it.
    Whole(Option<Bytes>),
    /// A `PodList`, one pod at a time.
    Pods(Pods),
    /// Whatever comes, when it comes.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>),
}

/// A `PodList` on its way out. Each pod is encoded when its turn comes, so that a long list takes no memory.
#[derive(Debug)]
pub(crate) struct Pods {
    left: VecDeque<Arc<v1::Pod>>,
    next: Part,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Head,
    First,
    Following,
    End,
}

impl Pods {
    fn part(&mut self) -> Option<Bytes> {
        let (text, next) = match (self.next, self.left.pop_front()) {
            (Part::Head, Some(pod)) => {
                self.left.push_front(pod);
                (r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_owned(), Part::First)
            }
            // Go's nil list.
            (Part::Head, None) => {
                (r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":null}"#.to_owned() + "\n", Part::End)
            }
            (Part::First, Some(pod)) => (encode::pod_json(&pod).to_string(), Part::Following),
            (Part::Following, Some(pod)) => (format!(",{}", encode::pod_json(&pod)), Part::Following),
            (Part::First | Part::Following, None) => ("]}\n".to_owned(), Part::End),
            (Part::End, _) => return None,
        };
        self.next = next;
        Some(Bytes::from(text))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Pods(pods) => pods.part(),
            Self::Stream(body) => return body.as_mut().poll_frame(context),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Pods(pods) => pods.next == Part::End,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Pods(_) => SizeHint::default(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// The list of these pods.
pub(crate) fn pods(pods: Vec<Arc<v1::Pod>>) -> Response<Reply> {
    let body = Reply::Pods(Pods { left: pods.into(), next: Part::Head });
    answer(StatusCode::OK, JSON, body)
}

/// A JSON value.
pub(crate) fn json(value: &serde_json::Value) -> Response<Reply> {
    sniffless(answer(StatusCode::OK, JSON, whole(value.to_string())))
}

/// A text, as it is.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Reply> {
    answer(status, TEXT, whole(text.into()))
}

/// A text that browsers must take for a text, as Go's own answers and health checks say.
pub(crate) fn plain_text(status: StatusCode, content: impl Into<String>) -> Response<Reply> {
    sniffless(text(status, content))
}

/// Nothing at this path.
pub(crate) fn not_found() -> Response<Reply> {
    plain_text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// kubelet 1.36: nothing at this path below one that there is.
pub(crate) fn no_route() -> Response<Reply> {
    text(StatusCode::NOT_FOUND, "404: Page Not Found")
}

/// A failure in words, as Go's `http.Error` writes it.
pub(crate) fn error(status: StatusCode, why: impl std::fmt::Display) -> Response<Reply> {
    plain_text(status, format!("{why}\n"))
}

/// Bytes as they come, of which nothing is known but the type.
pub(crate) fn stream(
    content_type: &'static str,
    body: impl Body<Data = Bytes, Error = io::Error> + Send + 'static,
) -> Response<Reply> {
    answer(StatusCode::OK, content_type, Reply::Stream(Box::pin(body)))
}

/// What a sender sends, until it is dropped.
pub(crate) struct Sent(pub(crate) tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Not with this method.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Response<Reply> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// kubelet 1.36: nothing but JSON is written here.
pub(crate) fn not_acceptable() -> Response<Reply> {
    text(StatusCode::NOT_ACCEPTABLE, "406: Not Acceptable\n\nAvailable representations: application/json")
}

/// Whether who asks takes JSON: by saying so, taking all, or saying nothing.
pub(crate) fn takes_json(headers: &HeaderMap) -> bool {
    let values = || headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let media = |value: &str| value.split(';').next().unwrap_or_default().trim().to_owned();
    let is_taken = |value: &str| matches!(media(value).as_str(), "*/*" | JSON);
    values().all(str::is_empty) || values().flat_map(|value| value.split(',')).any(is_taken)
}

pub(crate) fn whole(text: String) -> Reply {
    Reply::Whole((!text.is_empty()).then(|| Bytes::from(text)))
}

fn sniffless(mut response: Response<Reply>) -> Response<Reply> {
    let (name, value) = NO_SNIFF;
    response.headers_mut().insert(name, value);
    response
}

pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
