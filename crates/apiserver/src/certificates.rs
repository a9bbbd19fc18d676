//! Certificate signing requests.

use std::time::Duration;

use rubelet_api::ByteString;
use rubelet_api::groups::certificates_v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use rubelet_api::meta::ObjectMeta;
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::error::Error;
use crate::path::{Path, Selector};
use crate::watch::Change;

/// What certificate is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `csr-…`; the same name for the same key finds the request of an earlier attempt. `None`: the server chooses.
    pub name: Option<String>,
    /// The request in PEM.
    pub request: Vec<u8>,
    /// `kubernetes.io/kube-apiserver-client-kubelet` and the like.
    pub signer: &'static str,
    pub usages: &'static [&'static str],
    /// How long the certificate is to be good for; the signer decides.
    pub expiration_seconds: Option<i32>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("certificate signing request {name} is denied, reason: {reason}, message: {message}")]
    Denied { name: String, reason: String, message: String },
    #[error("certificate signing request {name} failed, reason: {reason}, message: {message}")]
    Failed { name: String, reason: String, message: String },
    #[error("certificate signing request {name} was deleted")]
    Deleted { name: String },
    #[error("certificate signing request {name} was not signed within {} s", patience.as_secs())]
    Late { name: String, patience: Duration },
    /// Somebody else's request has the name.
    #[error("certificate signing request {name} exists for something else")]
    Taken { name: String },
}

/// Creates the request, or finds it if it was created before. Answers with its name and uid.
///
/// # Errors
/// The API server refuses, or a request of this name wants something else.
pub async fn request(client: &Client, wanted: &Wanted) -> Result<(String, String), CertificateError> {
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: wanted.name.clone(),
            generate_name: wanted.name.is_none().then(|| "csr-".to_owned()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(wanted.request.clone()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(wanted.usages.iter().map(|&usage| usage.to_owned()).collect()),
            expiration_seconds: wanted.expiration_seconds,
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let all = Path::all::<CertificateSigningRequest>();
    let created = match client.create(&all, &object).await {
        Ok(created) => created,
        Err(error) if error.is_already_exists() && wanted.name.is_some() => {
            let name = wanted.name.clone().unwrap_or_default();
            let found: CertificateSigningRequest = client.get(&all.named(&name)).await?;
            // The same key signs another request each time; whether the certificate fits it is seen when it comes.
            if found.spec.signer_name != wanted.signer {
                return Err(CertificateError::Taken { name });
            }
            found
        }
        Err(error) => return Err(error.into()),
    };
    Ok((created.metadata.name.unwrap_or_default(), created.metadata.uid.unwrap_or_default()))
}

/// Waits until a request is signed; answers with the certificate in PEM.
///
/// # Errors
/// It is denied, fails, is deleted or replaced, or nobody signs it in time.
pub async fn signed(client: &Client, name: &str, uid: &str, patience: Duration) -> Result<Vec<u8>, CertificateError> {
    let deadline = Instant::now() + patience;
    let path = Path::all::<CertificateSigningRequest>();
    let mut watch = client.list_watch::<CertificateSigningRequest>(path, Selector::name(name));
    let deleted = || CertificateError::Deleted { name: name.to_owned() };
    loop {
        let late = |_| CertificateError::Late { name: name.to_owned(), patience };
        let change = timeout_at(deadline, watch.next()).await.map_err(late)?.ok_or_else(deleted)?;
        let objects = match change {
            Change::Replaced(objects, _) if objects.is_empty() => return Err(deleted()),
            Change::Replaced(objects, _) => objects,
            Change::Upserted(object) => vec![object],
            Change::Removed(_) => return Err(deleted()),
            // A node may be allowed to get its own request, but not to watch them.
            Change::Interrupted(error) if error.is_forbidden() => return Err(error.into()),
            Change::Interrupted(error) => {
                tracing::warn!("wait for the certificate signing request {name}: {error}");
                continue;
            }
        };
        for object in objects {
            if object.metadata.uid.as_deref() != Some(uid) {
                return Err(CertificateError::Taken { name: name.to_owned() });
            }
            if let Some(certificate) = verdict(object)? {
                return Ok(certificate);
            }
        }
    }
}

/// The certificate, if it is there already.
fn verdict(object: CertificateSigningRequest) -> Result<Option<Vec<u8>>, CertificateError> {
    let name = object.metadata.name.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    for condition in status.conditions.into_iter().flatten() {
        let reason = condition.reason.unwrap_or_default();
        let message = condition.message.unwrap_or_default();
        match condition.type_.as_str() {
            "Denied" => return Err(CertificateError::Denied { name, reason, message }),
            "Failed" => return Err(CertificateError::Failed { name, reason, message }),
            _ => {}
        }
    }
    Ok(status.certificate.map(|ByteString(pem)| pem).filter(|pem| !pem.is_empty()))
}
