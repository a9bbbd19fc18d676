//! Probes and hooks that go over the network: HTTP, TCP and gRPC. What is probed was decided elsewhere; what came of it is
//! told in the words that upstream's users know.

use std::time::Duration;

use rubelet_core::pod::fact::ProbeAnswer;
use rubelet_core::pod::step::ProbeHow;
use tokio::time::Instant;

mod dial;
mod grpc;
mod http;
pub(crate) mod location;
mod tls;

#[cfg(test)]
mod tests;

/// Who asks over gRPC; over HTTP the headers say so.
const GRPC_AGENT: &str = "kube-probe/1.36";

/// What became of an HTTP hook that the server answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hooked {
    Plain,
    /// The hook says HTTPS and the server speaks HTTP: it was asked again without TLS and without `Authorization`.
    /// kubelet 1.36: event `LifecycleHTTPFallback`.
    WithoutTls,
}

/// Probes once within `timeout`. Exec probes go through the runtime and are [`ProbeAnswer::Unknown`] here.
pub async fn probe(how: &ProbeHow, timeout: Duration) -> ProbeAnswer {
    match how {
        ProbeHow::Http { scheme_https, host, port, path, headers } => {
            let get = http::Get { is_https: *scheme_https, host, port: *port, path, headers };
            http_answer(get.send(Some(Instant::now() + timeout)).await)
        }
        ProbeHow::Tcp { host, port } => match tokio::time::timeout(timeout, dial::tcp(host, *port)).await {
            Ok(Ok(_)) => ProbeAnswer::Success,
            Ok(Err(text)) => ProbeAnswer::Failure(text),
            Err(_) => ProbeAnswer::Failure(format!("dial tcp {}: i/o timeout", dial::host_port(host, *port))),
        },
        ProbeHow::Grpc { host, port, service } => grpc::check(host, *port, service, timeout).await,
        ProbeHow::Exec { .. } => ProbeAnswer::Unknown("exec probes are made by the container runtime".to_owned()),
        ProbeHow::Invalid { message } => ProbeAnswer::Unknown(message.clone()),
    }
}

/// kubelet 1.36: 200 to 399 is success, with a warning from 300 on; a body that breaks off is a probe error.
fn http_answer(answer: Result<http::Answer, http::Trouble>) -> ProbeAnswer {
    match answer {
        Ok(answer) => match answer.status {
            200..300 => ProbeAnswer::Success,
            300..400 => {
                let body = String::from_utf8_lossy(&answer.body);
                ProbeAnswer::Warning(format!("Probe terminated redirects, Response body: {body}"))
            }
            status => ProbeAnswer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
        Err(http::Trouble::Request(text)) => ProbeAnswer::Failure(text),
        Err(http::Trouble::Body(text)) => ProbeAnswer::Unknown(text),
        Err(http::Trouble::Invalid(text)) => ProbeAnswer::Unknown(text),
    }
}

/// Runs an `httpGet` hook, given as [`ProbeHow::Http`]; any status counts as done. How long it may take is the caller's
/// business: dropping the future ends it.
pub async fn http_hook(how: &ProbeHow) -> Result<Hooked, String> {
    let ProbeHow::Http { scheme_https, host, port, path, headers } = how else {
        return Err(match how {
            ProbeHow::Invalid { message } => message.clone(),
            ProbeHow::Exec { .. } | ProbeHow::Tcp { .. } | ProbeHow::Grpc { .. } | ProbeHow::Http { .. } => {
                "not an HTTP hook".to_owned()
            }
        });
    };
    let get = http::Get { is_https: *scheme_https, host, port: *port, path, headers };
    match get.send(None).await {
        Ok(_) => Ok(Hooked::Plain),
        Err(http::Trouble::Request(text)) if *scheme_https && text.ends_with(tls::HTTP_ANSWER) => {
            let is_kept = |(name, _): &&(String, String)| !name.eq_ignore_ascii_case("authorization");
            let headers: Vec<(String, String)> = headers.iter().filter(is_kept).cloned().collect();
            let again = http::Get { is_https: false, headers: &headers, ..get };
            again.send(None).await.map(|_| Hooked::WithoutTls).map_err(http::Trouble::into_text)
        }
        Err(trouble) => Err(trouble.into_text()),
    }
}
