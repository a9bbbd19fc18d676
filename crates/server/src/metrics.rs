//! Pages that are read from the kernel while they are written, and what the servers count of themselves.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use rubelet_api::metrics::{Counter, Family, Gauge, Histogram, Labelled, SECONDS, Stability, Text};
use tokio::sync::Semaphore;
use tokio::time::Instant;

mod reviews;

pub(crate) use reviews::{PodResourcesCounts, Review, ReviewCounts};

/// A page of statistics or metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/stats/summary`.
    Summary { is_cpu_and_memory_only: bool },
    /// `/metrics`: the agent and its servers.
    Metrics,
    /// `/metrics/cadvisor`.
    Cadvisor,
    /// `/metrics/resource`.
    Resource,
    /// `/metrics/probes`.
    Probes,
    /// `/metrics/slis`: what came of `/healthz`.
    Slis,
}

/// Writes a page. Called on a thread that may block; an error is the sink's: nobody reads any more.
pub type Writing = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// What is asked before a page can be written.
pub type Preparing<'a> = Pin<Box<dyn Future<Output = Writing> + Send + 'a>>;

/// Who knows what stands on the pages.
pub trait Pages: Send + Sync {
    /// Makes a page ready to be written.
    fn page(&self, page: Page) -> Preparing<'_>;

    /// What the servers count of themselves; stands on [`Page::Metrics`] and [`Page::Slis`], which the view writes.
    fn http(&self) -> &Arc<HttpCounts>;
}

const LABELS: &[&str] = &["long_running", "method", "path", "server_type"];

const REQUESTS: Family = Family::counter(
    "kubelet_http_requests_total",
    Stability::Alpha,
    "Requests to the kubelet's servers since it started",
    LABELS,
);
const DURATION: Family = Family::histogram(
    "kubelet_http_requests_duration_seconds",
    Stability::Alpha,
    "How long requests to the kubelet's servers took, in seconds",
    LABELS,
    SECONDS,
);
const INFLIGHT: Family = Family::gauge(
    "kubelet_http_inflight_requests",
    Stability::Alpha,
    "Requests to the kubelet's servers that are being answered",
    LABELS,
);
const WEBSOCKETS: Family = Family::counter(
    "kubelet_websocket_streaming_requests_total",
    Stability::Alpha,
    "Streams that came over WebSockets",
    &["subresource"],
);

const HEALTH: Family = Family::gauge(
    "kubernetes_healthcheck",
    Stability::Stable,
    "1 when a check of health went well last, else 0",
    &["name", "type"],
);
const HEALTHS: Family = Family::counter(
    "kubernetes_healthchecks_total",
    Stability::Stable,
    "Checks of health by what came of them",
    &["name", "status", "type"],
);

/// Families of `/metrics/slis`.
pub const SLI_FAMILIES: &[&Family] = &[&HEALTH, &HEALTHS];

/// Families that [`HttpCounts`] tells.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let own: &[&Family] = &[&REQUESTS, &DURATION, &INFLIGHT, &WEBSOCKETS];
    [own, ReviewCounts::FAMILIES, PodResourcesCounts::FAMILIES].into_iter().flatten().copied()
}

/// Requests, counted.
pub struct HttpCounts {
    requests: Labelled<Counter>,
    duration: Labelled<Histogram>,
    inflight: Labelled<Gauge>,
    websockets: Labelled<Counter>,
    health: Labelled<Gauge>,
    healths: Labelled<Counter>,
    pub(crate) reviews: ReviewCounts,
    pub(crate) pod_resources: PodResourcesCounts,
    /// Pages that are written at a time; more wait. Each takes a thread and the readings of all pods.
    pub(crate) turns: Arc<Semaphore>,
}

const TURNS: usize = 4;

