//! Lists that stay up to date: read once, then watched for ever, through lost connections, restarts and forgotten versions.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::backoff::{Backoff, Chance, Growth};
use crate::client::{Ask, Client, Listed};
use crate::error::{Error, Refusal, Verb};
use crate::object::Object;
use crate::path::{Path, Query, Selector};

mod decode;
mod lines;
#[cfg(test)]
mod tests;

use decode::Event;
use lines::Lines;

/// client-go: waits after failures, doubled at random; forgotten when there was none for two minutes.
const GROWTH: Growth = Growth { first: Duration::from_millis(800), most: Duration::from_secs(30), jitter: 1.0 };
const CALM: Duration = Duration::from_secs(120);
/// client-go: a watch is asked for five to ten minutes.
const WATCH_SECS: u64 = 300;
/// How much longer than that we wait for the server to end it.
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// A watch that ends this early without a word is a failure.
const SHORT: Duration = Duration::from_secs(1);
/// Changes that wait for a slow reader; then the server waits.
const QUEUE: usize = 32;

/// What became of a collection.
#[derive(Debug)]
pub enum Change<T> {
    /// All of it, at this resource version: what is not here does not exist.
    Replaced(Vec<T>, String),
    /// New, or changed.
    Upserted(T),
    /// Deleted, or no longer selected; as it was last.
    Removed(T),
    /// Looking failed; what was known may be out of date. It is tried again, with growing waits.
    Interrupted(Error),
}

/// The changes of a collection, in order. Dropping it ends the work.
#[derive(Debug)]
pub struct Watch<T> {
    changes: mpsc::Receiver<Change<T>>,
    task: JoinHandle<()>,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Object> Watch<T> {
    pub(crate) fn start(client: Client, path: Path, selector: Selector, mut chance: Chance) -> Self {
        let (out, changes) = mpsc::channel(QUEUE);
        let backoff = Backoff::new(GROWTH, chance.number());
        let follower = Follower {
            client,
            path,
            selector,
            chance,
            backoff,
            failed: None,
            position: None,
            last: Some("0".to_owned()),
            out,
        };
        Self { changes, task: rubelet_host::task::spawn(follower.run()) }
    }

    /// The next change. Safe to drop while it waits. `None`: the runtime ends.
    pub async fn next(&mut self) -> Option<Change<T>> {
        self.changes.recv().await
    }
}

/// The task behind a [`Watch`].
struct Follower<T> {
    client: Client,
    path: Path,
    selector: Selector,
    chance: Chance,
    backoff: Backoff,
    failed: Option<Instant>,
    /// Where a watch goes on; `None`: a list comes first.
    position: Option<String>,
    /// A list must be at least this new: `0` for anything the server remembers, `None` for what is true now.
    last: Option<String>,
    out: mpsc::Sender<Change<T>>,
}

/// How a list or a watch ended.
enum Ended {
    /// As it should; go on.
    Well,
    /// The server has forgotten our version.
    Expired,
    Failed(Error),
    /// Nobody listens any more.
    Unheard,
}

impl<T: Object> Follower<T> {
    async fn run(mut self) {
        loop {
            let ended = match self.position.take() {
                None if self.client.may_stream_lists() => self.stream().await,
                None => self.list().await,
                Some(version) => self.watch(&version).await,
            };
            match ended {
                Ended::Well => {}
                Ended::Expired => self.position = None,
                Ended::Failed(error) => {
                    if self.out.send(Change::Interrupted(error)).await.is_err() {
                        return;
                    }
                    let wait = self.wait();
                    sleep(wait).await;
                }
                Ended::Unheard => return,
            }
        }
    }

    /// How long to wait after one more failure.
    fn wait(&mut self) -> Duration {
        if self.failed.replace(Instant::now()).is_some_and(|at| at.elapsed() > CALM) {
            self.backoff.reset();
        }
        self.backoff.fail()
    }

    /// Reads the whole list at once.
    async fn list(&mut self) -> Ended {
        match self.client.list_at::<T>(&self.path, &self.selector, self.last.as_deref()).await {
            Ok(Listed { items, resource_version }) => self.replace(items, resource_version).await,
            Err(error) if is_version_trouble(&error) && self.last.is_some() => {
                self.last = None;
                Ended::Expired
            }
            Err(error) => Ended::Failed(error),
        }
    }

    async fn replace(&mut self, items: Vec<T>, version: String) -> Ended {
        self.last = Some(version.clone());
        self.position = Some(version.clone());
        match self.out.send(Change::Replaced(items, version)).await {
            Ok(()) => Ended::Well,
            Err(_) => Ended::Unheard,
        }
    }

