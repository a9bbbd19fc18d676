//! Secrets that stand for a request, once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::requests::RequestError;

/// Bytes of a token. containerd has 6; the URL is all that protects the streams.
const BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct Tokens<T> {
    life: Duration,
    max: usize,
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    by_token: HashMap<String, T>,
    /// With the time of their end; used ones stay until then or until there are many.
    by_age: VecDeque<(Instant, String)>,
}

impl<T> Tokens<T> {
    pub(super) fn new(life: Duration, max: usize) -> Self {
        Self { life, max, inner: Mutex::new(Inner { by_token: HashMap::new(), by_age: VecDeque::new() }) }
    }

    /// A fresh token for `value`.
    pub(super) fn insert(&self, value: T) -> Result<String, RequestError> {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| RequestError::NoToken)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.expire();
        if inner.by_token.len() >= self.max {
            return Err(RequestError::TooMany);
        }
        if inner.by_age.len() >= 2 * self.max {
            let Inner { by_token, by_age } = &mut *inner;
            by_age.retain(|(_, token)| by_token.contains_key(token));
        }
        inner.by_age.push_back((Instant::now() + self.life, token.clone()));
        inner.by_token.insert(token.clone(), value);
        Ok(token)
    }

    /// What a token stands for; it stands for nothing from now on.
    pub(super) fn take(&self, token: &str) -> Option<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.expire();
        inner.by_token.remove(token)
    }
}

impl<T> Inner<T> {
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((_, token)) = self.by_age.pop_front_if(|(end, _)| *end <= now) {
            self.by_token.remove(&token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::new(Duration::from_mins(1), 10);
        let (first, second) = (tokens.insert(1).unwrap(), tokens.insert(2).unwrap());
        assert_ne!(first, second);
        assert_eq!((tokens.take(&first), tokens.take(&first), tokens.take("other")), (Some(1), None, None));
        tokio::time::advance(Duration::from_secs(59)).await;
        let third = tokens.insert(3).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((tokens.take(&second), tokens.take(&third)), (None, Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_tokens() {
        let tokens = Tokens::new(Duration::from_mins(1), 2);
        for round in 0..100 {
            let token = tokens.insert(round).unwrap();
            assert_eq!(tokens.take(&token), Some(round));
        }
        assert!(tokens.inner.lock().unwrap().by_age.len() <= 4, "used tokens do not pile up");
        tokens.insert(1).unwrap();
        tokens.insert(2).unwrap();
        assert_eq!(tokens.insert(3), Err(RequestError::TooMany));
        tokio::time::advance(Duration::from_mins(1)).await;
        tokens.insert(4).unwrap();
    }
}
