//! The API server's word, by its own client.

use std::sync::Arc;

use http::StatusCode;
use rubelet_api::groups::authentication_v1::UserInfo;
use rubelet_api::groups::authorization_v1::{ResourceAttributes, SubjectAccessReviewSpec};
use rubelet_apiserver::{Client, Error, reviews};
use tokio::time::Instant;

use super::{AccessQuestion, Caller, ReviewError, Reviewing, Reviews};
use crate::metrics::{HttpCounts, Review};

/// Asks this API server who callers are and what they may; what is asked is counted.
pub fn by_api_server(client: Client, counts: Arc<HttpCounts>) -> Arc<dyn Reviews> {
    Arc::new(ByApiServer { client, counts })
}

struct ByApiServer {
    client: Client,
    counts: Arc<HttpCounts>,
}

/// Asks, and counts.
async fn counted<T>(
    counts: &HttpCounts,
    review: Review,
    ask: impl Future<Output = Result<T, Error>>,
) -> Result<T, ReviewError> {
    let since = Instant::now();
    let answer = ask.await;
    let code = match &answer {
        Ok(_) => Some(StatusCode::CREATED.as_u16()),
        Err(error) => error.refusal().map(|refusal| refusal.code),
    };
    counts.reviews.asked(review, code, since.elapsed());
    answer.map_err(|error| fault(&error))
}

impl Reviews for ByApiServer {
    fn token(&self, token: &str) -> Reviewing<Option<Caller>> {
        let (client, counts, token) = (self.client.clone(), self.counts.clone(), token.to_owned());
        Box::pin(async move {
            let status = counted(&counts, Review::Token, reviews::token(&client, &token, &[])).await?;
            match (status.authenticated, status.error.filter(|error| !error.is_empty())) {
                (Some(true), _) => Ok(Some(caller(status.user.unwrap_or_default()))),
                // kubelet 1.36: that is not remembered.
                (Some(false) | None, Some(error)) => Err(ReviewError::Refused(error)),
                (Some(false) | None, None) => Ok(None),
            }
        })
    }

    fn access(&self, question: &AccessQuestion) -> Reviewing<bool> {
        let (client, counts, spec) = (self.client.clone(), self.counts.clone(), spec(question));
        Box::pin(async move {
            let status = counted(&counts, Review::Access, reviews::access(&client, spec)).await?;
            match (status.allowed, status.denied) {
                (true, Some(true)) => Err(ReviewError::Refused(
                    "webhook subject access review returned both allow and deny response".into(),
                )),
                (allowed, Some(_) | None) => Ok(allowed),
            }
        })
    }
}

fn caller(user: UserInfo) -> Caller {
    Caller {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }
}

/// kubelet 1.36: of the core group's v1 `nodes`, without a namespace.
fn spec(question: &AccessQuestion) -> SubjectAccessReviewSpec {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let caller = &question.caller;
    SubjectAccessReviewSpec {
        user: Some(caller.name.clone()),
        uid: text(&caller.uid),
        groups: Some(caller.groups.clone()),
        extra: (!caller.extra.is_empty()).then(|| caller.extra.clone()),
        resource_attributes: Some(ResourceAttributes {
            verb: text(question.verb),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: text(question.subresource),
            name: text(&question.name),
            ..ResourceAttributes::default()
        }),
        non_resource_attributes: None,
    }
}

/// kubelet 1.36: what is asked again: a connection that broke, what the server calls its own fault or too much, and what
/// says when to come back.
fn fault(error: &Error) -> ReviewError {
    let may_come_back = match error {
        Error::Broken { .. } => true,
        Error::Refused { refusal, .. } => matches!(refusal.code, 429 | 500 | 504) || refusal.retry_after.is_some(),
        Error::Connect { .. }
        | Error::Late { .. }
        | Error::TooLong { .. }
        | Error::Unreadable { .. }
        | Error::Credentials { .. } => false,
    };
    if may_come_back { ReviewError::Busy(error.to_string()) } else { ReviewError::Refused(error.to_string()) }
}
