//! Tokens of service accounts.

use rubelet_api::groups::authentication_v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use rubelet_api::v1::ServiceAccount;

use crate::client::Client;
use crate::error::Error;
use crate::path::Path;

/// A token as it was granted.
#[derive(Clone, Debug)]
pub struct Granted {
    pub status: TokenRequestStatus,
    /// How long it lives from when it was made: servers may grant less than was asked for.
    pub lives_secs: Option<i64>,
}

/// A token of a service account, as `spec` wants it.
///
/// # Errors
/// See [`Error`]; unreadable if there is no token in the answer.
pub async fn request(
    client: &Client,
    namespace: &str,
    account: &str,
    spec: TokenRequestSpec,
) -> Result<Granted, Error> {
    let path = Path::to::<ServiceAccount>(namespace, account).part("token");
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer: TokenRequest = client.create(&path, &request).await?;
    let lives_secs = answer.spec.and_then(|spec| spec.expiration_seconds);
    match answer.status {
        Some(status) => Ok(Granted { status, lives_secs }),
        None => Err(Error::Unreadable {
            verb: crate::Verb::Create,
            url: path.to_string(),
            why: "it has no token".to_owned(),
        }),
    }
}
