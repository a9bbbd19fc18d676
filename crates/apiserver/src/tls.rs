//! The TLS side of a connection to the API server.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::credentials::Pair;
use crate::plugin::read_pem;
use crate::settings::Tls;

/// What a handshake needs, from the files as they are now. Blocks.
///
/// # Errors
/// A file is missing or not PEM; there is no authority; certificate and key do not belong together.
pub(crate) fn config(tls: &Tls, ours: Option<Pair>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if tls.is_unverified {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(tls)?)
    };
    let mut config = match ours {
        None => builder.with_no_client_auth(),
        Some(Pair { certificate, key }) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
            let chain = chain.map_err(|e| format!("read our certificate: {e}"))?;
            if chain.is_empty() {
                return Err("read our certificate: there is none".to_owned());
            }
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("read our key: {e}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| format!("use our certificate: {e}"))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A node has one connection; a resumed one would not show a new certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(tls: &Tls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match &tls.authorities {
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
        Some(pem) => {
            let text = read_pem(pem)?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate =
                    certificate.map_err(|e| format!("read the certificate authorities in {pem:?}: {e}"))?;
                roots.add_parsable_certificates([certificate]);
            }
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate authority to trust".to_owned());
    }
    Ok(roots)
}

/// Believes every certificate, because the kubeconfig says so. Signatures of the handshake are checked.
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
