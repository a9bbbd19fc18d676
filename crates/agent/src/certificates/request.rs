//! Keys, and what is asked for them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use rubelet_apiserver::certificates::Wanted;
use rubelet_core::certificate::Wish;
use sha2::{Digest, Sha512_256};

use super::{CLIENT_SIGNER, RenewError, Store};

/// A key, and the request that it signed.
pub(super) struct Request {
    name: Option<String>,
    key: KeyPair,
    pem: String,
}

impl Request {
    pub(super) fn with_new_key(wish: &Wish) -> Result<Self, RenewError> {
        Self::with(KeyPair::generate().map_err(RenewError::Make)?, wish, None)
    }

    /// With the key of an earlier attempt, if there is one that can be used. The request is named after it.
    pub(super) fn with_kept_key(store: &Store, wish: &Wish) -> Result<Self, RenewError> {
        let kept = store.kept_key()?.and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = match kept {
            Some(key) => key,
            None => {
                let key = KeyPair::generate().map_err(RenewError::Make)?;
                store.keep_key(&key.serialize_pem())?;
                key
            }
        };
        let name = name(&key, wish);
        Self::with(key, wish, Some(name))
    }

    fn with(key: KeyPair, wish: &Wish, name: Option<String>) -> Result<Self, RenewError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for organization in &wish.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, &wish.common_name);
        for name in &wish.names {
            let name = name.as_str().try_into().map_err(RenewError::Make)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(wish.addresses.iter().map(|&address| SanType::IpAddress(address)));
        let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(RenewError::Make)?;
        Ok(Self { name, key, pem })
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(super) fn wanted(&self, signer: &'static str) -> Wanted {
        Wanted {
            name: self.name.clone(),
            request: self.pem.clone().into_bytes(),
            signer,
            usages: usages(signer),
            expiration_seconds: None,
        }
    }
}

/// kubelet 1.36: for keys on elliptic curves, which encipher nothing.
fn usages(signer: &str) -> &'static [&'static str] {
    if signer == CLIENT_SIGNER { &["digital signature", "client auth"] } else { &["digital signature", "server auth"] }
}

/// kubelet 1.36: of the public key, the subject and the usages, so that the same wish finds the same request.
fn name(key: &KeyPair, wish: &Wish) -> String {
    let mut hash = Sha512_256::new();
    let public = key.subject_public_key_info();
    let subject = std::iter::once(&wish.common_name).chain(&wish.organizations).map(String::as_bytes);
    let words = usages(CLIENT_SIGNER).iter().map(|usage| usage.as_bytes());
    for part in std::iter::once(public.as_slice()).chain(subject).chain(words) {
        hash.update(URL_SAFE_NO_PAD.encode(part));
        hash.update(b"|");
    }
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
}
