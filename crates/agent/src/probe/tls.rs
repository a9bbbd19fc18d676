//! TLS without verification: a probe asks whether a server answers, not who it is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, IpAddr, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How Go says it.
pub(super) const HTTP_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// Made at the first HTTPS probe. `None` can't happen with ring's protocol versions; it is an error, not a panic.
static CONFIG: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().ok()?;
    let verifier = Arc::new(Anybody(provider));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // One connection per probe: nothing to resume.
    config.resumption = rustls::client::Resumption::disabled();
    Some(Arc::new(config))
});

/// Shakes hands; the server's name goes along when it is a name.
pub(super) async fn connect(stream: TcpStream, host: &str) -> Result<TlsStream<Tap<TcpStream>>, String> {
    let config = CONFIG.clone().ok_or("tls: no protocol version")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = match bare.parse::<std::net::IpAddr>() {
        Ok(ip) => ServerName::IpAddress(IpAddr::from(ip)),
        Err(_) => ServerName::try_from(bare.to_owned()).map_err(|_| format!("tls: {bare:?} is no server name"))?,
    };
    let (tap, seen) = Tap::new(stream);
    TlsConnector::from(config).connect(name, tap).await.map_err(|e| {
        let seen = seen.first_bytes();
        match seen.as_slice() {
            [] if e.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            s if s.starts_with(b"HTTP/") => HTTP_ANSWER.to_owned(),
            // Handshake (22) and alert (21) records of any version.
            [20..=23, 3, ..] => format!("tls: {e}"),
            [] => super::dial::reason(&e),
            _ => "tls: first record does not look like a TLS handshake".to_owned(),
        }
    })
}

/// Believes every certificate. Signatures of the handshake are checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A stream whose first bytes are kept, for messages about what a server said instead.
pub(super) struct Tap<S> {
    inner: S,
    seen: Seen,
}

/// The first bytes that came through a [`Tap`].
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<u8>>>);

/// Enough for a status line in a message.
const SEEN_MAX: usize = 128;

impl Seen {
    pub(super) fn first_bytes(&self) -> Vec<u8> {
        self.0.lock().map(|s| s.clone()).unwrap_or_default()
    }
}

impl<S> Tap<S> {
    pub(super) fn new(inner: S) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { inner, seen: seen.clone() }, seen)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Ok(mut seen) = self.seen.0.lock() {
            let left = SEEN_MAX - seen.len();
            let fresh = &buf.filled()[before..];
            seen.extend(&fresh[..fresh.len().min(left)]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
