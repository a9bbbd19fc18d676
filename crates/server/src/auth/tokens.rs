//! Whose token is it: remembered, or asked of the API server, each token by one question at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::cache::{Cache, Key};
use super::review::{Asks, Reviews};
use super::{Caller, token};
use crate::metrics::HttpCounts;

/// Tokens that are remembered. A few hundred bytes each.
const TOKENS_MAX: usize = 1024;

/// What is known of a token: whose it is, or that it is nobody's.
type Whose = Option<Arc<Caller>>;
type Asked = OnceCell<Result<Whose, String>>;

/// Knows whose a token is.
pub(crate) struct Tokens {
    asks: Asks,
    time: Duration,
    known: Cache<Whose>,
    /// Questions on their way.
    open: Mutex<HashMap<Key, Weak<Asked>>>,
    counts: Arc<HttpCounts>,
}

impl Tokens {
    pub(crate) fn new(reviews: Arc<dyn Reviews>, time: Duration, counts: Arc<HttpCounts>) -> Self {
        Self { asks: Asks::new(reviews), time, known: Cache::new(TOKENS_MAX), open: Mutex::default(), counts }
    }

    /// Whose token is in the headers; it is taken out of them. `None`: there is none.
    ///
    /// # Errors
    /// It is nobody's, or could not be asked for, or cannot be one; why, without the token.
    pub(super) async fn identify(&self, headers: &mut HeaderMap) -> Result<Option<Arc<Caller>>, String> {
        let mut said = Ok(None);
        if let Some(bearer) = token::bearer(headers) {
            match self.whose(&bearer).await {
                Ok(Some(caller)) => {
                    headers.remove(http::header::AUTHORIZATION);
                    return Ok(Some(caller));
                }
                Ok(None) => said = Err("invalid bearer token".to_owned()),
                Err(why) => said = Err(why),
            }
        }
        if let Some(protocol) = token::protocol(headers)? {
            match self.whose(&protocol.token).await {
                Ok(Some(caller)) => {
                    headers.insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol.others);
                    return Ok(Some(caller));
                }
                Ok(None) => said = Err("invalid bearer token".to_owned()),
                Err(why) => said = Err(why),
            }
        }
        said
    }

    async fn whose(&self, token: &str) -> Result<Whose, String> {
        let key = self.known.key([token]);
        let (since, counts) = (Instant::now(), &self.counts.reviews);
        if let Some(whose) = self.known.get(&key) {
            counts.token(true, since.elapsed());
            return Ok(whose);
        }
        let (asked, is_first) = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match open.get(&key).and_then(Weak::upgrade) {
                Some(asked) => (asked, false),
                None => {
                    open.retain(|_, asked| asked.strong_count() > 0);
                    let asked = Arc::new(Asked::new());
                    open.insert(key, Arc::downgrade(&asked));
                    (asked, true)
                }
            }
        };
        let waits = counts.waits(is_first);
        // Should the one who asks give up, the next one in line asks.
        let answer = asked.get_or_init(|| self.ask(key, token)).await.clone();
        drop(waits);
        counts.token(false, since.elapsed());
        answer
    }

    /// kubelet 1.36: both that a token is someone's and that it is nobody's are remembered; errors are not.
    async fn ask(&self, key: Key, token: &str) -> Result<Whose, String> {
        if let Some(whose) = self.known.get(&key) {
            return Ok(whose);
        }
        let answer = self.asks.token(token).await;
        self.counts.reviews.fetched(answer.is_ok());
        match answer {
            Ok(whose) => {
                let whose = whose.map(Caller::authenticated);
                self.known.put(key, whose.clone(), self.time);
                Ok(whose)
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
