//! One GET with redirects and a bounded body.

use std::fs;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rubelet_api::pod::MANIFEST_BYTES;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::probe::location;

/// Where distributions keep the authorities that they trust; the first that exists is read.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const REDIRECTS_MAX: usize = 10;

/// A client for one URL.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
}

impl Fetcher {
    /// Checks URL and headers; reads the trusted authorities (none is fine for `http`).
    pub(super) fn new(url: &str, headers: &[(String, String)]) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err("not an http or https URL".to_owned());
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("user and password in the URL are not supported, use staticPodURLHeader".to_owned());
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header name"))?;
            let value =
                HeaderValue::try_from(value).map_err(|_| format!("the value of header {name} is not allowed"))?;
            map.append(name, value);
        }
        map.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("rubelet/", env!("CARGO_PKG_VERSION"))));
        let tls = tls_config(uri.scheme_str() == Some("https"))?;
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, uri, headers: map })
    }

    /// The body of a 200 answer; everything else is an error in words.
    pub(super) async fn get(&self) -> Result<Vec<u8>, String> {
        let mut uri = self.uri.clone();
        let mut headers = self.headers.clone();
        for _ in 0..REDIRECTS_MAX {
            let mut request = Request::get(uri.clone());
            if let Some(map) = request.headers_mut() {
                *map = headers.clone();
            }
            let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
            let answer = self.client.request(request).await.map_err(|e| rubelet_host::chain(&e))?;
            let status = answer.status();
            if status == StatusCode::OK {
                let body = Limited::new(answer.into_body(), MANIFEST_BYTES).collect().await;
                let body = body.map_err(|e| format!("read the body (at most {MANIFEST_BYTES} bytes): {e}"))?;
                return Ok(body.to_bytes().to_vec());
            }
            let target = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let next = target.filter(|_| location::is_redirect(status)).and_then(|l| location::join(&uri, l));
            let Some(next) = next else { return Err(format!("{uri}: {status}")) };
            if next.host() != uri.host() {
                for secret in [AUTHORIZATION, COOKIE, WWW_AUTHENTICATE] {
                    headers.remove(secret);
                }
            }
            uri = next;
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    }
}

fn tls_config(is_needed: bool) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let bundle = BUNDLES.iter().find_map(|path| fs::read(path).ok());
    let certificates = bundle.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem).flatten());
    roots.add_parsable_certificates(certificates);
    if is_needed && roots.is_empty() {
        tracing::warn!("no trusted certificate authorities found, no https server will be believed");
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