    /// Reads the list as the beginning of a watch, object by object; goes on watching.
    async fn stream(&mut self) -> Ended {
        let (ask, deadline) =
            self.ask(|query| query.with("sendInitialEvents", "true").with("resourceVersionMatch", "NotOlderThan"));
        let mut lines = match self.client.open(&ask).await {
            Ok(stream) => Lines::new(stream),
            Err(error) => return self.stream_failed(error).await,
        };
        let mut found = BTreeMap::new();
        loop {
            match self.event(&mut lines, &ask, deadline).await {
                Ok(Some(Event::Upserted(object))) => drop(found.insert(key(&object), object)),
                Ok(Some(Event::Removed(object))) => drop(found.remove(&key(&object))),
                Ok(Some(Event::Bookmark { version, is_initial_end: true })) => {
                    let ended = self.replace(found.into_values().collect(), version).await;
                    return if matches!(ended, Ended::Well) { self.pump(lines, &ask, deadline).await } else { ended };
                }
                Ok(Some(Event::Bookmark { .. })) => {}
                Ok(Some(Event::Error(status))) => return self.stream_failed(refused(&ask, *status)).await,
                Ok(None) => return Ended::Failed(ask.unreadable("it ended before the list was complete".to_owned())),
                Err(error) => return Ended::Failed(error),
            }
        }
    }

    /// What to do when a list can't be streamed: servers without it, or with an old etcd, are asked for plain lists from now on.
    async fn stream_failed(&mut self, error: Error) -> Ended {
        match error.code() {
            _ if is_version_trouble(&error) && self.last.is_some() => {
                self.last = None;
                Ended::Expired
            }
            Some(401 | 403 | 404 | 429) | None => Ended::Failed(error),
            Some(code) => {
                tracing::debug!(code, "the API server does not stream lists: {error}");
                // With an etcd before 3.5 the words are all that tells this 500 from others.
                if code < 500 || error.to_string().contains("RequestWatchProgress") {
                    self.client.streaming_was_refused();
                }
                self.list().await
            }
        }
    }

    /// Watches from a version on.
    async fn watch(&mut self, version: &str) -> Ended {
        self.position = Some(version.to_owned());
        let (ask, deadline) = self.ask(|query| query);
        match self.client.open(&ask).await {
            Ok(stream) => self.pump(Lines::new(stream), &ask, deadline).await,
            Err(error) if error.is_expired() => Ended::Expired,
            Err(error) => {
                // Other refusals may be about the version: the list tells.
                if error.code().is_some_and(|code| !matches!(code, 401 | 403 | 429 | 500..)) {
                    self.position = None;
                }
                Ended::Failed(error)
            }
        }
    }

    /// Passes on what a watch says until it ends.
    async fn pump(&mut self, mut lines: Lines, ask: &Ask, deadline: Instant) -> Ended {
        let began = Instant::now();
        let mut is_silent = true;
        loop {
            let change = match self.event(&mut lines, ask, deadline).await {
                Ok(Some(Event::Upserted(object))) => Change::Upserted(object),
                Ok(Some(Event::Removed(object))) => Change::Removed(object),
                Ok(Some(Event::Bookmark { version, .. })) => {
                    is_silent = false;
                    self.at(version);
                    continue;
                }
                Ok(Some(Event::Error(status))) => {
                    let error = refused(ask, *status);
                    return if error.is_expired() { Ended::Expired } else { Ended::Failed(error) };
                }
                Ok(None) if is_silent && began.elapsed() < SHORT => {
                    return Ended::Failed(ask.unreadable("the watch ended at once".to_owned()));
                }
                Ok(None) => return Ended::Well,
                Err(error) => return Ended::Failed(error),
            };
            is_silent = false;
            if let Change::Upserted(object) | Change::Removed(object) = &change {
                self.at(object.metadata().resource_version.clone().unwrap_or_default());
            }
            if self.out.send(change).await.is_err() {
                return Ended::Unheard;
            }
        }
    }

    fn at(&mut self, version: String) {
        if !version.is_empty() {
            self.last = Some(version.clone());
            self.position = Some(version);
        }
    }

    /// The request for a watch, and when to stop believing in it.
    fn ask(&mut self, with: impl FnOnce(Query) -> Query) -> (Ask, Instant) {
        let seconds = WATCH_SECS + self.chance.number() % WATCH_SECS;
        let version = self.position.as_ref().or(self.last.as_ref()).map_or("", String::as_str);
        let query = Query::of(&self.selector)
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("timeoutSeconds", seconds)
            .with_some("resourceVersion", version);
        let ask = Ask::new(Verb::Watch, &self.path, &with(query));
        (ask, Instant::now() + Duration::from_secs(seconds) + WATCH_GRACE + self.client.patience())
    }

    async fn event(&self, lines: &mut Lines, ask: &Ask, deadline: Instant) -> Result<Option<Event<T>>, Error> {
        // The server ends watches; one that outlives its time hangs.
        let Ok(line) = timeout_at(deadline, lines.next()).await else { return Ok(None) };
        let Some(line) = line.map_err(|trouble| ask.broken(trouble))? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|e| ask.unreadable(e.to_string()))
    }
}

fn key<T: Object>(object: &T) -> (Option<String>, Option<String>) {
    let metadata = object.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

fn refused(ask: &Ask, status: rubelet_api::meta::Status) -> Error {
    Error::Refused { verb: ask.verb, url: ask.url.clone(), refusal: Box::new(Refusal::of_status(status)) }
}

/// Whether the version is forgotten, or from a future that this server does not know.
fn is_version_trouble(error: &Error) -> bool {
    let causes = || error.refusal()?.status.details.as_ref()?.causes.as_ref();
    error.is_expired()
        || causes().into_iter().flatten().any(|cause| cause.reason.as_deref() == Some("ResourceVersionTooLarge"))
}
