//! The TLS side: which certificate, which versions, and who the client is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{TlsFiles, TlsServerConfig, TlsVersion};

mod client;
mod reload;
mod self_made;

pub(crate) use client::Authenticator;
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
    pub(crate) authenticator: Arc<Authenticator>,
}

/// The files of the certificate: the given ones, or those that we make and keep.
pub(crate) fn files(config: &TlsServerConfig) -> Result<TlsFiles, TlsError> {
    match &config.files {
        Some(files) => Ok(files.clone()),
        None => self_made::files(&config.cert_dir, &config.host_name),
    }
}

/// Reads the files.
pub(crate) fn load(config: &TlsServerConfig, files: &TlsFiles) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(&config.cipher_suites)?);
    let authenticator = Arc::new(Authenticator::load(&config.authentication, &provider)?);
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(TlsError::Setup)?;
    let builder = match authenticator.asks_for_certificates() {
        Some(asks) => builder.with_client_cert_verifier(asks),
        None => builder.with_no_client_auth(),
    };
    let mut rustls = builder
        .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(|source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source })?;
    rustls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Callers come seldom and stay: remembering their sessions would cost more memory than it saves time.
    rustls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    rustls.send_tls13_tickets = 0;
    Ok(Loaded { rustls: Arc::new(rustls), authenticator })
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

/// All of ring's suites, or those of the wished ones that there are. TLS 1.3's cannot be wished away (as in Go).
fn provider(wished: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
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
        provider(&wished).unwrap().cipher_suites.iter().map(go_name).collect()
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
        let error = provider(&["TLS_RSA_WITH_RC4_128_SHA".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "none of tlsCipherSuites is supported: TLS_RSA_WITH_RC4_128_SHA");
    }
}
