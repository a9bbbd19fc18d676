//! Bodies of answers, with a limit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Why a body can't be had.
pub(crate) enum BodyTrouble {
    TooLong,
    Broken(String),
}

/// All of a body.
pub(crate) async fn whole(body: &mut Incoming, bytes_max: usize) -> Result<Bytes, BodyTrouble> {
    let mut all = BytesMut::new();
    while let Some(chunk) = next(body).await? {
        if all.len() + chunk.len() > bytes_max {
            return Err(BodyTrouble::TooLong);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// The next piece of a body; `None` at its end.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, BodyTrouble> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyTrouble::Broken(rubelet_host::chain(&e)))?;
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}
