//! The verbs of the API.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use rubelet_api::meta::ListMeta;
use serde::Serialize;
use serde::de::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::ClientCounts;
use crate::answer::{self, BodyTrouble};
use crate::backoff::Chance;
use crate::connect::{Connections, Stream, Trouble};
use crate::credentials::{Credentials, Freshness};
use crate::error::{Error, Refusal, Verb};
use crate::limit::{Bucket, Rate};
use crate::object::{Kept, Object};
use crate::patch::Patch;
use crate::path::{Escaped, Path, Query, Selector};
use crate::settings::Settings;
use crate::watch::Watch;

/// An object is at most 3 MiB on its way in; a page of a list has [`PAGE`] of them.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// Objects in one answer to a list.
const PAGE: usize = 500;
/// client-go: so often a server may say "later" before its caller learns of it.
const LATER_MAX: u32 = 10;
/// The longest "later" that is slept through.
const LATER_PATIENCE: Duration = Duration::from_secs(60);

/// A client of one API server. Clones share connections, credentials and the rate.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    bucket: Option<Arc<Mutex<Bucket>>>,
    patience: Duration,
}

struct Shared {
    /// `https://HOST[:PORT]`.
    origin: String,
    counts: Arc<ClientCounts>,
    /// What comes before every path.
    prefix: String,
    user_agent: HeaderValue,
    connections: Connections,
    credentials: Arc<Credentials>,
    seed: u64,
    watches: AtomicU64,
    is_streaming_refused: AtomicBool,
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    /// `None`: the object's own; 0: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

/// What must still be true of an object that is deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// What a list answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// From where a watch goes on.
    pub resource_version: String,
}

/// One request.
pub(crate) struct Ask {
    pub(crate) verb: Verb,
    /// Path and query, as errors show it.
    pub(crate) url: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
}

const JSON: &str = "application/json";

impl Ask {
    pub(crate) fn new(verb: Verb, path: &Path, query: &Query) -> Self {
        Self { verb, url: format!("{path}{}", query.as_str()), content_type: JSON, body: Bytes::new() }
    }

    fn with_body(self, body: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_vec(body).map_err(|e| self.unreadable(format!("write the request: {e}")))?;
        Ok(Self { body: text.into(), ..self })
    }

    fn method(&self) -> Method {
        match self.verb {
            Verb::Get | Verb::List | Verb::Watch => Method::GET,
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        }
    }

    pub(crate) fn unreadable(&self, why: String) -> Error {
        Error::Unreadable { verb: self.verb, url: self.url.clone(), why }
    }

    pub(crate) fn broken(&self, trouble: BodyTrouble) -> Error {
        let (verb, url) = (self.verb, self.url.clone());
        match trouble {
            BodyTrouble::TooLong => Error::TooLong { verb, url, bytes_max: ANSWER_BYTES_MAX },
            BodyTrouble::Broken(why) => Error::Broken { verb, url, why },
        }
    }

    fn late(&self, patience: Duration) -> Error {
        Error::Late { verb: self.verb, url: self.url.clone(), patience }
    }
}

