//! Requests to the API server, counted, under client-go's names.

use std::time::Duration;

use http::Method;
use rubelet_api::counted;
use rubelet_api::metrics::{Counter, Family, Histogram, Labelled, Names, Stability};

/// client-go's bounds of times, seconds.
const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// And of sizes.
const BYTES: &[f64] =
    &[64.0, 256.0, 512.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
const LABELS: Names = &["host", "verb"];

const fn of(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Family {
    Family::histogram(name, Stability::Alpha, help, LABELS, bounds)
}

counted! {
    /// What was asked of API servers.
    pub struct ClientCounts {
        requests: Labelled<Counter> = Family::counter("rest_client_requests_total", Stability::Alpha, "Requests to the API server", &["code", "host", "method"]);
        retries: Labelled<Counter> = Family::counter("rest_client_request_retries_total", Stability::Alpha, "Requests to the API server that were made again", &["code", "host", "verb"]);
        took: Labelled<Histogram> = of("rest_client_request_duration_seconds", "How long the API server took until an answer began, in seconds", SECONDS);
        held: Labelled<Histogram> = of("rest_client_rate_limiter_duration_seconds", "How long requests to the API server were held back by the rate that is set here, in seconds", SECONDS);
        sent: Labelled<Histogram> = of("rest_client_request_size_bytes", "Sizes of requests to the API server, in bytes", BYTES);
        received: Labelled<Histogram> = of("rest_client_response_size_bytes", "Sizes of answers of the API server, in bytes", BYTES);
    }
}

/// client-go: what is counted where there is no answer.
const NO_CODE: &str = "<error>";

impl ClientCounts {
    /// A request waited for its turn.
    pub(crate) fn waited(&self, host: &str, method: &Method, time: Duration) {
        self.held.of(&[host, method.as_str()]).took(time);
    }

    /// One was made; `code`: of its answer, if there was one.
    pub(crate) fn asked(&self, host: &str, method: &Method, code: Option<u16>, bytes: usize, time: Duration) {
        let labels = [host, method.as_str()];
        self.requests.of(&[&text(code), host, method.as_str()]).add_one();
        self.took.of(&labels).took(time);
        self.sent.of(&labels).observe(bytes as f64);
    }

    /// It will be made again.
    pub(crate) fn again(&self, host: &str, method: &Method, code: Option<u16>) {
        self.retries.of(&[&text(code), host, method.as_str()]).add_one();
    }

    /// A whole answer was read.
    pub(crate) fn answered(&self, host: &str, method: &Method, bytes: usize) {
        self.received.of(&[host, method.as_str()]).observe(bytes as f64);
    }
}

fn text(code: Option<u16>) -> String {
    code.map_or_else(|| NO_CODE.to_owned(), |code| code.to_string())
}
