//! Tokens of service accounts: requested for one pod, and again before they end.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::groups::authentication_v1::{BoundObjectReference, TokenRequestSpec};
use rubelet_apiserver::backoff::{Backoff, Chance, Growth};
use rubelet_apiserver::tokens::Granted;
use rubelet_core::now::Wall;
use rubelet_core::pod::needs::{Got, Token, TokenNeed};

use super::fetch::{Teller, Tools, refusal_text};

/// kubelet 1.36: no token is used longer, and renewals are spread over so much.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
const SPREAD: Duration = Duration::from_secs(10);
/// How failed requests are tried again.
const AGAIN: Growth = Growth { first: Duration::from_millis(500), most: Duration::from_secs(60), jitter: 0.5 };

/// Requests tokens for ever.
pub(super) async fn follow(need: TokenNeed, tools: &Tools, teller: &Teller) {
    let mut chance = Chance::new(tools.seed());
    let mut backoff = Backoff::new(AGAIN, tools.seed());
    // When the token that was told ends.
    let mut ends: Option<Wall> = None;
    loop {
        let asked =
            rubelet_apiserver::tokens::request(&tools.client, &need.account.namespace, &need.account.name, spec(&need));
        let wait = match asked.await {
            Ok(Granted { status, lives_secs }) => {
                backoff.reset();
                // What the server does not say is as was asked for.
                let lives = Duration::from_secs(lives_secs.unwrap_or(need.expiration_secs).unsigned_abs());
                let end = status.expiration_timestamp.map(|t| t.0);
                let end = end.or_else(|| Wall::now().checked_add(lives).ok()).unwrap_or(Wall::MAX);
                ends = Some(end);
                let wait = renew_after(Wall::now(), end, lives, chance.share());
                let token = Token { text: status.token.unwrap_or_default(), ends: as_written(end) };
                teller.tell(Got::Token(Arc::new(token))).await;
                wait
            }
            Err(error) => {
                let text = refusal_text(&error);
                match ends {
                    None => teller.tell(Got::Failed(format!("failed to fetch token: {text}"))).await,
                    Some(end) if Wall::now() > end => {
                        let of = format!("{}/{}", need.account.namespace, need.account.name);
                        teller.tell(Got::Failed(format!("token {of} expired and refresh failed: {text}"))).await;
                    }
                    Some(_) => tracing::warn!(
                        namespace = need.account.namespace,
                        account = need.account.name,
                        pod = need.pod_name,
                        err = text,
                        "renewing a token failed, the old one holds for now"
                    ),
                }
                backoff.fail()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// A time as the API writes it: in whole seconds.
fn as_written(end: Wall) -> String {
    end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn spec(need: &TokenNeed) -> TokenRequestSpec {
    TokenRequestSpec {
        audiences: need.audience.clone().map(|a| vec![a]),
        expiration_seconds: Some(need.expiration_secs),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(need.pod_name.clone()),
            uid: Some(need.pod_uid.clone()),
        }),
    }
}

/// kubelet 1.36: at 80 % of its life or at 24 h of age, whichever comes first, and up to 10 s before that. `share` is from 0 to 1.
/// `lives` is what the server granted: a clock that goes otherwise than the server's makes it shorter or longer.
fn renew_after(now: Wall, end: Wall, lives: Duration, share: f64) -> Duration {
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    let jitter = SPREAD.mul_f64(share.clamp(0.0, 1.0));
    let until_fifth = left.saturating_sub(lives / 5);
    let until_old = (left + AGE_MAX).saturating_sub(lives);
    until_fifth.min(until_old).saturating_sub(jitter).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
        let now: Wall = "2026-01-01T00:00:00Z".parse().expect("a time");
        let end = |secs: u64| now.saturating_add(Duration::from_secs(secs)).expect("in range");
        for (left, lives, share, wanted) in [
            (3600, 3600, 0.0, 2880),
            (3600, 3600, 1.0, 2870),
            (3607, 3607, 0.0, 2885),
            (10 * 86_400, 10 * 86_400, 0.0, 86_400),
            (600, 3600, 0.0, 1),
            (0, 600, 0.5, 1),
        ] {
            let after = renew_after(now, end(left), Duration::from_secs(lives), share).as_secs();
            assert_eq!(after, wanted, "{left} s are left of {lives} s");
        }
    }
}