impl Default for HttpCounts {
    fn default() -> Self {
        Self {
            requests: Labelled::new(&REQUESTS),
            duration: Labelled::new(&DURATION),
            inflight: Labelled::new(&INFLIGHT),
            websockets: Labelled::new(&WEBSOCKETS),
            health: Labelled::new(&HEALTH),
            healths: Labelled::new(&HEALTHS),
            reviews: ReviewCounts::default(),
            pod_resources: PodResourcesCounts::default(),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }
}

impl HttpCounts {
    /// A request came; it is under way until the answer is dropped. kubelet 1.36: `path` is the first segment of a path
    /// that there is (of metrics the first two), else `other`; GET and the like are asked by their names, others not.
    pub(crate) fn begin(&self, method: &Method, path: &str, is_full: bool) -> UnderWay<'_> {
        let bucket = bucket(path);
        let is_long = matches!(bucket, "exec" | "attach" | "portForward" | "debug" | "containerLogs");
        let labels = [
            if is_long { "true" } else { "false" },
            verb(method),
            bucket,
            if is_full { "readwrite" } else { "readonly" },
        ];
        self.requests.of(&labels).add_one();
        self.inflight.of(&labels).add(1.0);
        UnderWay { counts: self, labels, since: Instant::now() }
    }

    /// A stream came over WebSockets.
    pub fn websocket(&self, subresource: &str) {
        self.websockets.of(&[subresource]).add_one();
    }

    /// A check of health was made. kubelet 1.36: it is counted when somebody asks for health.
    pub(crate) fn checked(&self, name: &str, is_well: bool) {
        const KIND: &str = "healthz";
        self.health.of(&[name, KIND]).set(if is_well { 1.0 } else { 0.0 });
        let status = if is_well { "success" } else { "error" };
        self.healths.of(&[name, status, KIND]).add_one();
    }

    /// Writes what stands on `/metrics/slis`.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell_slis(&self, text: &mut Text<'_>) -> io::Result<()> {
        self.health.tell(text)?;
        self.healths.tell(text)
    }

    /// Writes the families of `/metrics`.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        self.requests.tell(text)?;
        self.duration.tell(text)?;
        self.inflight.tell(text)?;
        self.websockets.tell(text)?;
        self.reviews.tell(text)?;
        self.pod_resources.tell(text)
    }
}

/// A request that is being answered.
pub(crate) struct UnderWay<'c> {
    counts: &'c HttpCounts,
    labels: [&'static str; 4],
    since: Instant,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.counts.inflight.of(&self.labels).add(-1.0);
        self.counts.duration.of(&self.labels).took(self.since.elapsed());
    }
}

/// Paths are from outside: only those that there are become labels.
fn bucket(path: &str) -> &'static str {
    const KNOWN: [&str; 20] = [
        "healthz",
        "pods",
        "stats",
        "run",
        "exec",
        "attach",
        "portForward",
        "containerLogs",
        "configz",
        "runningpods",
        "logs",
        "debug",
        "checkpoint",
        "flagz",
        "statusz",
        "metrics",
        "metrics/cadvisor",
        "metrics/probes",
        "metrics/resource",
        "metrics/slis",
    ];
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    let known = |name: &str| KNOWN.into_iter().find(|known| *known == name);
    known(path).or_else(|| known(first)).unwrap_or("other")
}

fn verb(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_paths_that_there_are() {
        let counts = HttpCounts::default();
        drop(counts.begin(&Method::GET, "/metrics/cadvisor", true));
        drop(counts.begin(&Method::GET, "/exec/ns/pod/c", true));
        let odd = Method::from_bytes(b"ODD").unwrap();
        let under_way = counts.begin(&odd, "/../secret", false);
        let mut page = Vec::new();
        counts.tell(&mut Text::new(&mut page)).unwrap();
        let page = String::from_utf8(page).unwrap();
        let name = "kubelet_http_inflight_requests";
        for line in [
            "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"metrics/cadvisor\",server_type=\"readwrite\"} 1",
            "kubelet_http_requests_total{long_running=\"true\",method=\"GET\",path=\"exec\",server_type=\"readwrite\"} 1",
            &format!("{name}{{long_running=\"true\",method=\"GET\",path=\"exec\",server_type=\"readwrite\"}} 0"),
            &format!("{name}{{long_running=\"false\",method=\"other\",path=\"other\",server_type=\"readonly\"}} 1"),
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
        }
        drop(under_way);
    }

    #[test]
    fn checks_of_health_are_counted() {
        let counts = HttpCounts::default();
        counts.checked("ping", true);
        counts.checked("syncloop", true);
        counts.checked("syncloop", false);
        let mut page = Vec::new();
        counts.tell_slis(&mut Text::new(&mut page)).unwrap();
        let page = String::from_utf8(page).unwrap();
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
            "kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 0",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"error\",type=\"healthz\"} 1",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"success\",type=\"healthz\"} 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
        }
    }
}
