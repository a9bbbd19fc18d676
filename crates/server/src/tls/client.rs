//! Who asks: anyone, or whoever shows a certificate of the right authority.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{TlsError, certificates};
use crate::Authentication;

/// Tells whether a request may be answered at all.
#[derive(Debug)]
pub(crate) struct Authenticator {
    is_anonymous_allowed: bool,
    authority: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authenticator {
    pub(super) fn load(config: &Authentication, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let authority = match &config.client_ca_file {
            None => None,
            Some(path) => {
                let failed = |error: &dyn std::fmt::Display| TlsError::ClientCa {
                    path: path.clone(),
                    message: error.to_string(),
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| failed(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                Some(verifier.build().map_err(|error| failed(&error))?)
            }
        };
        Ok(Self { is_anonymous_allowed: config.anonymous, authority })
    }

    /// Whether whoever showed these certificates (the client's own first; maybe none) is someone we answer.
    pub(crate) fn knows(&self, shown: &[CertificateDer<'_>]) -> bool {
        self.is_anonymous_allowed || self.is_certified(shown)
    }

    fn is_certified(&self, shown: &[CertificateDer<'_>]) -> bool {
        match (&self.authority, shown.split_first()) {
            (Some(authority), Some((own, chain))) => authority.verify_client_cert(own, chain, UnixTime::now()).is_ok(),
            (None, _) | (_, None) => false,
        }
    }

    /// For the handshake: certificates are asked for when there is an authority to judge them by.
    pub(super) fn asks_for_certificates(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.authority.clone().map(|authority| Arc::new(Asks { authority }) as Arc<dyn ClientCertVerifier>)
    }
}

/// Takes any certificate, or none, in the handshake; a bad one is answered with 401 later, as upstream does. Only that
/// the client holds the key is proven here.
#[derive(Debug)]
struct Asks {
    authority: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Asks {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authority.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}
