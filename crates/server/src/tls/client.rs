//! Who a client's certificates say it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;

use super::{TlsError, certificates};
use crate::Authentication;
use crate::auth::{self, Caller, Certified};

/// kubelet 1.36: says which certificate it was, among what the API server is told of a caller.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";
/// How long a verdict on a connection's certificates holds: one of them may run out.
const VERDICT: Duration = Duration::from_secs(10);

/// Whose certificates are believed.
#[derive(Debug)]
pub(crate) struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    roots: Vec<Root>,
    provider: Arc<CryptoProvider>,
    reads_uids: bool,
}

/// One of those who sign, and from when until when: the TLS library does not look at that.
#[derive(Debug)]
struct Root {
    certificate: CertificateDer<'static>,
    valid: Option<(i64, i64)>,
}

impl Root {
    fn is_valid(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.valid.is_some_and(|(from, until)| (from..=until).contains(&now))
    }
}

impl Authority {
    /// `None`: no certificates are asked for.
    pub(super) fn load(config: &Authentication, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(path) = &config.client_ca_file else { return Ok(None) };
        let failed =
            |error: &dyn std::fmt::Display| TlsError::ClientCa { path: path.clone(), message: error.to_string() };
        let root = |certificate: CertificateDer<'static>| Root { valid: auth::validity(&certificate), certificate };
        let roots: Vec<Root> = certificates(path)?.into_iter().map(root).collect();
        let verifier = verifier(roots.iter(), provider).map_err(|error| failed(&error))?;
        let (provider, reads_uids) = (provider.clone(), config.reads_certificate_uids);
        Ok(Some(Arc::new(Self { verifier, roots, provider, reads_uids })))
    }

    /// Whether the chain leads to one of the roots that are valid now, as upstream looks at it.
    fn verify(&self, own: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let now = UnixTime::now();
        let verified = if self.roots.iter().all(|root| root.is_valid(now)) {
            self.verifier.verify_client_cert(own, chain, now)
        } else {
            let valid = self.roots.iter().filter(|root| root.is_valid(now));
            let verifier = verifier(valid, &self.provider).map_err(|_| "no authority is valid now")?;
            verifier.verify_client_cert(own, chain, now)
        };
        verified.map(drop).map_err(|error| error.to_string())
    }

    /// Who showed these certificates: the client's own first.
    ///
    /// # Errors
    /// Why they are not to be believed.
    fn judge(&self, shown: &[CertificateDer<'_>]) -> Certified {
        let Some((own, chain)) = shown.split_first() else { return Ok(None) };
        self.verify(own, chain)?;
        let names = auth::names(own).ok_or("the subject cannot be read")?;
        if names.common.is_empty() {
            return Ok(None);
        }
        let uid = match names.uids.as_slice() {
            _ if !self.reads_uids => String::new(),
            [] => String::new(),
            [uid] if uid.is_empty() => return Err("UID cannot be an empty string".to_owned()),
            [uid] => uid.clone(),
            uids => return Err(format!("expected 1 UID, but found multiple: {uids:?}")),
        };
        let print = ring::digest::digest(&ring::digest::SHA256, own);
        let print: String = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let extra = [(CREDENTIAL.to_owned(), vec![format!("X509SHA256={print}")])].into();
        Ok(Some(Caller { name: names.common, uid, groups: names.organizations, extra }.authenticated()))
    }

    /// For the handshake: certificates are asked for when there is an authority to judge them by.
    pub(super) fn asks(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Asks { authority: self.verifier.clone() })
    }
}

/// Looks for these roots.
fn verifier<'a>(
    roots: impl Iterator<Item = &'a Root>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.certificate.clone()).map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone());
    builder.build().map_err(|error| error.to_string())
}

/// What a client showed in its handshake, and what was last thought of it.
#[derive(Debug)]
pub(crate) struct ShownCertificates {
    chain: Vec<CertificateDer<'static>>,
    verdict: Mutex<Option<Verdict>>,
}

#[derive(Debug)]
struct Verdict {
    by: Arc<Authority>,
    at: Instant,
    certified: Certified,
}

impl ShownCertificates {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, verdict: Mutex::new(None) }
    }

    /// Who it is, by the authority as it is now.
    pub(crate) fn certified(&self, authority: Option<&Arc<Authority>>) -> Certified {
        let Some(authority) = authority.filter(|_| !self.chain.is_empty()) else { return Ok(None) };
        let mut last = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |verdict: &&Verdict| Arc::ptr_eq(&verdict.by, authority) && verdict.at.elapsed() < VERDICT;
        if let Some(verdict) = last.as_ref().filter(holds) {
            return verdict.certified.clone();
        }
        let certified = authority.judge(&self.chain);
        *last = Some(Verdict { by: authority.clone(), at: Instant::now(), certified: certified.clone() });
        certified
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
