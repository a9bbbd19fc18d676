//! Tokens of service accounts.

use rubelet_api::groups::authentication_v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use rubelet_api::v1::ServiceAccount;

use crate::client::Client;
use crate::error::Error;
use crate::path::Path;

/// A token of a service account, as `spec` wants it.
///
/// # Errors
/// See [`Error`]; unreadable if there is no token in the answer.
pub async fn request(
    client: &Client,
    namespace: &str,
    account: &str,
    spec: TokenRequestSpec,
) -> Result<TokenRequestStatus, Error> {
    let path = Path::to::<ServiceAccount>(namespace, account).part("token");
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer: TokenRequest = client.create(&path, &request).await?;
    answer.status.ok_or_else(|| Error::Unreadable {
        verb: crate::Verb::Create,
        url: path.to_string(),
        why: "it has no token".to_owned(),
    })
}
