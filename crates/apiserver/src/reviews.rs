//! Asking the API server who a caller is and what it may do.

use rubelet_api::groups::authentication_v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use rubelet_api::groups::authorization_v1::{SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus};

use crate::client::Client;
use crate::error::Error;
use crate::path::Path;

/// Who a bearer token belongs to, for the audiences that count (none: the API server's own).
///
/// # Errors
/// The review could not be had. A token that is not believed is a status that says so.
pub async fn token(client: &Client, token: &str, audiences: &[String]) -> Result<TokenReviewStatus, Error> {
    let audiences = (!audiences.is_empty()).then(|| audiences.to_vec());
    let review = TokenReview { spec: TokenReviewSpec { token: token.to_owned(), audiences }, ..TokenReview::default() };
    let review: TokenReview = client.create(&Path::all::<TokenReview>(), &review).await?;
    Ok(review.status.unwrap_or_default())
}

/// Whether somebody may do something.
///
/// # Errors
/// The review could not be had. A "no" is a status that says so.
pub async fn access(client: &Client, spec: SubjectAccessReviewSpec) -> Result<SubjectAccessReviewStatus, Error> {
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let review: SubjectAccessReview = client.create(&Path::all::<SubjectAccessReview>(), &review).await?;
    Ok(review.status.unwrap_or_default())
}
