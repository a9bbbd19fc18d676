//! Questions to the API server about callers, and to the socket of pod resources, counted.

use std::time::Duration;

use rubelet_api::counted;
use rubelet_api::metrics::{Counter, Family, Gauge, Histogram, Labelled, Names, SECONDS, Stability};

/// kubelet 1.36: how long the API server may take for a review.
const REVIEWS: &[f64] = &[0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];
const CODE: Names = &["code"];
const STATUS: Names = &["status"];
const VERSION: Names = &["server_api_version"];

const fn counts(name: &'static str, help: &'static str, labels: Names) -> Family {
    Family::counter(name, Stability::Alpha, help, labels)
}

const fn times(name: &'static str, help: &'static str, labels: Names, bounds: &'static [f64]) -> Family {
    Family::histogram(name, Stability::Alpha, help, labels, bounds)
}

counted! {
    /// Who asks and what they may: what the API server was asked, and what was remembered.
    pub(crate) struct ReviewCounts {
        who: Labelled<Counter> = counts("apiserver_delegated_authn_request_total", "Questions to the API server whose a token is, by the code of its answer", CODE);
        who_took: Labelled<Histogram> = times("apiserver_delegated_authn_request_duration_seconds", "How long the API server took to say whose a token is, in seconds", CODE, REVIEWS);
        may: Labelled<Counter> = counts("apiserver_delegated_authz_request_total", "Questions to the API server what a caller may do, by the code of its answer", CODE);
        may_took: Labelled<Histogram> = times("apiserver_delegated_authz_request_duration_seconds", "How long the API server took to say what a caller may do, in seconds", CODE, REVIEWS);
        tokens: Labelled<Counter> = counts("authentication_token_cache_request_total", "Tokens that came, by whether it was remembered whose they are", STATUS);
        tokens_took: Labelled<Histogram> = times("authentication_token_cache_request_duration_seconds", "How long it took to know whose a token is, in seconds", STATUS, SECONDS);
        fetches: Labelled<Counter> = counts("authentication_token_cache_fetch_total", "Tokens that were not remembered, by whether it could be found out whose they are", STATUS);
        fetching: Labelled<Gauge> = Family::gauge("authentication_token_cache_active_fetch_count", Stability::Alpha, "Tokens of which it is being found out whose they are: those that are asked about, and those that wait for the same answer", STATUS);
    }
}

/// client-go: what is counted where there is no answer.
const NO_CODE: &str = "<error>";

/// What the API server is asked about a caller.
#[derive(Clone, Copy)]
pub(crate) enum Review {
    Token,
    Access,
}

impl ReviewCounts {
    /// The API server was asked; `code`: of its answer, if there was one.
    pub(crate) fn asked(&self, review: Review, code: Option<u16>, time: Duration) {
        let code = code.map_or_else(|| NO_CODE.to_owned(), |code| code.to_string());
        let (total, took) = match review {
            Review::Token => (&self.who, &self.who_took),
            Review::Access => (&self.may, &self.may_took),
        };
        total.of(&[&code]).add_one();
        took.of(&[&code]).took(time);
    }

    /// A token came.
    pub(crate) fn token(&self, is_remembered: bool, time: Duration) {
        let status = if is_remembered { "hit" } else { "miss" };
        self.tokens.of(&[status]).add_one();
        self.tokens_took.of(&[status]).took(time);
    }

    /// Somebody waits for the answer about a token, until this is dropped.
    pub(crate) fn waits(&self, is_asking: bool) -> Waits<'_> {
        let status = if is_asking { "in_flight" } else { "blocked" };
        self.fetching.of(&[status]).add(1.0);
        Waits { counts: self, status }
    }

    /// It was found out whose a token is, or not.
    pub(crate) fn fetched(&self, is_ok: bool) {
        self.fetches.of(&[if is_ok { "ok" } else { "error" }]).add_one();
    }
}

/// One that waits.
pub(crate) struct Waits<'c> {
    counts: &'c ReviewCounts,
    status: &'static str,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.counts.fetching.of(&[self.status]).add(-1.0);
    }
}

counted! {
    /// Calls to the socket of pod resources, by the version of its API.
    pub(crate) struct PodResourcesCounts {
        all: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_requests_total", "Calls to the socket of pod resources", VERSION);
        list: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_requests_list", "Calls of List to the socket of pod resources", VERSION);
        list_errors: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_errors_list", "Calls of List to the socket of pod resources that failed", VERSION);
        allocatable: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_requests_get_allocatable", "Calls of GetAllocatableResources to the socket of pod resources", VERSION);
        allocatable_errors: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_errors_get_allocatable", "Calls of GetAllocatableResources to the socket of pod resources that failed", VERSION);
        get: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_requests_get", "Calls of Get to the socket of pod resources", VERSION);
        get_errors: Labelled<Counter> = counts("kubelet_pod_resources_endpoint_errors_get", "Calls of Get to the socket of pod resources that failed", VERSION);
    }
}

impl PodResourcesCounts {
    /// A method that there is was called, by its path.
    pub(crate) fn called(&self, path: &str, is_ok: bool) {
        let version = if path.starts_with("/v1alpha1.") { "v1alpha1" } else { "v1" };
        let (calls, errors) = match path.rsplit('/').next() {
            Some("List") => (&self.list, &self.list_errors),
            Some("GetAllocatableResources") => (&self.allocatable, &self.allocatable_errors),
            Some("Get") => (&self.get, &self.get_errors),
            Some(_) | None => return,
        };
        self.all.of(&[version]).add_one();
        calls.of(&[version]).add_one();
        if !is_ok {
            errors.of(&[version]).add_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use rubelet_api::metrics::Text;

    use super::*;

    #[test]
    fn calls_to_the_socket_are_counted_by_method_and_version() {
        let counts = PodResourcesCounts::default();
        counts.called("/v1.PodResourcesLister/List", true);
        counts.called("/v1alpha1.PodResourcesLister/List", true);
        counts.called("/v1.PodResourcesLister/Get", false);
        counts.called("/v1.PodResourcesLister/Other", false);
        let mut page = Vec::new();
        counts.tell(&mut Text::new(&mut page)).unwrap();
        let page = String::from_utf8(page).unwrap();
        for line in [
            "kubelet_pod_resources_endpoint_requests_total{server_api_version=\"v1\"} 2",
            "kubelet_pod_resources_endpoint_requests_list{server_api_version=\"v1alpha1\"} 1",
            "kubelet_pod_resources_endpoint_errors_get{server_api_version=\"v1\"} 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
        }
        assert!(!page.contains("errors_list{"), "{page}");
    }
}