impl Client {
    /// A client; connects at the first request. Needs a tokio runtime from then on.
    ///
    /// # Errors
    /// The URL of the server or the user agent can't be used.
    pub fn connect(settings: Settings) -> Result<Self, String> {
        let failed = |why: String| format!("API server {}: {why}", settings.server);
        let uri: Uri = settings.server.parse().map_err(|e| failed(format!("not a URL: {e}")))?;
        let authority = uri.authority().ok_or_else(|| failed("the URL has no host".to_owned()))?;
        if authority.as_str().contains('@') {
            return Err(failed("user and password in the URL are not supported".to_owned()));
        }
        let credentials = Arc::new(Credentials::new(settings.identity));
        let shared = Shared {
            origin: format!("https://{authority}"),
            counts: settings.counts,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            user_agent: HeaderValue::try_from(&settings.user_agent).map_err(|e| format!("user agent: {e}"))?,
            connections: Connections::new(&uri, settings.tls, credentials.clone())
                .map_err(|why| format!("API server {}: {why}", settings.server))?,
            credentials,
            seed: settings.seed,
            watches: AtomicU64::new(0),
            is_streaming_refused: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), bucket: bucket(settings.rate), patience: settings.patience })
    }

    /// The same client at a rate of its own.
    #[must_use]
    pub fn with_limit(&self, rate: Option<Rate>) -> Self {
        Self { bucket: bucket(rate), ..self.clone() }
    }

    /// The same client with another patience for each answer; watches are not meant.
    #[must_use]
    pub fn with_timeout(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The URL of the server.
    #[must_use]
    pub fn server(&self) -> String {
        format!("{}{}", self.shared.origin, self.shared.prefix)
    }

    /// New requests use a new connection: after credentials changed that the client can't look at, or when the server is stuck.
    pub async fn redial(&self) {
        self.shared.connections.redial().await;
    }

    /// Whether the server answers `/healthz` with 200.
    ///
    /// # Errors
    /// It does not, or says that it is not well.
    pub async fn health(&self) -> Result<(), Error> {
        let ask = Ask { verb: Verb::Get, url: "/healthz".to_owned(), content_type: JSON, body: Bytes::new() };
        self.answer(&ask).await.map(drop)
    }

    /// One object, as it is now.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_not_found`] if there is none.
    pub async fn get<T: Object>(&self, path: &Path) -> Result<T, Error> {
        self.typed(&Ask::new(Verb::Get, path, &Query::default())).await
    }

    /// One object as the server remembers it: cheaper for the server, and maybe a moment old.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_cached<T: Object>(&self, path: &Path) -> Result<T, Error> {
        self.typed(&Ask::new(Verb::Get, path, &Query::default().with("resourceVersion", 0))).await
    }

    /// One object as JSON, for kinds that there is no type for.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_json(&self, path: &Path) -> Result<Value, Error> {
        self.json(&Ask::new(Verb::Get, path, &Query::default())).await
    }

    /// The resources that the server has in a version of a group, by their names; none if it does not have the version.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resources(&self, group: &str, version: &str) -> Result<Vec<String>, Error> {
        let url = format!("/apis/{}/{}", Escaped(group), Escaped(version));
        let ask = Ask { verb: Verb::Get, url, content_type: JSON, body: Bytes::new() };
        match self.answer(&ask).await {
            Ok(body) => {
                let list: ResourcesOf = serde_json::from_slice(&body).map_err(|e| ask.unreadable(e.to_string()))?;
                Ok(list.resources.into_iter().map(|resource| resource.name).collect())
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The first of these versions in which the server has a resource of a group, if it has it in one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn served(
        &self,
        group: &str,
        resource: &str,
        versions: &[&'static str],
    ) -> Result<Option<&'static str>, Error> {
        for version in versions {
            if self.resources(group, version).await?.iter().any(|name| name == resource) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// All objects of a collection, read in pages.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_expired`] if the list changed too much between two pages.
    pub async fn list<T: Object>(&self, path: &Path, selector: &Selector) -> Result<Listed<T>, Error> {
        self.list_at(path, selector, None).await
    }

    /// As [`Client::list`]; from the server's memory if it is at least as new as `version`.
    pub(crate) async fn list_at<T: Object>(
        &self,
        path: &Path,
        selector: &Selector,
        version: Option<&str>,
    ) -> Result<Listed<T>, Error> {
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let query = Query::of(selector);
            let query = match version {
                // The server's memory has no pages.
                Some(version) => query.with("resourceVersion", version),
                None => query.with("limit", PAGE).with_some("continue", &token),
            };
            let ask = Ask::new(Verb::List, path, &query);
            let body = self.answer(&ask).await?;
            let page: PageOf<T> = serde_json::from_slice(&body).map_err(|e| ask.unreadable(e.to_string()))?;
            items.extend(page.items.unwrap_or_default().into_iter().map(|Kept(item)| item));
            token = page.metadata.continue_.unwrap_or_default();
            if token.is_empty() {
                return Ok(Listed { items, resource_version: page.metadata.resource_version.unwrap_or_default() });
            }
        }
    }

    /// Keeps a list up to date for ever. The work is done by a task that ends when the [`Watch`] is dropped.
    #[must_use]
    pub fn list_watch<T: Object>(&self, path: Path, selector: Selector) -> Watch<T> {
        let number = self.shared.watches.fetch_add(1, Ordering::Relaxed);
        let chance = Chance::new(self.shared.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Watch::start(self.clone(), path, selector, chance)
    }

    /// Creates an object; `path` is the collection, or a subresource that takes objects.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_already_exists`] if the name is taken.
    pub async fn create<T: Object>(&self, path: &Path, object: &T) -> Result<T, Error> {
        self.typed(&Ask::new(Verb::Create, path, &Query::default()).with_body(object)?).await
    }

    /// As [`Client::create`], for kinds that there is no type for.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn create_json(&self, path: &Path, object: &Value) -> Result<Value, Error> {
        self.json(&Ask::new(Verb::Create, path, &Query::default()).with_body(object)?).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_conflict`] if it is no longer at the object's resource version.
    pub async fn update<T: Object>(&self, path: &Path, object: &T) -> Result<T, Error> {
        self.typed(&Ask::new(Verb::Update, path, &Query::default()).with_body(object)?).await
    }

    /// Changes parts of an object.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_conflict`] if a precondition in the patch (uid, resourceVersion) does not hold.
    pub async fn patch<T: Object>(&self, path: &Path, patch: &Patch) -> Result<T, Error> {
        self.typed(&patch_ask(path, patch)?).await
    }

    /// As [`Client::patch`], for kinds that there is no type for.
    ///
    /// # Errors
    /// As [`Client::patch`].
    pub async fn patch_json(&self, path: &Path, patch: &Patch) -> Result<Value, Error> {
        self.json(&patch_ask(path, patch)?).await
    }

    /// Deletes an object, or asks for it where it has a grace period or finalizers.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_not_found`] if it is gone, [`Error::is_conflict`] if a precondition does not hold.
    pub async fn delete(&self, path: &Path, options: &DeleteOptions) -> Result<(), Error> {
        self.answer(&Ask::new(Verb::Delete, path, &Query::default()).with_body(options)?).await.map(drop)
    }

    /// Deletes all objects of a collection that the selector chooses.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_all(&self, path: &Path, selector: &Selector) -> Result<(), Error> {
        self.answer(&Ask::new(Verb::Delete, path, &Query::of(selector))).await.map(drop)
    }

    async fn typed<T: Object>(&self, ask: &Ask) -> Result<T, Error> {
        let body = self.answer(ask).await?;
        let Kept(object) = serde_json::from_slice(&body).map_err(|e| ask.unreadable(e.to_string()))?;
        Ok(object)
    }

    async fn json(&self, ask: &Ask) -> Result<Value, Error> {
        let body = self.answer(ask).await?;
        let mut value: Value = serde_json::from_slice(&body).map_err(|e| ask.unreadable(e.to_string()))?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
        Ok(value)
    }

    /// The whole answer.
    async fn answer(&self, ask: &Ask) -> Result<Bytes, Error> {
        let mut stream = self.open(ask).await?;
        let body = timeout(self.patience, answer::whole(stream.answer.body_mut(), ANSWER_BYTES_MAX)).await;
        let body = body.map_err(|_| ask.late(self.patience))?.map_err(|trouble| ask.broken(trouble))?;
        self.shared.counts.answered(self.host(), &ask.method(), body.len());
        Ok(body)
    }

    /// The beginning of an answer that is not a refusal. Waits for its turn, shows who we are, and comes later when told to.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Stream, Error> {
        let mut freshness = Freshness::Any;
        let mut laters = 0;
        loop {
            self.turn(ask).await;
            let asked = Instant::now();
            let span = self.span(ask);
            let attempt = timeout(self.patience, self.attempt(ask, freshness).instrument(span.clone())).await;
            let attempt = attempt.map_err(|_| ask.late(self.patience)).flatten();
            let code = match &attempt {
                Ok(stream) => Some(stream.answer.status().as_u16()),
                Err(error) => error.code(),
            };
            if let Some(code) = code {
                span.record("http.response.status_code", code);
            }
            if let Err(error) = &attempt {
                span.record("otel.error", tracing::field::display(error));
            }
            self.shared.counts.asked(self.host(), &ask.method(), code, ask.body.len(), asked.elapsed());
            let error = match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let may_show_new = error.is_unauthorized() && self.shared.credentials.may_change();
            match error.retry_after() {
                Some(wait) if laters < LATER_MAX && error.code().is_some_and(|code| code == 429 || code >= 500) => {
                    laters += 1;
                    sleep(wait.min(LATER_PATIENCE)).await;
                }
                _ if may_show_new && freshness == Freshness::Any => freshness = Freshness::After(asked),
                _ => return Err(error),
            }
            self.shared.counts.again(self.host(), &ask.method(), code);
        }
    }

    /// Until the answer begins. kubelet 1.36: the same name and attributes.
    fn span(&self, ask: &Ask) -> tracing::Span {
        let (method, (host, port)) = (ask.method(), self.host().rsplit_once(':').unwrap_or((self.host(), "443")));
        tracing::info_span!(
            target: "trace", "ask", otel.name = format!("HTTP {method}"), otel.kind = "client", otel.error = Empty,
            http.request.method = method.as_str(), url.full = format!("{}{}{}", self.shared.origin, self.shared.prefix, ask.url),
            server.address = host, server.port = port.parse::<u64>().unwrap_or(443), http.response.status_code = Empty
        )
    }

    async fn attempt(&self, ask: &Ask, freshness: Freshness) -> Result<Stream, Error> {
        let (verb, url) = (ask.verb, || ask.url.clone());
        let credentials = self.shared.credentials.authorization(freshness).await;
        let authorization = credentials.map_err(|why| Error::Credentials { verb, url: url(), why })?;
        let request = self.request(ask, authorization)?;
        let mut stream = self.shared.connections.send(request).await.map_err(|trouble| match trouble {
            Trouble::Connect(why) => Error::Connect { verb, url: url(), why },
            Trouble::Broken(why) => Error::Broken { verb, url: url(), why },
        })?;
        let status = stream.answer.status();
        if status.is_success() {
            return Ok(stream);
        }
        let later = stream.answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // What it says beside the code is nice to have.
        let body = answer::whole(stream.answer.body_mut(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let refusal = Box::new(Refusal::read(status.as_u16(), later.as_deref(), &body));
        Err(Error::Refused { verb, url: url(), refusal })
    }

    fn request(&self, ask: &Ask, authorization: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(ask.method())
            .uri(format!("{}{}{}", self.shared.origin, self.shared.prefix, ask.url))
            .header(USER_AGENT, self.shared.user_agent.clone())
            .header(ACCEPT, JSON)
            // Newer servers compress each event of a watch as a file of its own.
            .header(ACCEPT_ENCODING, "identity");
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, ask.content_type);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(ask.body.clone())).map_err(|e| ask.unreadable(format!("write the request: {e}")))
    }

    /// Host and port of the server.
    fn host(&self) -> &str {
        self.shared.origin.trim_start_matches("https://")
    }

    /// Waits until the rate allows another request.
    async fn turn(&self, ask: &Ask) {
        let Some(bucket) = &self.bucket else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now().into_std());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        self.shared.counts.waited(self.host(), &ask.method(), wait);
    }

    /// Whether this server streams lists, as far as we know.
    pub(crate) fn may_stream_lists(&self) -> bool {
        !self.shared.is_streaming_refused.load(Ordering::Relaxed)
    }

    /// It does not.
    pub(crate) fn streaming_was_refused(&self) {
        self.shared.is_streaming_refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}

fn patch_ask(path: &Path, patch: &Patch) -> Result<Ask, Error> {
    let ask = Ask { content_type: patch.content_type(), ..Ask::new(Verb::Patch, path, &patch.query()) };
    ask.with_body(patch.body())
}

fn bucket(rate: Option<Rate>) -> Option<Arc<Mutex<Bucket>>> {
    rate.map(|rate| Arc::new(Mutex::new(Bucket::new(rate, Instant::now().into_std()))))
}

/// What is of use in an APIResourceList.
#[derive(serde::Deserialize)]
struct ResourcesOf {
    resources: Vec<ResourceOf>,
}

#[derive(serde::Deserialize)]
struct ResourceOf {
    name: String,
}

/// A page of a list; items are decoded one by one.
#[derive(serde::Deserialize)]
#[serde(bound(deserialize = "Kept<T>: Deserialize<'de>"))]
struct PageOf<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<Kept<T>>>,
}
