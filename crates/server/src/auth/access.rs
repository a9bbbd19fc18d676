//! Whether someone may do what they want: everyone all, or as the API server says.

use std::sync::Arc;

use http::{Method, Response, StatusCode};

use super::cache::Cache;
use super::review::{Asks, Reviews};
use super::{AccessQuestion, CacheTimes, Caller, attributes};
use crate::respond::{self, Reply};

/// Answers that are remembered: 32 bytes and a word each.
const ANSWERS_MAX: usize = 4096;

/// `authorization.mode`, at work.
pub(crate) enum Access {
    AlwaysAllow,
    Webhook(Box<Webhook>),
}

pub(crate) struct Webhook {
    asks: Asks,
    times: CacheTimes,
    node_name: Arc<str>,
    known: Cache<bool>,
}

impl Access {
    pub(crate) fn webhook(reviews: Arc<dyn Reviews>, times: CacheTimes, node_name: &str) -> Self {
        let (asks, known) = (Asks::new(reviews), Cache::new(ANSWERS_MAX));
        Self::Webhook(Box::new(Webhook { asks, times, node_name: node_name.into(), known }))
    }

    /// # Errors
    /// The answer: 403, or 500 when the API server could not be asked.
    pub(super) async fn check(
        &self,
        caller: &Arc<Caller>,
        method: &Method,
        path: &str,
    ) -> Result<(), Box<Response<Reply>>> {
        match self {
            Self::AlwaysAllow => Ok(()),
            Self::Webhook(webhook) => webhook.check(caller, method, path).await.map_err(Box::new),
        }
    }
}

impl Webhook {
    async fn check(&self, caller: &Arc<Caller>, method: &Method, path: &str) -> Result<(), Response<Reply>> {
        let (verb, subresources) = (attributes::verb(method), attributes::subresources(path));
        let said = |of| format!("(user={}, verb={verb}, resource=nodes, {of}", caller.name);
        for subresource in subresources {
            let (caller, name) = (caller.clone(), self.node_name.clone());
            match self.may(&AccessQuestion { caller, verb, name, subresource }).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(why) => {
                    tracing::warn!(err = %why, verb, subresource, "The API server could not be asked about a request");
                    let text = format!("Authorization error {}", said(format!("subresource={subresource})")));
                    return Err(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text));
                }
            }
        }
        tracing::debug!(user = caller.name.as_str(), verb, ?subresources, "Forbidden");
        let all = subresources.join(" ");
        Err(respond::text(StatusCode::FORBIDDEN, format!("Forbidden {}\n", said(format!("subresource(s)=[{all}])")))))
    }

    async fn may(&self, question: &AccessQuestion) -> Result<bool, String> {
        let key = self.known.key(words(question));
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let may = self.asks.access(question).await.map_err(|error| error.to_string())?;
        let time = if may { self.times.allowed } else { self.times.refused };
        self.known.put(key, may, time);
        Ok(may)
    }
}

/// All that the API server decides by. Each list begins with its length, so that none runs into the next.
fn words(question: &AccessQuestion) -> Vec<String> {
    let caller = &question.caller;
    let mut words = vec![caller.name.clone(), caller.uid.clone()];
    words.extend([question.verb.to_owned(), question.subresource.to_owned(), caller.groups.len().to_string()]);
    words.extend(caller.groups.iter().cloned());
    for (name, values) in &caller.extra {
        words.extend([name.clone(), values.len().to_string()]);
        words.extend(values.iter().cloned());
    }
    words
}
