//! Where tokens stand in a request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of the `Authorization` header, if that is a bearer's.
pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    let header = String::from_utf8_lossy(headers.get(AUTHORIZATION)?.as_bytes()).into_owned();
    let mut parts = header.trim().splitn(3, ' ');
    let is_bearer = parts.next()?.eq_ignore_ascii_case("bearer");
    // A second space before the token makes it empty, and an empty one is none: as upstream.
    parts.next().filter(|token| is_bearer && !token.is_empty()).map(str::to_owned)
}

/// A token among the protocols of a WebSocket, which cannot set headers in browsers.
pub(super) struct ProtocolToken {
    pub(super) token: String,
    /// The other protocols: what the header is to be.
    pub(super) others: HeaderValue,
}

/// The token among the protocols; `None` where there is none.
///
/// # Errors
/// Two of them, one that is malformed, or no other protocol beside it.
pub(super) fn protocol(headers: &HeaderMap) -> Result<Option<ProtocolToken>, &'static str> {
    if !is_web_socket(headers) {
        return Ok(None);
    }
    let mut found = None;
    let mut others = Vec::new();
    for header in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let header = String::from_utf8_lossy(header.as_bytes()).into_owned();
        for protocol in header.split(',').map(str::trim) {
            let Some(encoded) = protocol.strip_prefix(PROTOCOL) else {
                others.push(protocol.to_owned());
                continue;
            };
            if found.is_some() {
                return Err("multiple base64.bearer.authorization tokens specified");
            }
            let bytes =
                URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "invalid base64.bearer.authorization token encoding")?;
            found = Some(String::from_utf8(bytes).map_err(|_| "invalid base64.bearer.authorization token")?);
        }
    }
    let Some(token) = found.filter(|token| !token.is_empty()) else { return Ok(None) };
    if others.is_empty() {
        return Err("missing additional subprotocol");
    }
    let others = HeaderValue::from_str(&others.join(",")).map_err(|_| "malformed subprotocol")?;
    Ok(Some(ProtocolToken { token, others }))
}

fn is_web_socket(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(&name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let upgrades = text(CONNECTION)
        .is_some_and(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade")));
    upgrades && text(UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn bearers_are_found() {
        for (header, wanted) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER abc more", Some("abc")),
            (" Bearer abc ", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("Bearer\tabc", None),
            ("", None),
        ] {
            assert_eq!(bearer(&headers(&[("authorization", header)])).as_deref(), wanted, "{header:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
        let two = headers(&[("authorization", "Basic x"), ("authorization", "Bearer abc")]);
        assert_eq!(bearer(&two), None, "the first counts");
    }

    #[test]
    fn a_protocol_may_be_the_token() {
        let web_socket = |protocols: &[&str]| {
            let mut headers = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
            for one in protocols {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(one).unwrap());
            }
            protocol(&headers).map(|found| found.map(|found| (found.token, found.others.to_str().unwrap().to_owned())))
        };
        let token = "base64url.bearer.authorization.k8s.io.YWJj";
        let found = Ok(Some(("abc".to_owned(), "v5,v4".to_owned())));
        assert_eq!(web_socket(&[&format!("v5, {token}"), "v4"]), found);
        assert_eq!(web_socket(&["v5"]), Ok(None));
        assert_eq!(web_socket(&[token]), Err("missing additional subprotocol"));
        assert_eq!(web_socket(&[token, token]), Err("multiple base64.bearer.authorization tokens specified"));
        assert_eq!(web_socket(&["base64url.bearer.authorization.k8s.io.", "v5"]), Ok(None));
        assert!(web_socket(&["base64url.bearer.authorization.k8s.io.=", "v5"]).is_err());
        assert!(web_socket(&["base64url.bearer.authorization.k8s.io._w", "v5"]).is_err());
        let elsewhere = headers(&[("sec-websocket-protocol", "v5"), ("sec-websocket-protocol", token)]);
        assert!(protocol(&elsewhere).is_ok_and(|found| found.is_none()), "only a WebSocket has protocols");
    }
}
