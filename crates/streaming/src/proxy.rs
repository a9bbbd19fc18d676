//! A request for an upgrade is carried on to another server as it is, and then the bytes of both.

use ::http::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use ::http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::client::{self, ConnectError};
use crate::http::{Body, is_upgrade, text_response};
use crate::join::join;

/// Bytes of an answer that does not upgrade.
const ANSWER_MAX: usize = 1024 * 1024;

/// Asks `target` what the client asks, passes its answer on, and joins the two connections if both are upgraded: until one of them ends, in
/// a task of its own. A request for no upgrade is answered with 400, as kubelet 1.36 does.
///
/// # Errors
/// `target` cannot be reached or does not answer.
pub async fn forward(request: Request<Incoming>, target: &Uri) -> Result<Response<Body>, ConnectError> {
    if !is_upgrade(request.headers()) {
        return Ok(text_response(StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
    }
    let headers: HeaderMap = request
        .headers()
        .iter()
        .filter(|(name, _)| *name != HOST)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let answer = client::ask(client::dial(target).await?, request.method().clone(), target, headers).await?;
    let mut response = Response::new(Body::default());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        *response.body_mut() = body.map(http_body_util::Collected::to_bytes).unwrap_or_default().into();
        // Those of the new body are set when it is sent.
        response.headers_mut().remove(TRANSFER_ENCODING);
        response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(response);
    }
    let server = client::upgraded(answer).await?;
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => join(TokioIo::new(client), server).await,
            Err(error) => tracing::debug!(%error, "streams: the client's connection was not upgraded"),
        }
    });
    Ok(response)
}
