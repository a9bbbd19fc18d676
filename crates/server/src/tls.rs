//! The TLS side: which certificate, which versions, and who the client is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Certificate, TlsFiles, TlsServerConfig, TlsVersion};

mod client;
mod reload;
mod self_made;

pub(crate) use client::{Authority, ShownCertificates};
pub(crate) use reload::Reloading;

/// Why there can be no TLS server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("no certificate in {}", path.display())]
    NoCertificate { path: PathBuf },
    #[error("use the certificate {} with the key {}: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("use the client CA file {}: {message}", path.display())]
    ClientCa { path: PathBuf, message: String },
    /// None of the wished cipher suites is one that we have.
    #[error("none of tlsCipherSuites is supported: {}", wished.join(","))]
    CipherSuites { wished: Vec<String> },
    /// None of the wished curves is one that we have.
    #[error("none of tlsCurvePreferences is supported: {wished:?} (23, 24 and 29 are)")]
    Curves { wished: Vec<u16> },
    #[error("set up TLS: {0}")]
    Setup(rustls::Error),
    /// kubelet 1.36 stops here too: one of the two files was lost.
    #[error("found {} but not {}: remove it, or restore the other", present.display(), missing.display())]
    HalfPair { present: PathBuf, missing: PathBuf },
    #[error("make a self-signed certificate for {host:?}: {source}")]
    Make { host: String, source: rcgen::Error },
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// What a handshake needs, read from the files once.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) rustls: Arc<ServerConfig>,
    /// `None`: client certificates mean nothing.
    pub(crate) authority: Option<Arc<Authority>>,
}

/// The files of the certificate: the given ones, those that others renew, or those that we make and keep.
pub(crate) fn files(config: &TlsServerConfig) -> Result<TlsFiles, TlsError> {
    match &config.certificate {
        Certificate::Files(files) => Ok(files.clone()),
        Certificate::Rotated(path) => Ok(TlsFiles { certificate: path.clone(), key: path.clone() }),
        Certificate::SelfSigned => self_made::files(&config.cert_dir, &config.host_name),
    }
}

/// Reads the files.
pub(crate) fn load(config: &TlsServerConfig, files: &TlsFiles) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(&config.cipher_suites, &config.curves)?);
    let authority = Authority::load(&config.authentication, &provider)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(TlsError::Setup)?;
    let builder = match &authority {
        Some(authority) => builder.with_client_cert_verifier(authority.asks()),
        None => builder.with_no_client_auth(),
    };
    let is_awaited = matches!(config.certificate, Certificate::Rotated(_)) && !files.certificate.exists();
    let mut rustls = if is_awaited {
        // kubelet 1.36: until the API server has signed a certificate, handshakes fail.
        builder.with_cert_resolver(Arc::new(NoCertificate))
    } else {
        builder.with_single_cert(certificates(&files.certificate)?, key(&files.key)?).map_err(|source| {
            TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source }
        })?
    };
    rustls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Callers come seldom and stay: remembering their sessions would cost more memory than it saves time.
    rustls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    rustls.send_tls13_tickets = 0;
    Ok(Loaded { rustls: Arc::new(rustls), authority })
}

/// Has none to offer.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// All of ring's suites and curves, or those of the wished ones that there are. TLS 1.3's suites cannot be wished away
/// (as in Go), and the order of curves is ours.
fn provider(wished: &[String], curves: &[u16]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if !curves.is_empty() {
        provider.kx_groups.retain(|group| curves.contains(&u16::from(group.name())));
        if provider.kx_groups.is_empty() {
            return Err(TlsError::Curves { wished: curves.to_vec() });
        }
    }
    if wished.is_empty() {
        return Ok(provider);
    }
    let is_13 = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    for name in wished.iter().filter(|name| !provider.cipher_suites.iter().any(|suite| go_name(suite) == **name)) {
        tracing::warn!(suite = name, "TLS cipher suite is not supported, going on without it");
    }
    provider.cipher_suites.retain(|suite| is_13(suite) || wished.iter().any(|name| *name == go_name(suite)));
    let is_any_wished = provider.cipher_suites.iter().any(|suite| wished.iter().any(|name| *name == go_name(suite)));
    if is_any_wished { Ok(provider) } else { Err(TlsError::CipherSuites { wished: wished.to_vec() }) }
}

/// Go's name of a suite: for TLS 1.3 without the version.
fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wished: &[&str]) -> Vec<String> {
        let wished: Vec<String> = wished.iter().map(|&name| name.to_owned()).collect();
        provider(&wished, &[]).unwrap().cipher_suites.iter().map(go_name).collect()
    }

    #[test]
    fn wished_suites_are_the_only_ones_of_tls_1_2() {
        let old: Vec<String> = names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"])
            .into_iter()
            .filter(|name| name.contains("_WITH_"))
            .collect();
        assert_eq!(old, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert!(names(&[]).iter().filter(|name| name.contains("_WITH_")).count() >= 6);
        assert!(names(&["TLS_AES_128_GCM_SHA256"]).contains(&"TLS_AES_256_GCM_SHA384".to_owned()));
    }

    #[test]
    fn wishing_only_for_what_is_not_there_is_an_error() {
        let error = provider(&["TLS_RSA_WITH_RC4_128_SHA".to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "none of tlsCipherSuites is supported: TLS_RSA_WITH_RC4_128_SHA");
    }

    #[test]
    fn curves_are_the_wished_ones() {
        let names = |curves: &[u16]| -> Result<Vec<u16>, TlsError> {
            Ok(provider(&[], curves)?.kx_groups.iter().map(|one| u16::from(one.name())).collect())
        };
        assert_eq!(names(&[23, 4588]).unwrap(), vec![23]);
        assert_eq!(names(&[]).unwrap().len(), 3);
        let error = names(&[4588, 25]).unwrap_err();
        assert_eq!(error.to_string(), "none of tlsCurvePreferences is supported: [4588, 25] (23, 24 and 29 are)");
    }
}
