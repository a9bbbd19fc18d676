//! The HTTP before a connection is upgraded.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::{protocol, spdy, websocket};

/// What responses carry.
pub type Body = Full<Bytes>;

const VERSIONS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What the two sides agreed on, and what tells the client so.
pub(crate) struct Agreement {
    pub(crate) protocol: &'static str,
    pub(crate) response: Response<Body>,
}

/// The request wants the connection to become something else.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| contains(value, "upgrade"))
}

/// The request wants a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let is_named = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    is_upgrade(headers) && headers.get(UPGRADE).is_some_and(is_named)
}

/// The WebSocket protocols that the request offers.
pub(crate) fn websocket_protocols(headers: &HeaderMap) -> Vec<String> {
    listed(headers, &WEBSOCKET_PROTOCOL)
}

fn contains(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(word))
}

fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Agrees on a version of SPDY streams. The error is what the client is to be told.
pub(crate) fn agree_spdy(
    headers: &HeaderMap,
    spoken: &'static [&'static str],
) -> Result<Agreement, Box<Response<Body>>> {
    if !headers.contains_key(&VERSIONS) {
        let count = headers.keys_len();
        let text = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {count} headers\n"
        );
        return Err(Box::new(text_response(StatusCode::BAD_REQUEST, text)));
    }
    let offered = listed(headers, &VERSIONS);
    if offered.is_empty() {
        let text = "unable to upgrade: header X-Stream-Protocol-Version contains no valid protocols\n";
        return Err(Box::new(text_response(StatusCode::BAD_REQUEST, text.to_owned())));
    }
    let Some(protocol) = protocol::choose(&offered, spoken) else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]\n",
            offered.join(" "),
            spoken.join(" ")
        );
        let mut response = text_response(StatusCode::FORBIDDEN, text);
        for name in spoken {
            response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(name));
        }
        return Err(Box::new(response));
    };
    let names_spdy = |value: &HeaderValue| contains(value, "spdy/3.1");
    if !is_upgrade(headers) || !headers.get(UPGRADE).is_some_and(names_spdy) {
        let text = "unable to upgrade: missing upgrade headers in request\n";
        return Err(Box::new(text_response(StatusCode::BAD_REQUEST, text.to_owned())));
    }
    let mut response = switch(spdy::NAME);
    response.headers_mut().insert(VERSIONS, HeaderValue::from_static(protocol));
    Ok(Agreement { protocol, response })
}

/// Agrees on a WebSocket protocol. The error is what the client is to be told.
pub(crate) fn agree_websocket(
    headers: &HeaderMap,
    spoken: &'static [&'static str],
) -> Result<Agreement, Box<Response<Body>>> {
    let key = headers.get(&WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).map(str::trim);
    let is_13 = headers.get(&WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let (Some(key), true) = (key, is_13) else {
        let text = "unable to upgrade: Sec-WebSocket-Key and Sec-WebSocket-Version 13 are required\n";
        return Err(Box::new(text_response(StatusCode::BAD_REQUEST, text.to_owned())));
    };
    let offered = match websocket_protocols(headers) {
        none if none.is_empty() => vec![String::new()],
        some => some,
    };
    let Some(protocol) = protocol::choose(&offered, spoken) else {
        let text = format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            offered.join(" "),
            spoken.join(" ")
        );
        return Err(Box::new(text_response(StatusCode::FORBIDDEN, text)));
    };
    let mut response = switch("websocket");
    if let Ok(accept) = HeaderValue::from_str(&websocket::accept_key(key)) {
        response.headers_mut().insert(WEBSOCKET_ACCEPT, accept);
    }
    if !protocol.is_empty() {
        response.headers_mut().insert(WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(Agreement { protocol, response })
}

fn switch(to: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// A text for a person.
pub(crate) fn text_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Go's answer to an unknown path.
pub(crate) fn not_found() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

pub(crate) fn method_not_allowed() -> Response<Body> {
    let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}
